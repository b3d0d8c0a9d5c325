"""Voices that the corpus does not have: a recording as from a longer or a shorter vocal tract."""

import torch
from torch import Tensor

from intp.audio import N_MELS, SAMPLE_RATE


def _mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)


def _hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)


def warped(mel: Tensor, factor: float) -> Tensor:
    """A log-mel [T, 100] with every frequency times `factor`, pitch and formants alike (Jaitly &
    Hinton, 2013, have the formants alone); what moves in from beyond 8 kHz is the last band."""
    step = _mel(torch.tensor(SAMPLE_RATE / 2)) / (N_MELS + 1)  # bands are evenly spaced in mel
    centres = _hertz(step * torch.arange(1, N_MELS + 1))
    source = (_mel(centres / factor) / step - 1).clamp(0, N_MELS - 1)
    low = source.floor().long().clamp_max(N_MELS - 2)
    share = source - low
    return mel[:, low] * (1 - share) + mel[:, low + 1] * share


def another_voice(mel: Tensor, most: float) -> Tensor:
    """A log-mel [T, 100] warped by a random factor, at most `most` up or down on a log scale."""
    return warped(mel, float(torch.exp(torch.empty(()).uniform_(-most, most))))
