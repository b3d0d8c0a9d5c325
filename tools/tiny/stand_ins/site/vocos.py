"""A stand-in for Vocos (F5-TTS's vocoder): the loudness of the mel, as a tone."""

import torch
from stand_in_sound import spoken
from torch import Tensor, nn

HOP, RATE = 256, 24_000


class Vocos(nn.Module):
    """`decode` as in the package `vocos`."""

    @classmethod
    def from_pretrained(cls, source: str) -> "Vocos":
        """No weights are needed, whatever `source` is."""
        return cls()

    def decode(self, mel: Tensor) -> Tensor:
        """Samples [B, T * 256] of log-mel frames [B, 100, T]: each sounds its loudest band, by no chance."""
        return torch.stack([spoken(7 * row.argmax(0), HOP, RATE, breath=0.0) for row in mel])
