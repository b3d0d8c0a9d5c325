"""How steady the judge is: the same speech, a little louder or noisier, judged again (Section 3.3)."""

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from intp.evaluate import judge
from intp.mining import answers
from intp.params import Params

BINS = (0.0, 6.0, 15.0, 30.0, 100.0)  # gaps in percentage points; the paper's threshold is 6
GAIN, NOISE = (
    3.0,
    (35.0, 45.0),
)  # at most so many dB louder or softer; dB of speech over white noise


def rivals(judged: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Two answers of one model to one prompt with different errors, as many from each bin of gaps.

    Columns: better, worse (ids), gap and its `bin`; `mining.noise_pairs` rows if there are enough.
    """
    rule = params.mining
    plain = answers(judged, rule.measure, rule.clamp)[judged["base"] == judged["prompt"]]
    kept = plain[["id", "model", "prompt", "clamped"]]
    both = kept.merge(kept, on=["model", "prompt"], suffixes=("", "_worse"))
    both = both[both["clamped"] < both["clamped_worse"]]
    both = both.rename(columns={"id": "better", "id_worse": "worse"})
    both["gap"] = both["clamped_worse"] - both["clamped"]
    both["bin"] = pd.cut(both["gap"], BINS).astype(str)
    both = both.sample(frac=1, random_state=params.seed).sort_values("bin", kind="stable")
    share = -(-rule.noise_pairs // (len(BINS) - 1))
    return both.groupby("bin").head(share).reset_index(drop=True)


def disturbed(name: str, samples: np.ndarray, seed: int) -> np.ndarray:
    """The speech [N] with a gain and white noise that its name and the seed decide."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    gain = 10 ** (generator.uniform(-GAIN, GAIN) / 20)
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-generator.uniform(*NOISE) / 20)
    noisy = gain * (samples + level * generator.standard_normal(len(samples)))
    return np.clip(noisy, -1, 1).astype(samples.dtype)


def judge_again(
    pairs: pd.DataFrame,
    audio: Mapping[str, np.ndarray],
    judged: pd.DataFrame,
    params: Params,
    progress: str | None = None,
) -> pd.DataFrame:
    """`pairs` (as `rivals` gives them) with `gap_again` and whether their order `flipped`.

    `audio` maps the ids of answers to samples [N]. An order that became a tie has not flipped.
    """
    names = sorted(set(pairs["better"]) | set(pairs["worse"]))
    rows = judged.set_index("id").loc[names].reset_index()
    noisy = {name: disturbed(name, audio[name], params.seed) for name in names}
    again = judge(noisy, rows, params, progress, quality=False).set_index("id")
    rate = answers(again, params.mining.measure, params.mining.clamp)["clamped"]
    gap = rate.loc[pairs["worse"]].to_numpy() - rate.loc[pairs["better"]].to_numpy()
    return pairs.assign(gap_again=gap, flipped=gap < 0)


def by_gap(again: pd.DataFrame) -> pd.DataFrame:
    """Per bin of gaps: pairs, share flipped with its 95 % interval (Wilson's) and share tied in per
    cent, mean gap before and after."""
    order = [b for b in pd.IntervalIndex.from_breaks(BINS).astype(str) if b in set(again["bin"])]
    grouped = again.assign(tied=again["gap_again"] == 0).groupby("bin")
    table = grouped.agg(
        pairs=("gap", "size"), flipped=("flipped", "mean"), tied=("tied", "mean"),
        gap=("gap", "mean"), gap_again=("gap_again", "mean"),
    ).loc[order]  # fmt: skip
    bounds = [
        binomtest(round(share * n), n).proportion_ci(method="wilson")
        for share, n in zip(table["flipped"], table["pairs"], strict=True)
    ]
    table.insert(2, "low", [b.low for b in bounds])
    table.insert(3, "high", [b.high for b in bounds])
    table[["flipped", "low", "high", "tied"]] *= 100
    return table.round(2).reset_index()
