"""Preference pairs from judged speech (Sections 3.2 and 3.3, Appendix A.3)."""

import json

import pandas as pd

PAIR_COLUMNS = [
    "pair", "kind", "prompt", "text_type", "direction", "chosen_model", "rejected_model",
    "chosen", "rejected", "chosen_error", "rejected_error", "gap", "rule",
    "chosen_transcript", "rejected_transcript", "chosen_sampling", "rejected_sampling",
    "chosen_seed", "rejected_seed", "judge", "normaliser",
]  # fmt: skip


def intra_pairs(
    judged: pd.DataFrame,
    *,
    threshold: float,
    measure: str = "error",
    clamp: float = 100.0,
    chosen_at_most: float | None = None,
) -> pd.DataFrame:
    """Lowest against highest error among one model's samplings of one prompt (A.3.1).

    `judged` has one row a sampling: prompt, model, sample, sampling, seed, transcript, and the
    rates in per cent. Rates are clamped so that babble does not dominate; a pair is kept if the gap
    is at least `threshold` percentage points. Ties go to the lower sampling index. An empty
    transcript has every unit deleted, so it can be rejected and never wins over speech.
    """
    rule = f"gap of {measure} >= {threshold:g} percentage points, clamped at {clamp:g}"
    if chosen_at_most is not None:
        rule += f", chosen at most {chosen_at_most:g}"
    judged = judged.assign(clamped=judged[measure].clip(upper=clamp))
    rows = []
    for (model, prompt), group in judged.groupby(["model", "prompt"], sort=True):
        group = group.sort_values(["clamped", "sample"])
        best, worst = group.iloc[0], group[group["clamped"] == group["clamped"].max()].iloc[0]
        gap = worst["clamped"] - best["clamped"]
        good = chosen_at_most is None or best["clamped"] <= chosen_at_most
        if gap >= threshold and good:
            rows.append(_pair("intra", f"{model}-{prompt}", best, worst, gap, rule))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def _pair(kind: str, name: str, w: pd.Series, l: pd.Series, gap: float, rule: str) -> dict:
    both = {"chosen": w, "rejected": l}
    row = {
        "pair": f"{kind}-{name}", "kind": kind, "prompt": w["prompt"],
        "text_type": w["text_type"], "direction": w["direction"], "gap": gap, "rule": rule,
        "judge": w["judge"], "normaliser": w["normaliser"],
    }  # fmt: skip
    for role, sample in both.items():
        row |= {
            role: sample["id"],
            f"{role}_model": sample["model"],
            f"{role}_error": sample["clamped"],
            f"{role}_transcript": sample["transcript"],
            f"{role}_sampling": sample["sampling"],
            f"{role}_seed": sample["seed"],
        }
    return row


def check_pairs(pairs: pd.DataFrame, judged: pd.DataFrame, threshold: float) -> None:
    """An independent check of mined pairs against the judgements; raises ValueError on a breach."""
    by_id = judged.set_index("id")
    for row in pairs.itertuples():
        if row.chosen_error + threshold > row.rejected_error + 1e-9:
            raise ValueError(f"{row.pair}: gap {row.gap} is below the threshold {threshold}")
        if by_id.loc[row.chosen, "prompt"] != by_id.loc[row.rejected, "prompt"]:
            raise ValueError(f"{row.pair}: chosen and rejected answer different prompts")
    if pairs.duplicated(["chosen", "rejected"]).any():
        raise ValueError("a pair occurs twice")


def shuffled_preferences(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The negative control: each pair's roles exchanged by a fair coin, for a random half."""
    flip = pairs.sample(frac=0.5, random_state=seed).index
    swapped = pairs.copy()
    for column in [c for c in pairs.columns if c.startswith("chosen")]:
        other = column.replace("chosen", "rejected")
        swapped.loc[flip, column], swapped.loc[flip, other] = (
            pairs.loc[flip, other],
            pairs.loc[flip, column],
        )
    return swapped


def sampling_label(sampling: dict) -> str:
    """A sampling's settings as stable JSON, for provenance columns."""
    return json.dumps(sampling, sort_keys=True)
