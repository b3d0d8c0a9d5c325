"""Which phoneme sounds when: what flow-matching and masked models are told early in pretraining."""

import numpy as np
import torch
from torch import Tensor

from intp.corpus import Utterance
from zoo.ars import Segment

MARKS = " ,.!?;:—"  # where speech may pause
QUIET, LEAST = 0.3, 3  # silence: this share of an utterance's range of loudness, so many frames


def pauses(mel: Tensor) -> list[tuple[int, int]]:
    """Stretches [begin, end) of at least 3 silent frames of a log-mel [T, 100]."""
    loudness = mel.float().mean(1)
    low, high = loudness.quantile(0.02), loudness.quantile(0.98)
    edges = (
        (loudness < low + QUIET * (high - low))
        .int()
        .diff(prepend=torch.zeros(1).int(), append=torch.zeros(1).int())
    )
    begins, ends = (edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist()
    return [(b, e) for b, e in zip(begins, ends, strict=True) if e - b >= LEAST]


def aligned(versions: list[Segment], mel: Tensor, phonemes: str) -> Tensor | None:
    """For each frame of a log-mel [T, 100], the index of the symbol it sounds [T], or None.

    The symbols come from the utterance's aligned tokens; a pause belongs to the mark or blank
    between the phonemes around it, if there is one.
    """
    frames = len(mel)
    found = [s.phoneme for s in versions if 2 * len(s.phoneme) in (frames - 1, frames, frames + 1)]
    if not found:
        return None
    index = torch.cat([found[0].repeat_interleave(2), found[0][-1:]])[:frames].clone()
    for begin, end in pauses(mel):
        left = int(index[begin - 1]) if begin else -1
        right = int(index[end]) if end < frames else len(phonemes)
        between = [k for k in range(left + 1, right) if phonemes[k] in MARKS]
        if between:
            index[begin:end] = max(between, key=lambda k: phonemes[k] != " ")
    return index


def sounds(
    rows: list[Utterance], versions: dict[str, list[Segment]], mels: dict[str, Tensor]
) -> dict[str, Tensor | None]:
    """`aligned` of every utterance, once for all that asks for it."""
    return {row.id: aligned(versions[row.id], mels[row.id], row.phonemes) for row in rows}


def mean_durations(
    symbols: list[str], rows: list[Utterance], heard: dict[str, Tensor | None]
) -> list[float]:
    """Frames that each symbol lasts on average; 0 for those that are not heard, as stress."""
    index = {symbol: i for i, symbol in enumerate(symbols)}
    lasted, said = torch.zeros(len(symbols)), torch.zeros(len(symbols))
    for row in rows:
        ids = torch.tensor([index[symbol] for symbol in row.phonemes])
        frames = heard[row.id]
        if frames is not None:
            lasted += ids[frames].bincount(minlength=len(symbols))
            said += ids.bincount(minlength=len(symbols))
    return [round(x, 3) for x in (lasted / said.clamp_min(1)).tolist()]


def sounding_at(phoneme: Tensor, symbols: int) -> Tensor:
    """The middle of each of `symbols` on the time axis of the tokens [N] that sound `phoneme`.

    Symbols that no token sounds (stress, blanks) lie between their neighbours: [symbols].
    """
    count = phoneme.bincount(minlength=symbols)
    total = phoneme.bincount(torch.arange(len(phoneme), dtype=torch.float32), symbols)
    known = count.nonzero()[:, 0]
    middles = np.interp(np.arange(symbols), known, total[known] / count[known])
    return torch.from_numpy(middles).float()
