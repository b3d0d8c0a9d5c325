"""Pretraining of the speech tokenizer: reconstruction and supervision by phonemes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from intp.corpus import Utterance
from networks.tokenizer import FRAMES_PER_TOKEN, SpeechTokenizer
from zoo.loop import StepBatches
from zoo.voices import voices, warped


def ctc_labels(phonemes: str) -> str:
    """Phonemes that sound: without stress marks, spaces and punctuation; tones stay."""
    return "".join(c for c in phonemes if c not in "ˈˌ ,.!?;:—…\"'()“”")


def pad_even(mels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack mels [T, 100] to [B, T', 100] with T' even, and the token mask [B, T'/2]."""
    mels = [m[: len(m) // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN] for m in mels]
    lengths = torch.tensor([len(m) // FRAMES_PER_TOKEN for m in mels])
    frames = pad_sequence(mels, batch_first=True)
    mask = torch.arange(frames.shape[1] // FRAMES_PER_TOKEN) < lengths[:, None]
    return frames, mask.float()


def valid_frames(mask: Tensor) -> Tensor:
    """Token mask [B, N] as one of frames [B, 2 N, 1]."""
    return mask.repeat_interleave(FRAMES_PER_TOKEN, 1)[..., None]


def distance(spoken: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean L1 of mels [B, T, 100] over the valid frames."""
    wide = valid_frames(mask)
    return ((spoken - target).abs() * wide).sum() / (wide.sum() * target.shape[-1])


class TokenizerTask:
    """Reconstruction in the timbre of another utterance of the same voice, and CTC on the codes.

    With `warp`, an utterance is heard in one random voice and spoken in another: what tells voices
    apart is of no use in a code, and no timbre belongs to one language.
    """

    def __init__(
        self,
        model: SpeechTokenizer,
        rows: list[Utterance],
        mels: dict[str, Tensor],
        budget: int,
        ctc_weight: float,
        seed: int,
        warp: float = 0.0,
    ):
        self.model, self.rows, self.mels, self.ctc_weight = model, rows, mels, ctc_weight
        self.warp = warp
        self.index = {p: i + 1 for i, p in enumerate(model.config.phonemes)}
        self.by_voice: dict[str, list[str]] = {}
        for row in rows:
            self.by_voice.setdefault(row.voice_name, []).append(row.id)
        self.batch = StepBatches([len(mels[r.id]) for r in rows], budget, seed)

    def mate(self, row: Utterance) -> Tensor:
        """A mel to take the timbre from: another utterance of the voice, or a crop of this one."""
        others = self.by_voice[row.voice_name]
        pick = others[int(torch.randint(len(others), ()))]
        mel = self.mels[pick].float()
        if pick != row.id:
            return mel[:200]
        size = max(40, len(mel) // 2)
        start = int(torch.randint(max(1, len(mel) - size), ()))
        return mel[start : start + size]

    def voices(self, rows: list[Utterance]) -> list[float]:
        """A factor of `warped` for each row; 1 without `warp`."""
        return voices(len(rows), self.warp)

    def frames(self, rows: list[Utterance], voices: list[float]) -> tuple[Tensor, Tensor]:
        """Normalised mels [B, T, 100] in these voices and their token mask [B, T/2]."""
        mels = (self.mels[row.id].float() for row in rows)
        frames, mask = pad_even([warped(m, v) for m, v in zip(mels, voices, strict=True)])
        return self.model.normalise(frames), mask

    def heard_and_spoken(
        self, rows: list[Utterance], reference: Callable[[Utterance], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Normalised mels [B, T, 100] in the voices that hear and in those that speak, their token
        mask [B, T/2], and `reference` of each row in the voice that speaks."""
        spoken = self.voices(rows)
        target, mask = self.frames(rows, spoken)
        heard, _ = self.frames(rows, self.voices(rows))
        references = [warped(reference(r), v) for r, v in zip(rows, spoken, strict=True)]
        return heard, target, mask, references

    def speak(self, vectors: Tensor, mask: Tensor, references: list[Tensor]) -> Tensor:
        """Normalised mels [B, T, 100] of code vectors [B, T/2, D], each in its reference's timbre."""
        reference, reference_mask = pad_even(references)
        timbre = self.model.embed_timbre(self.model.normalise(reference), reference_mask)
        return self.model.decode(vectors, timbre, mask)

    def losses(self, rows: list[Utterance]) -> tuple[Tensor, Tensor]:
        """L1 on the normalised mel and CTC in nats a label, of one batch."""
        heard, target, mask, references = self.heard_and_spoken(rows, self.mate)
        vectors, _ = self.model.encode(heard, mask)
        spoken = self.speak(vectors, mask, references)
        return distance(spoken, target, mask), self.ctc(rows, vectors, mask)

    def ctc(self, rows: list[Utterance], vectors: Tensor, mask: Tensor) -> Tensor:
        """CTC in nats a label of code vectors [B, N, D]; symbols without a label are passed over."""
        labels = [
            torch.tensor([self.index[c] for c in ctc_labels(r.phonemes) if c in self.index])
            for r in rows
        ]
        return F.ctc_loss(
            self.model.phoneme_logits(vectors, mask).log_softmax(-1).transpose(0, 1),
            torch.cat(labels),
            mask.sum(1).long(),
            torch.tensor([len(x) for x in labels]),
            zero_infinity=True,
        )

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts."""
        rows = [self.rows[i] for i in self.batch(step)]
        reconstruction, ctc = self.losses(rows)
        parts = {"l1": reconstruction.item(), "ctc": ctc.item()}
        return reconstruction + self.ctc_weight * ctc, parts


class DecoderTask:
    """Only what speaks: decoder and timbre encoder learn on, every code stays as it is.

    Beside L1, what was decoded is heard by the frozen encoder and its CTC head: L1 alone blurs the
    short sounds that tell words apart.
    """

    def __init__(
        self,
        model: SpeechTokenizer,
        rows: list[Utterance],
        mels: dict[str, Tensor],
        budget: int,
        weights: dict[str, float],
        seed: int,
    ):
        warp = weights.get("warp", 0.0)
        self.base = TokenizerTask(model, rows, mels, budget, 0.0, seed, warp)
        self.weights = weights
        for part in (model.encoder, model.to_code, model.ctc, model.to_phoneme):
            part.requires_grad_(False)

    def reference(self, row: Utterance) -> Tensor:
        """The timbre's source: two utterances of the voice, as long as a reference recording."""
        return torch.cat([self.base.mate(row), self.base.mate(row)])

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts."""
        base = self.base
        rows = [base.rows[i] for i in base.batch(step)]
        original, target, mask, references = base.heard_and_spoken(rows, self.reference)
        with torch.no_grad():
            vectors, _ = base.model.encode(original, mask)
        spoken = base.speak(vectors, mask, references)
        l1 = distance(spoken, target, mask)
        heard, _ = base.model.encode(spoken * valid_frames(mask), mask)
        ctc = base.ctc(rows, heard, mask)
        loss = l1 + self.weights["ctc"] * ctc
        return loss, {"l1": l1.item(), "ctc": ctc.item()}


def fit_mel_statistics(model: SpeechTokenizer, mels: dict[str, Tensor]) -> None:
    """Set the tokenizer's per-band mean and deviation from a sample of the corpus."""
    sample = torch.cat([m.float() for m in list(mels.values())[::10]])
    model.mel_mean.copy_(sample.mean(0))
    model.mel_std.copy_(sample.std(0).clamp_min(math.exp(-4)))
