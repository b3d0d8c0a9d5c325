"""Pretraining of the flow-matching model: Eq. 4 on target frames, conditions dropped for guidance."""

import torch
from torch import Tensor

from intp.adapters.flow_matching import FlowMatchingAdapter
from intp.corpus import Utterance
from intp.losses import flow_matching_error
from zoo.rows import Speakers, as_prompt, chance, joined, like_lengths, random_draw

DROP_AUDIO, DROP_ALL = 0.3, 0.2  # F5-TTS's shares of steps without reference, and without text too


class FlowTask:
    """Batches of joined utterances of one voice, the first of them the reference speech.

    Where text and speech meet is what costs. With the chance `told` a row is told: each target frame
    hears the phoneme that it sounds (`sounds`, by utterance), not the one due at its time. So the
    model learns to sound what it hears when it hears it, and at inference follows what is due.
    """

    def __init__(
        self,
        adapter: FlowMatchingAdapter,
        rows: list[Utterance],
        mels: dict[str, Tensor],
        budget: int,
        longest: int,
        sounds: dict[str, Tensor | None],
        told: float,
    ):
        self.adapter, self.budget, self.longest = adapter, budget, longest
        self.mels, self.speakers = mels, Speakers(rows)
        self.sounds, self.told = sounds, told

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
        prompt = as_prompt(rows[:1], rows[1:])
        row = self.adapter.noised(prompt, reference, target, random_draw())
        found = [self.sounds[r.id] for r in rows]
        if float(torch.rand(())) < self.told and all(s is not None for s in found):
            row["text_frames"][len(reference) :] = joined(found, rows)[len(reference) :]
        return row

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
        error = flow_matching_error(velocity, batch["velocity"], batch["target_mask"])
        # Near t = 1 the speech is all but given: the text decides while there is mostly noise.
        return (2 * (1 - batch["time"]) * error).mean(), {"error": error.mean().item()}

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
