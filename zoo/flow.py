"""Pretraining of the flow-matching model: Eq. 4 on target frames, conditions dropped for guidance."""

import torch
from torch import Tensor

from intp.adapters.flow_matching import FlowMatchingAdapter
from intp.corpus import Utterance
from intp.losses import flow_matching_error
from zoo.rows import Speakers, as_prompt, chance, like_lengths, random_draw

DROP_AUDIO, DROP_ALL = 0.3, 0.2  # F5-TTS's shares of steps without reference, and without text too


class FlowTask:
    """Batches of joined utterances of one voice, the first of them the reference speech."""

    def __init__(
        self,
        adapter: FlowMatchingAdapter,
        rows: list[Utterance],
        mels: dict[str, Tensor],
        budget: int,
        longest: int,
    ):
        self.adapter, self.budget, self.longest = adapter, budget, longest
        self.mels, self.speakers = mels, Speakers(rows)

    def mel(self, rows: list[Utterance]) -> Tensor:
        """Normalised log-mel [T, 100] of utterances in a row."""
        config = self.adapter.config
        return (
            torch.cat([self.mels[r.id].float() for r in rows]) - config.mel_mean
        ) / config.mel_std

    def draw(self, count: int) -> dict[str, Tensor]:
        """One row of `count` utterances."""
        rows = self.speakers.pick(count)
        reference, target = self.mel(rows[:1]), self.mel(rows[1:])
        return self.adapter.noised(as_prompt(rows[:1], rows[1:]), reference, target, random_draw())

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts."""
        count = 2 + chance(self.longest - 1)
        rows = like_lengths(lambda: self.draw(count), lambda r: len(r["condition"]), self.budget)
        batch = self.adapter.pad(rows)
        luck = float(torch.rand(()))
        velocity = self.adapter.model(
            batch["noised"], batch["condition"], batch["text"], batch["time"],
            batch["frame_mask"], batch.get("text_frames"),
            drop_audio=luck < DROP_AUDIO + DROP_ALL, drop_text=luck < DROP_ALL,
        )  # fmt: skip
        loss = flow_matching_error(velocity, batch["velocity"], batch["target_mask"]).mean()
        return loss, {"error": loss.item()}

    @torch.inference_mode()
    def held_out(self, rows: list[Utterance], lang: str) -> float:
        """The error of utterances the training never saw, each after one of its voice."""
        rows = [row for row in rows if row.lang == lang]
        torch.manual_seed(0)
        total = 0.0
        for target in rows:
            reference = self.speakers.mate(target)
            mels = self.mel([reference]), self.mel([target])
            prompt = as_prompt([reference], [target])
            batch = self.adapter.pad([self.adapter.noised(prompt, *mels, random_draw())])
            total -= self.adapter.score(self.adapter.model, batch).item()
        return round(total / len(rows), 4)
