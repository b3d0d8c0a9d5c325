"""Pretraining of the speech tokenizer: reconstruction and supervision by phonemes."""

import math
from collections.abc import Callable
from typing import ClassVar

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


def timbres(model: SpeechTokenizer, references: list[Tensor]) -> Tensor:
    """Timbres [B, timbre_dim] of log-mels [T, 100]."""
    reference, mask = pad_even(references)
    return model.embed_timbre(model.normalise(reference), mask)


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

    def anybody(self) -> Tensor:
        """A mel [T, 100] to take a timbre from: of any utterance, whatever its language, warped."""
        row = self.rows[int(torch.randint(len(self.rows), ()))]
        return warped(self.mels[row.id].float()[:300], *self.voices([row]))

    def speak(self, vectors: Tensor, mask: Tensor, references: list[Tensor]) -> Tensor:
        """Normalised mels [B, T, 100] of code vectors [B, T/2, D], each in its reference's timbre."""
        return self.model.decode(vectors, timbres(self.model, references), mask)

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


class PartTask:
    """One part of the tokenizer, `learns`, learns on; `first` is what the tokenizer was before."""

    learns: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        model: SpeechTokenizer,
        first: SpeechTokenizer,
        rows: list[Utterance],
        mels: dict[str, Tensor],
        budget: int,
        weights: dict[str, float],
        seed: int,
    ):
        self.base = TokenizerTask(model, rows, mels, budget, 0.0, seed, weights["warp"])
        self.first, self.weights = first.requires_grad_(False), weights
        model.requires_grad_(False)
        for part in self.learns:
            model.get_submodule(part).requires_grad_(True)


class EncoderTask(PartTask):
    """Only what listens: the encoder learns to hear in any voice the codes that `first` heard in the
    corpus: an ear for `DecoderTask`.

    Half of a batch is the corpus, warped; the other half is its codes as the decoder speaks them in
    the timbre of anybody, of whatever language.
    """

    learns = ("encoder", "to_code")

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts."""
        base = self.base
        rows = [base.rows[i] for i in base.batch(step)]
        original, mask = base.frames(rows, [1.0] * len(rows))
        with torch.no_grad():
            codes, _ = self.first.encode(original, mask)
            heard, _ = base.frames(rows, base.voices(rows))
            spoken = base.speak(codes[::2], mask[::2], [base.anybody() for _ in rows[::2]])
            heard[::2] = spoken * valid_frames(mask[::2])
        far, vectors, kept = self.missed(heard, codes, mask)
        ctc = base.ctc(rows, vectors, mask)
        return far + self.weights["ctc"] * ctc, {"far": far.item(), "ctc": ctc.item(), "kept": kept}

    def missed(self, heard: Tensor, codes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, float]:
        """How far, in levels of the quantiser, mels [B, T, 100] are heard from codes [B, T/2, D], as
        what they are heard, and the share of tokens that are the same."""
        model, fsq = self.base.model, self.base.model.fsq
        pairs = heard.unflatten(1, (-1, FRAMES_PER_TOKEN)).flatten(2)
        z = model.to_code(model.encoder(pairs, mask[..., None]))
        far = F.smooth_l1_loss(fsq.bound(z), codes * (fsq.levels // 2), reduction="none").mean(-1)
        vectors, _ = fsq(z)
        same = (vectors - codes).abs().amax(-1) < 1e-4
        return (far * mask).sum() / mask.sum(), vectors, ((same * mask).sum() / mask.sum()).item()


class DecoderTask(PartTask):
    """Only what speaks: decoder and timbre encoder of `model` learn on, every code stays as it is.

    Beside L1, what was decoded is heard by the frozen encoder and its CTC head: L1 alone blurs the
    short sounds that tell words apart. Every other utterance is spoken in the timbre of anybody, of
    whatever language: no recording says how that sounds, only that it must be understood (CTC) and
    like its reference, as `first` hears timbre.
    """

    learns = ("timbre", "to_timbre", "decoder", "to_frames", "refine", "to_mel")

    def reference(self, row: Utterance) -> Tensor:
        """The timbre's source: two utterances of the voice, as long as a reference recording."""
        return torch.cat([self.base.mate(row), self.base.mate(row)])

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts."""
        base = self.base
        rows = [base.rows[i] for i in base.batch(step)]
        original, target, mask, references = base.heard_and_spoken(rows, self.reference)
        references[1::2] = [base.anybody() for _ in rows[1::2]]
        with torch.no_grad():
            vectors, _ = base.model.encode(original, mask)
        spoken = base.speak(vectors, mask, references)
        l1 = distance(spoken[::2], target[::2], mask[::2])
        heard, _ = base.model.encode(spoken * valid_frames(mask), mask)
        ctc = base.ctc(rows, heard, mask)
        voice = self.first.embed_timbre(spoken, mask)
        other = 1 - F.cosine_similarity(voice, timbres(self.first, references)).mean()
        loss = l1 + self.weights["ctc"] * ctc + self.weights["timbre"] * other
        return loss, {"l1": l1.item(), "ctc": ctc.item(), "timbre": other.item()}


def fit_mel_statistics(model: SpeechTokenizer, mels: dict[str, Tensor]) -> None:
    """Set the tokenizer's per-band mean and deviation from a sample of the corpus."""
    sample = torch.cat([m.float() for m in list(mels.values())[::10]])
    model.mel_mean.copy_(sample.mean(0))
    model.mel_std.copy_(sample.std(0).clamp_min(math.exp(-4)))
