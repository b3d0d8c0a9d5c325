"""Which phoneme sounds when: what flow-matching and masked models are told early in pretraining."""

import numpy as np
import torch
from torch import Tensor

from intp.corpus import Utterance
from zoo.ars import Segment


def aligned(versions: list[Segment], frames: int) -> Tensor | None:
    """For each frame, the index of the phoneme it sounds [T], from an utterance's aligned tokens."""
    found = [s.phoneme for s in versions if 2 * len(s.phoneme) in (frames - 1, frames, frames + 1)]
    if not found:
        return None
    return torch.cat([found[0].repeat_interleave(2), found[0][-1:]])[:frames]


def mean_durations(
    symbols: list[str],
    rows: list[Utterance],
    versions: dict[str, list[Segment]],
    mels: dict[str, Tensor],
) -> list[float]:
    """Frames that each symbol lasts on average; 0 for those that are not heard, as tones."""
    index = {symbol: i for i, symbol in enumerate(symbols)}
    heard, said = torch.zeros(len(symbols)), torch.zeros(len(symbols))
    for row in rows:
        ids = torch.tensor([index[symbol] for symbol in row.phonemes])
        frames = aligned(versions[row.id], len(mels[row.id]))
        if frames is not None:
            heard += ids[frames].bincount(minlength=len(symbols))
            said += ids.bincount(minlength=len(symbols))
    return [round(x, 3) for x in (heard / said.clamp_min(1)).tolist()]


def sounding_at(phoneme: Tensor, symbols: int) -> Tensor:
    """The middle of each of `symbols` on the time axis of the tokens [N] that sound `phoneme`.

    Symbols that no token sounds (stress, blanks) lie between their neighbours: [symbols].
    """
    count = phoneme.bincount(minlength=symbols)
    total = phoneme.bincount(torch.arange(len(phoneme), dtype=torch.float32), symbols)
    known = count.nonzero()[:, 0]
    middles = np.interp(np.arange(symbols), known, total[known] / count[known])
    return torch.from_numpy(middles).float()
