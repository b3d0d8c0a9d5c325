"""Intervals the paper did not give: a cluster bootstrap over voices and items."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Estimate:
    """A value, its interval, and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@lru_cache(maxsize=64)
def resampled_items(voices: tuple[str, ...], resamples: int, seed: int) -> list[np.ndarray]:
    """Index sets of a two-stage bootstrap: voices with replacement, then items of each voice."""
    generator = np.random.default_rng(seed)
    names = np.array(voices)
    members = [np.flatnonzero(names == voice) for voice in sorted(set(voices))]
    draws = []
    for _ in range(resamples):
        picked = generator.integers(len(members), size=len(members))
        draws.append(
            np.concatenate([generator.choice(members[v], size=len(members[v])) for v in picked])
        )
    return draws


def stratified_mean(
    frame: pd.DataFrame,
    column: str | tuple[str, str],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> Estimate:
    """Mean of `column` as the paper averages: languages equal within a set, then sets equal.

    `frame` has set, direction, voice, and one row an item. Items are resampled within each
    direction (directions and sets are fixed by the design). A pair of columns gives a corpus-level
    rate: the first summed over the second summed, in per cent.
    Raises ValueError if the frame is empty or a value is missing.
    """
    if frame.empty:
        raise ValueError("no items to average")
    sets: dict[str, list[tuple[float, np.ndarray]]] = {}
    for (name, _), rows in frame.groupby(["set", "direction"], sort=True):
        if isinstance(column, str):
            over, under = rows[column].to_numpy(float), np.ones(len(rows))
        else:
            over, under = 100 * rows[column[0]].to_numpy(float), rows[column[1]].to_numpy(float)
        point = over.sum() / under.sum()
        if not np.isfinite(point):
            raise ValueError(f"{name}: a value of {column!r} is missing")
        draws = resampled_items(tuple(rows["voice"]), resamples, seed)
        spread = np.array([over[i].sum() / under[i].sum() for i in draws])
        sets.setdefault(name, []).append((point, spread))
    point = np.mean([np.mean([p for p, _ in parts]) for parts in sets.values()])
    spread = np.mean([np.mean([s for _, s in parts], axis=0) for parts in sets.values()], axis=0)
    tail = (1 - level) / 2
    low, high = np.quantile(spread, [tail, 1 - tail])
    return Estimate(float(point), float(low), float(high), len(frame))


def paired(before: pd.DataFrame, after: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows of `after` with `column` replaced by after - before of the same item.

    Raises ValueError if the two do not score the same items.
    """
    left, right = before.set_index("id"), after.set_index("id")
    if set(left.index) != set(right.index):
        missing = sorted(set(left.index) ^ set(right.index))[:5]
        raise ValueError(f"before and after score different items, for example {missing}")
    difference = right.copy()
    difference[column] = right[column] - left[column].reindex(right.index)
    return difference.reset_index()
