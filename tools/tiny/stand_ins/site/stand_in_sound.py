"""Sound for second stages that are not there: every token is a tone of its own."""

import torch
from torch import Tensor


def heard(samples: Tensor, per_token: int, codes: int) -> Tensor:
    """Tokens [M] of samples [N]: the loudness of each `per_token` samples, as one of `codes`."""
    frames = samples[: len(samples) // per_token * per_token].reshape(-1, per_token)
    return (frames.abs().mean(1) * 1e5).long() % codes


def spoken(tokens: Tensor, per_token: int, rate: int, breath: float = 0.01) -> Tensor:
    """Samples [M * per_token] at `rate` of tokens [M]: a tone of 100 to 800 Hz each, and a `breath` of
    noise from torch's global generator, which the adapters seed where upstream draws."""
    hertz = (100 + tokens % 700).float().repeat_interleave(per_token)
    tone = torch.sin(2 * torch.pi * hertz.cumsum(0) / rate)
    return 0.1 * tone + breath * torch.randn(len(tone))
