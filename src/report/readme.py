"""The README's Table 4 and count of verdicts, from the files: `python -m report.readme`."""

import re
import sys

import pandas as pd

from intp.params import Params, load_params
from intp.paths import ROOT, results
from report.beside import write_text
from report.tables import SETS
from report.verdicts import VERDICTS

README = ROOT / "README.md"
BEGIN, END = "<!-- table 4: python -m report.readme -->", "<!-- end of table 4 -->"
RUNS = {"INTP": "intp", "SFT": "sft", "shuffled": "shuffled"}


class ReadmeError(ValueError):
    """The README has not both marks, each once and in order."""


def committed() -> str:
    """The largest scale whose results are committed beside the README."""
    return "study" if (results("study") / "claims.csv").is_file() else "mini"


def command(row: str, params: Params) -> str:
    """The command that makes a row of Table 4 again. Raises KeyError for a row that no run makes."""
    models = {model.label: name for name, model in params.models.items()}
    label, _, run = row.partition(" w/ ")
    name = models[label]
    return f"dvc repro dpo_{name}@{RUNS[run]}" if run else f"dvc repro base@{name}"


def table_4(cells: pd.DataFrame, params: Params) -> list[str]:
    """Table 4 as lines of Markdown: clamped error per set, averages beside the paper's, command."""
    here = cells.set_index(["row", "column"])
    heads = ["", *SETS, "average", "change", "WER (paper)", "SIM (paper)", "made by"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in cells["row"].unique():
        words = [_cell(here, row, f"{part} clamped error") for part in (*SETS, "avg")]
        words.append(_cell(here, row, "avg clamped error difference", interval=True))
        words += [_beside(here, row, f"avg {measure}") for measure in ("WER", "SIM")]
        lines.append("| " + " | ".join([row, *words, f"`{command(row, params)}`"]) + " |")
    return lines


def _cell(here: pd.DataFrame, row: str, column: str, interval: bool = False) -> str:
    if (row, column) not in here.index:
        return ""
    cell = here.loc[(row, column)]
    return f"{cell.value:z.1f}" + (f" [{cell.low:z.1f}, {cell.high:z.1f}]" if interval else "")


def _beside(here: pd.DataFrame, row: str, column: str) -> str:
    if (row, column) not in here.index:
        return ""
    cell, digits = here.loc[(row, column)], 3 if column.endswith("SIM") else 1
    return f"{cell.value:.{digits}f}" + (f" ({cell.paper})" if cell.paper else "")


def against_controls(controls: pd.DataFrame) -> str:
    """What INTP does beyond its controls, on average over the sets."""
    rows = controls[controls["column"] == "avg clamped error difference"]
    said = [f"{c.row} {c.value:z.1f} [{c.low:z.1f}, {c.high:z.1f}]" for c in rows.itertuples()]
    return f"On the same prompts, average: {'; '.join(said)}."


def verdicts(claims: pd.DataFrame, scale: str) -> str:
    """How many claims came out how, here and by the paper's own numbers; the decided ones by id."""
    counts = ", ".join(
        f"{len(ids)} *{v}*" + (f" ({', '.join(ids)})" if v != "undecided" and len(ids) else "")
        for v in VERDICTS
        for ids in [claims.loc[claims["verdict"] == v, "id"]]
    )
    supported = (claims["paper_supports"] == "yes").sum()
    return (
        f"Of the paper's {len(claims)} claims ([results/{scale}/claims.csv](results/{scale}/claims.csv)): "
        f"{counts} at `{scale}`; the paper's own numbers support {supported}."
    )


def block(scale: str | None = None) -> str:
    """What stands between the marks. Raises FileNotFoundError where a table is missing."""
    scale = scale or committed()
    folder = results(scale)
    switch = "" if scale == "mini" else f"; the commands after `make scale SCALE={scale}`"
    cells = pd.read_csv(folder / "tables" / "table_04.csv", dtype={"paper": str})
    controls = pd.read_csv(folder / "tables" / "controls.csv")
    claims = pd.read_csv(folder / "claims.csv", keep_default_na=False)
    params = load_params(scale)
    lines = [
        f"Table 4 at `{scale}`, clamped error in per cent; *change*: after minus before, paired, with its",
        f"{100 * params.statistics.level:g} % interval; in parentheses the paper's figure, of other models",
        f"and another judge{switch}.",
        "",
        *table_4(cells.fillna({"paper": ""}), params),
        "",
        against_controls(controls),
        "",
        verdicts(claims, scale),
    ]
    return "\n".join(lines)


def renewed(text: str, inner: str) -> str:
    """The README's text with what is between the marks replaced. Raises ReadmeError."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ReadmeError(f"expected {BEGIN} and {END}, each once and in this order")
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{inner}\n{END}", text)


def main() -> int:
    """Renew the block in place; any failure is named on stderr and exits 1."""
    try:
        write_text(renewed(README.read_text("utf-8"), block()), README)
    except (ReadmeError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
