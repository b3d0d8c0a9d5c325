"""Pretraining of the phoneme recogniser: CTC on masked log-mels of recordings."""

import jiwer
import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.transforms import FrequencyMasking, TimeMasking

from intp.corpus import Utterance
from networks.recogniser import PhonemeRecogniser, normalised
from texts.phonemes import sounding
from zoo.loop import StepBatches
from zoo.tokenizer import pad_even
from zoo.voices import another_voice

BANDS, FRAMES = 20, 12  # at most so many are masked at once, twice each (SpecAugment)
STRETCH = (0.85, 1.15)


class RecogniserTask:
    """Recordings stretched and masked at random, and the CTC loss of what they say."""

    def __init__(
        self,
        model: PhonemeRecogniser,
        rows: list[Utterance],
        mels: dict[str, Tensor],
        budget: int,
        seed: int,
        warp: float,
    ):
        self.model, self.rows, self.mels, self.warp = model, rows, mels, warp
        self.index = {p: i + 1 for i, p in enumerate(model.config.phonemes)}
        longest = [int(len(mels[row.id]) * STRETCH[1]) for row in rows]
        self.batch = StepBatches(longest, budget, seed)
        self.masks = [FrequencyMasking(BANDS), TimeMasking(FRAMES)] * 2

    def augmented(self, mel: Tensor) -> Tensor:
        """A log-mel [T, 100] in another voice, faster or slower, bands and moments left out."""
        factor = float(torch.empty(()).uniform_(*STRETCH))
        size = max(2, int(len(mel) * factor))
        mel = another_voice(mel, self.warp)
        mel = F.interpolate(normalised(mel).T[None], size=size, mode="linear")
        for mask in self.masks:
            mel = mask(mel)
        return mel[0].T

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step in nats a label, and its parts."""
        rows = [self.rows[i] for i in self.batch(step)]
        frames, mask = pad_even([self.augmented(self.mels[row.id]) for row in rows])
        labels = [torch.tensor([self.index[c] for c in sounding(r.phonemes)]) for r in rows]
        loss = F.ctc_loss(
            self.model(frames, mask).log_softmax(-1).transpose(0, 1),
            torch.cat(labels),
            mask.sum(1).long(),
            torch.tensor([len(x) for x in labels]),
            zero_infinity=True,
        )
        return loss, {"ctc": loss.item()}

    def held_out(self, rows: list[Utterance]) -> dict[str, float]:
        """Phoneme error on recordings that training does not hear, in per cent."""
        said = [" ".join(sounding(row.phonemes)) for row in rows]
        heard = [" ".join(self.model.heard(self.mels[row.id])) for row in rows]
        return {"held_out_error": round(100 * jiwer.wer(said, heard), 3)}
