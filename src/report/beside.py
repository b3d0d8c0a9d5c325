"""All eleven tables beside the paper's: one frame of cells, and its CSV, Markdown and LaTeX."""

from pathlib import Path

import numpy as np
import pandas as pd

from intp.files import whole
from report.evidence import files_of
from report.paper import paper_cells
from report.tables import QUALITY

TITLES = {
    "1a": "Preference pairs by text type",
    "1b": "Text types by example",
    "2": "Arena: how often the row beats the column",
    "3": "Reading accuracy by listeners",
    "4": "The effect of alignment with INTP",
    "5": "Which data: text types, models, negatives",
    "6": "A second round of alignment",
    "7": "Naturalness of chosen and rejected",
    "8": "The pair's winner and the listeners' winner",
    "9": "Languages of the pairs",
    "10": "Unseen languages",
    "11": "Sizes of the evaluation sets",
}
MARKS = {"above": "▲", "below": "▼", "inside": "=", "differs": "≠"}
COMMANDS = {"▲": r"$\uparrow$", "▼": r"$\downarrow$", "≠": r"$\neq$", "·": r"$\cdot$"}
HERE = {"UTMOS": QUALITY["distillmos"]}  # off `paper` scale another judge stands in
COLUMNS = ["table", "row", "column", "here", "low", "high", "n", "unit", "paper", "mark", "note",
           "stage", "notebook"]  # fmt: skip


def beside(folder: Path) -> pd.DataFrame:
    """Every cell of the paper's tables and ours of the same columns, one row a cell (COLUMNS).

    `folder` is a scale's results. `mark`: whether the paper's figure lies inside our interval, or
    we are "above" or "below" it; texts are inside where they are the same and "differ" otherwise;
    empty where either is missing or another judge measured. Rows that are ours alone come last.
    """
    return pd.concat([_table(name, folder) for name in TITLES], ignore_index=True)


def _table(name: str, folder: Path) -> pd.DataFrame:
    printed = paper_cells().query("table == @name")[["row", "column", "value"]]
    printed = printed.rename(columns={"value": "paper"})
    ours = _ours(name, folder, set(printed["column"]))
    order = pd.concat([printed, ours])[["row", "column"]].drop_duplicates()
    both = (
        order.merge(printed, how="left").merge(ours, how="left", validate="one_to_one").fillna("")
    )
    cells = zip(both["here"], both["low"], both["high"], both["paper"], strict=True)
    marks = pd.Series([_mark(*cell) for cell in cells], dtype=object)
    return both.assign(table=name, mark=marks.where(both["judge"] == "", ""))[COLUMNS]


def _ours(name: str, folder: Path, printed: set[str]) -> pd.DataFrame:
    """Our cells of the columns that are printed; `judge` where another than the paper's measured."""
    if not (files := files_of(name, folder)):
        return pd.DataFrame(columns=[*COLUMNS, "judge"], dtype=object).drop(
            columns=["table", "paper", "mark"]
        )
    ours = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in files])
    ours = ours.drop(columns=["table", "paper"]).rename(columns={"value": "here"}).assign(judge="")
    for theirs, stands in HERE.items():
        stood = ours["column"].str.endswith(f" {stands}")
        ours.loc[stood, "judge"] = stands
        ours.loc[stood, "note"] += f"; {stands}"
        ours["column"] = ours["column"].str.replace(f" {stands}", f" {theirs}", regex=False)
    return ours[ours["column"].isin(printed)]


def _mark(here: str, low: str, high: str, paper: str) -> str:
    if not here or not paper:
        return ""
    numbers = pd.to_numeric(pd.Series([low, high, paper]), errors="coerce").to_numpy(float)
    if not np.isfinite(numbers).all():
        return "inside" if here == paper else "differs"
    least, most, figure = numbers
    return "below" if figure > most else "above" if figure < least else "inside"


def wide(cells: pd.DataFrame) -> pd.DataFrame:
    """One table of `beside` as people read it: "here [low, high] mark paper", rows by columns."""
    text = [_text(*c) for c in zip(
        cells["here"], cells["low"], cells["high"], cells["mark"], cells["paper"], strict=True)]  # fmt: skip
    table = cells.assign(text=text).pivot(index="row", columns="column", values="text")
    table = table.reindex(index=cells["row"].unique(), columns=cells["column"].unique()).fillna("")
    return table.rename_axis(index=None, columns=None)


def _text(here: str, low: str, high: str, mark: str, paper: str) -> str:
    said = _short(here, low == high)
    if said and low != high:
        said += f" [{_short(low)}, {_short(high)}]"
    return " ".join(filter(None, (said, MARKS.get(mark, ""), f"({paper})" if paper else "")))


def _short(number: str, count: bool = False) -> str:
    """A number with as many decimals as its kind has; a text as it is."""
    value = pd.to_numeric(number, errors="coerce")
    if not np.isfinite(value):
        return number
    return f"{value:g}" if count else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def origin(cells: pd.DataFrame) -> str:
    """Which stages and notebooks a table comes from, and what its notes say."""
    ours = cells[cells["here"] != ""]
    if ours.empty:
        return "not made at this scale yet"
    made = sorted(set("stage " + ours["stage"] + ", notebook " + ours["notebook"]))
    notes = {note for cell in ours["note"] for note in cell.split("; ") if note}
    return "; ".join([*made, *sorted(notes)])


def markdown(cells: pd.DataFrame) -> str:
    """All tables as Markdown, each under its title and above its origin."""
    parts = ["ours [interval] (the paper's); ▲ ours is above the paper's figure, ▼ below, = the "
             "interval holds it, ≠ another text\n"]  # fmt: skip
    for name, rows in cells.groupby("table", sort=False):
        table = wide(rows)
        head = [" | ".join(["|", *table.columns]) + " |", "|---" * (len(table.columns) + 1) + "|"]
        body = [
            " | ".join([f"| {row}", *_escaped(values)]) + " |" for row, values in table.iterrows()
        ]
        parts += [
            f"## Table {name}: {TITLES[name]}\n",
            "\n".join(head + body),
            f"\n{origin(rows)}\n",
        ]
    return "\n".join(parts)


def _escaped(values: pd.Series) -> list[str]:
    return [value.replace("|", "\\|") for value in values]


def latex(cells: pd.DataFrame) -> str:
    """All tables as LaTeX: booktabs, one `table*` each; Table 1b's Chinese wants XeLaTeX or LuaLaTeX."""
    parts = ["% needs booktabs, graphicx; Table 1b wants XeLaTeX or LuaLaTeX and a Chinese font"]
    for name, rows in cells.groupby("table", sort=False):
        body = wide(rows).to_latex(
            escape=True, column_format="l" * (rows["column"].nunique() + 1),
        )  # fmt: skip
        for sign, command in COMMANDS.items():
            body = body.replace(sign, command)
        caption = f"Table {name} of the paper: {TITLES[name]}; {origin(rows)}.".replace("_", r"\_")
        parts.append("\n".join([
            r"\begin{table*}\centering", r"\resizebox{\textwidth}{!}{%", body.strip() + "}",
            rf"\caption{{{caption}}}", r"\end{table*}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def write_all(cells: pd.DataFrame, folder: Path) -> None:
    """Write paper_tables.csv, .md and .tex into `folder`, each whole."""
    csv = cells.to_csv(index=False, lineterminator="\n")
    for suffix, text in (("csv", csv), ("md", markdown(cells)), ("tex", latex(cells))):
        write_text(text, folder / f"paper_tables.{suffix}")


def write_text(text: str, path: Path) -> None:
    """Write a file whole."""
    with whole(path) as partial:
        partial.write_text(text, "utf-8")
