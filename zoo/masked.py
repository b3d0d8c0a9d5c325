"""Pretraining of the masked model: Eq. 8 on masked target tokens, text dropped for guidance."""

import torch
from torch import Tensor

from intp.adapters.masked import MaskedAdapter
from intp.corpus import Utterance
from intp.losses import masked_logps
from zoo.alignment import sounding_at
from zoo.ars import Segment, in_version
from zoo.rows import Speakers, as_prompt, chance, joined, like_lengths, random_draw

DROP_TEXT = 0.1


class MaskedTask:
    """Batches of joined utterances of one voice, the first of them the reference speech.

    With the chance `told` the target's phonemes lie where they sound; else, as at inference, where
    they are due.
    """

    def __init__(
        self,
        adapter: MaskedAdapter,
        rows: list[Utterance],
        versions: dict[str, list[Segment]],
        budget: int,
        longest: int,
        told: float,
    ):
        self.adapter, self.budget, self.longest = adapter, budget, longest
        self.told = told
        self.versions = {r.id: versions[r.id] for r in rows if versions[r.id]}
        self.speakers = Speakers([r for r in rows if r.id in self.versions])

    def row(self, rows: list[Utterance], pick: int, told: float = 0.0) -> dict[str, Tensor]:
        """The first utterance as reference speech, the rest as target, all in one version; with the
        chance `told`, phonemes lie where they sound."""
        parts = in_version(self.versions, rows, pick)
        target = torch.cat([part.tokens for part in parts[1:]])
        row = self.adapter.sequence(as_prompt(rows[:1], rows[1:]), parts[0].tokens, target)
        if float(torch.rand(())) < told:
            phoneme = joined([part.phoneme for part in parts], rows)
            sounding, due = sounding_at(phoneme, len(row["phone_ids"])), row["phone_positions"]
            row["phone_positions"] = torch.where(due < len(parts[0].tokens), due, sounding)
        return row | self.adapter.masking(len(target), random_draw())

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts."""
        count = 2 + chance(self.longest - 1)
        rows = like_lengths(
            lambda: self.row(self.speakers.pick(count), chance(4), self.told),
            lambda r: sum(len(r[f"{part}_ids"]) for part in ("phone", "reference", "target")),
            self.budget,
        )
        batch = self.adapter.pad(rows)
        batch["phone_mask"] &= torch.rand(len(rows), 1) >= DROP_TEXT
        model, inputs = self.adapter.model, self.adapter.inputs(batch)
        logits = model(**inputs)[:, batch["reference_ids"].shape[1] :]
        counted = batch["mask"].sum()
        loss = -masked_logps(logits, batch["target_ids"], batch["mask"]).sum() / counted
        return loss, {"ce": loss.item()}

    @torch.inference_mode()
    def held_out(
        self, rows: list[Utterance], versions: dict[str, list[Segment]], lang: str
    ) -> float:
        """Nats a masked token of utterances the training never saw, each after one of its voice."""
        rows = [row for row in rows if row.lang == lang]
        torch.manual_seed(0)
        self.versions |= {r.id: versions[r.id] for r in rows}
        made = [self.row([self.speakers.mate(row), row], 0) for row in rows]
        total, count = 0.0, 0
        for start in range(0, len(made), 32):
            batch = self.adapter.pad(made[start : start + 32])
            total -= self.adapter.score(self.adapter.model, batch).sum().item()
            count += int(batch["mask"].sum())
        return round(total / count, 4)
