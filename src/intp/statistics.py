"""Intervals the paper did not give: a cluster bootstrap over voices and items."""

from collections.abc import Callable
from dataclasses import dataclass

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


def resampled_items(voices: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Index sets of a two-stage bootstrap: voices with replacement, then items of each voice."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(voices == voice) for voice in np.unique(voices)]
    draws = []
    for _ in range(resamples):
        picked = generator.integers(len(members), size=len(members))
        draws.append(
            np.concatenate([generator.choice(members[v], size=len(members[v])) for v in picked])
        )
    return draws


def stratified_mean(
    frame: pd.DataFrame,
    column: str | Callable[[pd.DataFrame], float],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> Estimate:
    """Mean of `column` as the paper averages: languages equal within a set, then sets equal.

    `frame` has set, direction, voice, and one row an item. Items are resampled within each
    direction (directions and sets are fixed by the design). A callable computes a direction's
    figure from its rows instead of the plain mean (a corpus-level rate).
    Raises ValueError if the frame is empty or a value is missing.
    """
    if frame.empty:
        raise ValueError("no items to average")
    figure = column if callable(column) else lambda rows: rows[column].mean()
    sets: dict[str, list[tuple[float, np.ndarray]]] = {}
    for (name, _), rows in frame.groupby(["set", "direction"], sort=True):
        point = float(figure(rows))
        if not np.isfinite(point):
            raise ValueError(f"{name}: a value of {column!r} is missing")
        draws = resampled_items(rows["voice"].to_numpy(), resamples, seed)
        spread = np.array([figure(rows.iloc[index]) for index in draws])
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
