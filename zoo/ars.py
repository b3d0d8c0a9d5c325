"""Pretraining of ARS: next-token loss, and guided attention until text and speech are aligned."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torchaudio
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from intp.adapters.ar import ARAdapter
from intp.adapters.base import weights_key
from intp.corpus import Utterance
from intp.files import whole
from intp.losses import IGNORE, ar_logps
from networks.tokenizer import SpeechTokenizer
from zoo.keys import key
from zoo.rows import Speakers, chance, corrupt, joined, like_lengths, near_one
from zoo.tokenizer import ctc_labels, pad_even

VERSIONS = ((1.0, 0), (1.0, 1), (0.9, 0), (1.1, 1))  # stretch in time, shift in frames


@dataclass(frozen=True)
class Segment:
    """One version of an utterance: tokens [N], and for each the index of the phoneme it sounds."""

    tokens: Tensor
    phoneme: Tensor


def align(tokenizer: SpeechTokenizer, logits: Tensor, phonemes: str) -> Tensor:
    """For each token, the index in `phonemes` of the symbol it sounds: Viterbi on the CTC head.

    Tokens that the head calls blank go to the nearest symbol. CTC logits [N, symbols + 1] -> [N].
    """
    sounding = [i for i, p in enumerate(phonemes) if ctc_labels(p)]
    index = {p: i + 1 for i, p in enumerate(tokenizer.config.phonemes)}
    labels = torch.tensor([[index[phonemes[i]] for i in sounding]])
    path, _ = torchaudio.functional.forced_align(logits[None].log_softmax(-1), labels)
    path = path[0]
    starts = (path != 0) & torch.cat([torch.tensor([True]), path[1:] != path[:-1]])
    peaks = starts.nonzero().squeeze(1)
    nearest = (torch.arange(len(path))[:, None] - peaks).abs().argmin(1)
    return torch.tensor(sounding)[nearest]


def version(mel: Tensor, stretch: float, shift: int) -> Tensor:
    """A log-mel [T, 100] stretched in time and shifted, so that its tokens differ."""
    if stretch != 1.0:
        mel = F.interpolate(mel.T[None], scale_factor=stretch, mode="linear")[0].T
    return mel[shift:]


@torch.inference_mode()
def segments(
    tokenizer: SpeechTokenizer, rows: list[Utterance], mels: dict[str, Tensor]
) -> dict[str, list[Segment]]:
    """Tokens and alignment of all versions of every utterance.

    A version with too few tokens for its sounding symbols cannot be aligned and is left out.
    """
    jobs = [(row, version(mels[row.id].float(), *v)) for row in rows for v in VERSIONS]
    made: dict[str, list[Segment | None]] = {row.id: [None] * len(VERSIONS) for row in rows}
    place = [i % len(VERSIONS) for i in range(len(jobs))]
    order = sorted(range(len(jobs)), key=lambda i: len(jobs[i][1]))
    for start in tqdm(range(0, len(order), 64), desc="tokens", mininterval=10):
        picked = order[start : start + 64]
        frames, mask = pad_even([jobs[i][1] for i in picked])
        vectors, codes = tokenizer.encode(tokenizer.normalise(frames), mask)
        logits = tokenizer.phoneme_logits(vectors, mask)
        for k, i in enumerate(picked):
            row, count = jobs[i][0], int(mask[k].sum())
            labels = ctc_labels(row.phonemes)
            # CTC needs a blank between equal neighbours
            if count >= len(labels) + sum(a == b for a, b in pairwise(labels)):
                phoneme = align(tokenizer, logits[k, :count], row.phonemes)
                made[row.id][place[i]] = Segment(codes[k, :count].clone(), phoneme)
    return {name: [s for s in found if s is not None] for name, found in made.items()}


def in_version(
    versions: dict[str, list[Segment]], rows: list[Utterance], pick: int
) -> list[Segment]:
    """Each row's version number `pick`, counted round those that it has."""
    return [versions[row.id][pick % len(versions[row.id])] for row in rows]


def cached_segments(
    tokenizer: SpeechTokenizer, rows: list[Utterance], mels: dict[str, Tensor], folder: Path
) -> dict[str, list[Segment]]:
    """`segments`, kept in `folder` as plain tensors, by the key of all that they are made from."""
    heard = [(row.id, row.phonemes, mels[row.id]) for row in rows]
    cache = folder / f"{key(weights_key(tokenizer), VERSIONS, heard)}.pt"
    if not cache.is_file():
        made = segments(tokenizer, rows, mels)
        plain = {k: [(s.tokens.short(), s.phoneme.short()) for s in v] for k, v in made.items()}
        with whole(cache) as partial:
            torch.save(plain, partial)
    plain = torch.load(cache, weights_only=True)
    return {k: [Segment(t.long(), p.long()) for t, p in v] for k, v in plain.items()}


def guidance(attentions: tuple[Tensor, ...], layers: tuple[int, ...], place: Tensor) -> Tensor:
    """-log of the mass that head 0 of the guided layers puts on each query's place +- 1.

    `place` [B, T] is the column of what the query is to read, 0 or less where there is none.
    """
    valid = place > 0
    near = (place[..., None] + torch.arange(-1, 2)).clamp(0, place.shape[1] - 1)
    total = attentions[0].new_zeros(())
    for layer in layers:
        mass = attentions[layer][:, 0].gather(-1, near).sum(-1)
        total = total - mass[valid].clamp_min(1e-6).log().mean()
    return total / len(layers)


def guidance_weight(step: int, steps: int) -> float:
    """The weight of the guided term at a step, if it is there for `steps` of them."""
    return max(0.05, 0.5 * (1 - step / steps))


class ARTask:
    """Batches of joined utterances of one voice, and the loss of a step.

    The first utterance of a row plays the reference speech: its speaking rate sets the positions of
    the text, so the model learns to read on in the manner of what stands before.
    """

    def __init__(
        self,
        adapter: ARAdapter,
        rows: list[Utterance],
        versions: dict[str, list[Segment]],
        budget: int,
        longest: int,
        guidance_steps: int,
    ):
        self.adapter, self.budget, self.longest = adapter, budget, longest
        self.guidance_steps = guidance_steps
        self.versions = {r.id: versions[r.id] for r in rows if versions[r.id]}
        self.speakers = Speakers([r for r in rows if r.id in self.versions])
        layers = adapter.model.config.num_hidden_layers
        self.guided = (layers // 2 - 1, layers // 2)

    def draw(self, count: int) -> dict[str, Tensor]:
        """One row of `count` utterances: ids, positions, labels, and each label's phoneme."""
        rows = self.speakers.pick(count)
        picks = in_version(self.versions, rows, chance(len(VERSIONS)))
        separator = self.adapter.config.separator
        text = separator.join(r.phonemes for r in rows)
        tokens = torch.cat([p.tokens for p in picks])
        phoneme = joined([p.phoneme for p in picks], rows, len(separator))
        noise = near_one(0.07 if count > 1 else 0.2)
        rate = noise * len(picks[0].tokens) / len(rows[0].phonemes)
        ids = self.adapter.ids
        prefix = [ids["bos_phone"], *self.adapter.phones(text), ids["eos_phone"], ids["bos_target"]]
        positions = self.adapter.positions(len(text), 0, rate)
        row = self.adapter.sequence(torch.tensor(prefix), positions, tokens)
        where = torch.cat([torch.full((len(prefix) - 1,), -1), phoneme + 1, torch.tensor([-1])])
        return row | {"phoneme": where}

    def make_batch(self, step: int) -> dict[str, Tensor]:
        """The padded batch of a step: rows of equally many utterances and of like length."""
        count = 1 + chance(self.longest)
        drawn = like_lengths(lambda: self.draw(count), lambda r: len(r["input_ids"]), self.budget)
        phoneme = [row.pop("phoneme") for row in drawn]
        return self.adapter.pad(drawn) | {
            "phoneme": pad_sequence(phoneme, batch_first=True, padding_value=-1)
        }

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts."""
        model, batch = self.adapter.model, self.make_batch(step)
        noisy = corrupt(batch["input_ids"], 0, self.adapter.config.tokens)
        embedded = F.dropout(model.get_input_embeddings()(noisy), 0.1)
        guided = step < self.guidance_steps
        out = model(
            inputs_embeds=embedded,
            position_ids=batch["position_ids"],
            attention_mask=batch["attention_mask"],
            use_cache=False,
            output_attentions=guided,
        )
        loss = F.cross_entropy(
            out.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE
        )
        parts = {"ce": loss.item()}
        if guided:
            term = guidance(out.attentions, self.guided, batch["phoneme"])
            parts["guidance"] = term.item()
            loss = loss + guidance_weight(step, self.guidance_steps) * term
        return loss, parts

    @torch.inference_mode()
    def held_out(
        self, rows: list[Utterance], versions: dict[str, list[Segment]], lang: str
    ) -> float:
        """Cross-entropy in nats a token of single utterances the training never saw."""
        total, count, rows = 0.0, 0, [row for row in rows if row.lang == lang]
        for start in range(0, len(rows), 32):
            drawn = []
            for row in rows[start : start + 32]:
                tokens = versions[row.id][0].tokens
                ids = self.adapter.ids
                text = self.adapter.phones(row.phonemes)
                prefix = torch.tensor(
                    [ids["bos_phone"], *text, ids["eos_phone"], ids["bos_target"]]
                )
                rate = len(tokens) / len(text)
                positions = self.adapter.positions(len(text), 0, rate)
                drawn.append(self.adapter.sequence(prefix, positions, tokens))
            batch = self.adapter.pad(drawn)
            inputs = {k: batch[k] for k in ("input_ids", "position_ids", "attention_mask")}
            logits = self.adapter.model(**inputs, use_cache=False).logits
            total -= ar_logps(logits, batch["labels"]).sum().item()
            count += int((batch["labels"] != IGNORE).sum())
        return round(total / count, 4)
