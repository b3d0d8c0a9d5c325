"""Score files to the paper's tables: one row a cell, each with its interval and its origin."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from intp.files import whole
from intp.mining import answers
from intp.params import Params
from report.paper import paper_cells
from report.statistics import Estimate, paired, stratified_mean

CELL_COLUMNS = [
    "table", "row", "column", "value", "low", "high", "n", "unit", "paper", "note", "stage", "notebook",
]  # fmt: skip
SETS = ("regular", "articulatory", "code-switching", "cross-lingual")


TYPES = {
    "regular": "Regular",
    "repeated": "Repeated",
    "code-switching": "Code-Switching",
    "pronunciation-perturbed": "Pronunciation-perturbed",
    "punctuation-perturbed": "Punctuation-perturbed",
}

MEASURES: dict[str, tuple[str | tuple[str, str], str]] = {
    "WER": ("wer", "%"),
    "error": ("error", "%"),
    "clamped error": ("clamped", "%"),
    "corpus WER": (("wer_edits", "wer_length"), "%"),
    "corpus error": (("error_edits", "error_length"), "%"),
    "SIM": ("sim", "cosine"),
    "quality": ("quality", "MOS"),
}
QUALITY = {"distillmos": "Distill-MOS", "utmos": "UTMOS"}


LANGUAGES = {"en": ("en", "en2mixed", "zh2en"), "zh": ("zh", "zh2mixed", "en2zh")}


def quality_name(params: Params) -> str:
    """What tables call the judge of quality."""
    return QUALITY[params.judges.quality]


def models_note(params: Params) -> str:
    """What every table says of models that are not the published ones."""
    return "" if any(m.published for m in params.models.values()) else "mini models"


def language_cells(row: str, scores: pd.DataFrame, params: Params) -> list[dict]:
    """Table 9's averages: the four sets of one target language, equally weighed."""
    cells = []
    for name, directions in LANGUAGES.items():
        rows = scores[scores["direction"].isin(directions)]
        cells += measure_cells(row, f"avg {name}", rows, params)
    return cells


def score_cells(row: str, scores: pd.DataFrame, params: Params) -> list[dict]:
    """Every cell of one checkpoint: each set, each direction, and the average over the sets.

    A set weighs its two directions equally and the average its sets equally, as the paper does
    (its regular 3.96 is the mean of 3.55 and 4.37). The average needs all four sets.
    """
    parts: list[tuple[str, pd.DataFrame]] = []
    for name, rows in scores.groupby("set", sort=False):
        parts.append((name, rows))
        parts += [(f"{name} {direction}", r) for direction, r in rows.groupby("direction")]
    if set(SETS) <= set(scores["set"]):
        parts.append(("avg", scores))
    return [c for part, rows in parts for c in measure_cells(row, part, rows, params)]


def measure_cells(row: str, part: str, rows: pd.DataFrame, params: Params) -> list[dict]:
    """One cell a measure that `rows` have, each named after its part of the table."""
    cells, rows = [], with_clamped(rows, params)
    for label, (column, unit) in MEASURES.items():
        if isinstance(column, str) and column not in rows:
            continue
        estimate = estimated(rows, column, params)
        label = quality_name(params) if label == "quality" else label
        cells.append(cell(row, f"{part} {label}", estimate, unit))
    return cells


def with_clamped(scores: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The scores with the error `clamped` as in mining: where the recogniser falls into a loop, one
    answer counts for as much as four that are all wrong, and decides an average."""
    return answers(scores, "error", params.mining.clamp)


def estimated(rows: pd.DataFrame, column: str | tuple[str, str], params: Params) -> Estimate:
    """`stratified_mean` with the parameters' resamples, level and seed."""
    rule = params.statistics
    return stratified_mean(
        rows, column, resamples=rule.resamples, level=rule.level, seed=params.seed
    )


def difference_cells(
    row: str, before: pd.DataFrame, after: pd.DataFrame, params: Params
) -> list[dict]:
    """after - before in error and SIM, paired by item, for each set and overall."""
    cells = []
    before, after = with_clamped(before, params), with_clamped(after, params)
    for column, label, unit in (
        ("error", "error", "points"),
        ("clamped", "clamped error", "points"),
        ("sim", "SIM", "cosine"),
    ):
        change = paired(before, after, column)
        parts = [("avg" if set(SETS) <= set(change["set"]) else "all", change)]
        parts += list(change.groupby("set", sort=False))
        for part, rows in parts:
            estimate = estimated(rows, column, params)
            cells.append(cell(row, f"{part} {label} difference", estimate, unit))
    return cells


def count_cell(row: str, column: str, count: int, unit: str, of: int | None = None) -> dict:
    """A cell that counts something, and so has no interval; `of` how many there were to count."""
    n = count if of is None else of
    return cell(row, column, Estimate(count, count, count, n), unit)


def cell(row: str, column: str, estimate: Estimate, unit: str) -> dict:
    """One cell of a table."""
    return {
        "row": row,
        "column": column,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "unit": unit,
    }


def pair_cells(pairs: pd.DataFrame, labels: Mapping[str, str], prompts: int) -> list[dict]:
    """Table 1a: pairs by text type, of each model alone (`labels`: model to its row) and of two."""
    own = pairs["chosen_model"] == pairs["rejected_model"]
    rows = {label: own & (pairs["chosen_model"] == name) for name, label in labels.items()}
    rows |= {"Intra Pairs": own, "Inter Pairs": ~own, "#Total": own | ~own}
    cells = []
    for row, mask in rows.items():
        counts = pairs.loc[mask, "text_type"].value_counts()
        counts = {column: int(counts.get(kind, 0)) for kind, column in TYPES.items()}
        counts["#Total"] = sum(counts.values())
        cells += [count_cell(row, column, n, "pairs", prompts) for column, n in counts.items()]
    return cells


def arena_cells(met: pd.DataFrame, labels: Mapping[str, str], params: Params) -> list[dict]:
    """Table 2 from `intp.mining.arena`: the share of all inter pairs that the row won against the
    column, and its sum, the win rate; resampled by prompt."""
    cells = []
    for a, row in labels.items():
        wins = {labels[b]: f"{a}>{b}" for b in labels if b != a}
        total = met.assign(total=met[list(wins.values())].sum(axis=1))
        for column, name in (wins | {"Win Rate": "total"}).items():
            cells.append(cell(row, column, estimated(total, name, params), "% of pairs"))
    return cells


def write_table(
    cells: Iterable[dict], table: str, path: Path, *, stage: str, notebook: str, note: str = ""
) -> pd.DataFrame:
    """Write one table whole, the paper's figure beside ours where it has one; returns the frame.

    Raises ValueError if a cell occurs twice.
    """
    frame = pd.DataFrame(list(cells)).assign(table=table, stage=stage, notebook=notebook)
    if "note" not in frame:
        frame["note"] = note
    if frame.duplicated(["row", "column"]).any():
        twice = frame[frame.duplicated(["row", "column"])].iloc[0]
        raise ValueError(f"table {table}: cell ({twice['row']}, {twice['column']}) occurs twice")
    printed = paper_cells()
    printed = printed[printed["table"] == table].set_index(["row", "column"])["value"]
    keys = pd.MultiIndex.from_frame(frame[["row", "column"]])
    frame["paper"] = printed.reindex(keys).to_numpy()
    for name in ("value", "low", "high"):
        if not pd.api.types.is_string_dtype(frame[name]):  # Table 1b holds texts
            frame[name] = frame[name].astype(float).round(4)
    frame = frame[CELL_COLUMNS]
    with whole(path) as partial:
        frame.to_csv(partial, index=False, lineterminator="\n")
    return frame


def show(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """A table as people read it: rows by columns, "value [low, high]"."""
    picked = frame[frame["column"].isin(columns)]
    text = [
        f"{v:.2f} [{a:.2f}, {b:.2f}]" for v, a, b in picked[["value", "low", "high"]].to_numpy()
    ]
    wide = picked.assign(text=text).pivot(index="row", columns="column", values="text")
    return wide.reindex(index=frame["row"].unique(), columns=columns)
