"""Did it learn speech or the judge? What alignment should leave alone, before and after, per set.

A reward of recognition alone can be had by speaking faster, flatter or with another recogniser's
taste in mind. Each guard's change is paired by item; the parameters (`claims.guards`) say how far
it may move, and an alarm says where it moved further.
"""

from collections.abc import Mapping
from pathlib import Path

import jiwer
import pandas as pd
import zhconv

from intp.params import Params
from report.statistics import Estimate, paired
from report.tables import SETS, estimated
from texts.normalise import error_units

GUARDS = {  # column of the scores: what it is, its unit
    "second_error": ("second recogniser's error", "%"),
    "sim": ("SIM", "cosine"),
    "quality": ("quality", "MOS"),
    "rate": ("speaking rate", "units a second"),
    "seconds": ("duration", "s"),
    "pause_share": ("pauses", "% of the time"),
    "f0_spread": ("F0 spread", "semitones"),
    "repeated": ("repeated words", "% of the units"),
    "missing": ("missing words", "% of the units"),
}
COLUMNS = ["row", "set", "guard", "unit", "before", "change", "low", "high", "n", "least", "most",
           "alarm"]  # fmt: skip

ALIGNED = {"intp": "INTP", "v2": "INTP, second round", "shuffled": "shuffled", "sft": "SFT"}


def aligned_scores(folder: Path, params: Params) -> dict[str, pd.DataFrame]:
    """Score files of a scale's results folder by row: each model, aligned and control runs after it."""
    found = {}
    for name, model in params.models.items():
        rows = {"base": model.label} | {run: f"{model.label} w/ {ALIGNED[run]}" for run in ALIGNED}
        paths = {row: folder / "scores" / f"{name}-{run}.csv" for run, row in rows.items()}
        if paths[model.label].is_file():
            found |= {row: pd.read_csv(path) for row, path in paths.items() if path.is_file()}
    return found


def said(target: str, transcript: str, lang: str) -> tuple[float, float]:
    """Repeated and missing units in per cent of the target's (words, syllables in Chinese, both in
    mixed text). Repeated: added, though the target has that unit already; 100 at most."""
    wanted = error_units(target, lang)
    heard = error_units(
        zhconv.convert(transcript, "zh-cn") if lang in ("zh", "mixed") else transcript, lang
    )
    found = jiwer.process_words(" ".join(wanted), " ".join(heard))
    added = [
        unit
        for chunk in found.alignments[0]
        if chunk.type == "insert"
        for unit in heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
    ]
    repeated = sum(unit in set(wanted) for unit in added)
    return min(100 * repeated / len(wanted), 100.0), 100 * found.deletions / len(wanted)


def guarded(scores: pd.DataFrame, prompts: pd.DataFrame) -> pd.DataFrame:
    """A score file with `rate`, `repeated` and `missing`; `prompts` has the texts that were meant (id,
    target_text). Raises ValueError where a text is missing."""
    texts = prompts.set_index("id")["target_text"].reindex(scores["id"])
    if texts.isna().any():
        raise ValueError(f"no text for {list(texts.index[texts.isna()][:5])}")
    heard = scores["transcript"].fillna("")  # nothing heard, as CSV has it
    pairs = [said(*row) for row in zip(texts, heard, scores["target_lang"], strict=True)]
    return scores.assign(
        rate=scores["wer_length"] / scores["seconds"],
        repeated=[r for r, _ in pairs],
        missing=[m for _, m in pairs],
    )


def alarm(change: Estimate, least: float, most: float) -> str:
    """How loud a change rings: "alarm" where it is beyond what the rule allows and its interval clears
    zero, "beyond" where it is and chance would explain it, else nothing."""
    if least <= change.value <= most:
        return ""
    return "alarm" if change.clear_of_zero else "beyond"


def changes(row: str, before: pd.DataFrame, after: pd.DataFrame, params: Params) -> list[dict]:
    """Every guard that both frames (of `guarded`) measured, per set and on average over the sets.

    Items that either lacks (no second judge for a language, no voiced frame) are left out and `n`
    says how many are in. Raises ValueError if the two score different items.
    """
    found = []
    for guard, (least, most) in params.claims.guards.items():
        if guard not in before or guard not in after:
            continue
        moved = paired(before, after, guard).dropna(subset=guard)
        base = before[before["id"].isin(moved["id"])]
        parts = {name: name for name in SETS if name in set(moved["set"])}
        for part in (*parts, "avg"):
            rows, first = (f if part == "avg" else f[f["set"] == part] for f in (moved, base))
            if rows.empty:
                continue
            change = estimated(rows, guard, params)
            name, unit = GUARDS[guard]
            values = (
                row, part, name, unit, estimated(first, guard, params).value, change.value,
                change.low, change.high, change.n, least, most, alarm(change, least, most),
            )  # fmt: skip
            found.append(dict(zip(COLUMNS, values, strict=True)))
    return found


def guard_table(
    scores: Mapping[str, pd.DataFrame], prompts: pd.DataFrame, params: Params
) -> pd.DataFrame:
    """All rows "X w/ Y" of `scores` (row to score file) against their "X": columns of COLUMNS. The
    second recogniser's error is clamped as the first's is."""
    whole = {row: guarded(frame, prompts) for row, frame in scores.items()}
    for row, frame in whole.items():
        if "second_error" in frame:
            clamped = frame["second_error"].clip(upper=params.mining.clamp)
            whole[row] = frame.assign(second_error=clamped)
    rows = [
        change
        for row, frame in whole.items()
        if " w/ " in row
        for change in changes(row, whole[row.partition(" w/ ")[0]], frame, params)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    numbers = ["before", "change", "low", "high"]
    return table.assign(**{name: table[name].astype(float).round(4) for name in numbers})


def alarms(table: pd.DataFrame) -> pd.DataFrame:
    """How many guards ring, row by set."""
    rung = table.assign(rung=table["alarm"] == "alarm")
    counts = rung.pivot_table(index="row", columns="set", values="rung", aggfunc="sum", sort=False)
    return counts.astype(int).rename_axis(index=None, columns="alarms")


def absent(table: pd.DataFrame) -> list[str]:
    """Guards that no row could be measured by."""
    return [name for name, _ in GUARDS.values() if name not in set(table["guard"])]
