"""Voices that the corpus does not have: a recording as from a longer or a shorter vocal tract."""

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from intp.audio import N_MELS, SAMPLE_RATE


def warped(mel: Tensor, factor: float) -> Tensor:
    """A log-mel [T, 100] with every frequency times `factor`, pitch and formants alike (Jaitly &
    Hinton, 2013, have the formants alone); what moves in from beyond 8 kHz is the last band."""
    if factor == 1:
        return mel
    step = hertz_to_mel(SAMPLE_RATE / 2, "htk") / (N_MELS + 1)  # bands are evenly spaced in mel
    centres = mel_to_hertz(step * np.arange(1, N_MELS + 1), "htk")
    bands = hertz_to_mel(centres / factor, "htk") / step - 1
    source = torch.from_numpy(bands).float().clamp(0, N_MELS - 1)
    low = source.floor().long().clamp_max(N_MELS - 2)
    share = source - low
    return mel[:, low] * (1 - share) + mel[:, low + 1] * share


def voices(count: int, most: float) -> list[float]:
    """Random factors of `warped`, at most `most` up or down on a log scale; 1, undrawn, if it is 0."""
    if most == 0:
        return [1.0] * count
    return torch.empty(count).uniform_(-most, most).exp().tolist()


def another_voice(mel: Tensor, most: float) -> Tensor:
    """A log-mel [T, 100] warped by a random factor."""
    return warped(mel, *voices(1, most))
