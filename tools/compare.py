"""Tables recomputed here beside the committed ones: `python -m tools.compare [SCALE]`."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from intp.params import ParamsError, load_params
from intp.paths import ROOT, results

CELL = ["row", "column"]


def committed(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables in a folder as of the last commit, by file name."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True).stdout

    where = folder.relative_to(ROOT).as_posix()
    paths = git("ls-tree", "--name-only", "HEAD", f"{where}/").decode().splitlines()
    contents = {Path(p).name: git("show", f"HEAD:{p}") for p in paths if p.endswith(".csv")}
    return {name: pd.read_csv(io.BytesIO(content)) for name, content in contents.items()}


def compare(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """One line a cell; `verdict` is "same", "inside" or "OUTSIDE" the committed interval, or why not.

    A cell without an interval is "OUTSIDE" unless its value is the same.
    """
    both = old[[*CELL, "value", "low", "high", "unit"]].merge(
        new[[*CELL, "value"]], on=CELL, how="outer", suffixes=(" committed", " here"), sort=False
    )
    was, now = both["value committed"], both["value here"]
    if pd.api.types.is_numeric_dtype(was) and pd.api.types.is_numeric_dtype(now):
        same = np.isclose(was, now, rtol=1e-9, atol=1e-9, equal_nan=True)
        inside = now.between(both["low"], both["high"])
    else:  # Table 1b holds texts
        same, inside = was == now, was != was
    both["verdict"] = np.select(
        [
            ~both.set_index(CELL).index.isin(new.set_index(CELL).index),
            ~both.set_index(CELL).index.isin(old.set_index(CELL).index),
            same,
            inside,
        ],
        ["MISSING", "new", "same", "inside"],
        "OUTSIDE",
    )
    return both[[*CELL, "value committed", "low", "high", "value here", "unit", "verdict"]]


def main() -> int:
    """Print every table of a scale; 1 if a cell is missing or lies outside its interval."""
    try:
        scale = load_params(sys.argv[1] if len(sys.argv) > 1 else None).scale
    except ParamsError as error:
        print(f"ParamsError: {error}", file=sys.stderr)
        return 2
    folder = results(scale) / "tables"
    before, verdicts = committed(folder), []
    for name in sorted(before.keys() | {path.name for path in folder.glob("*.csv")}):
        here = pd.read_csv(folder / name) if (folder / name).is_file() else None
        if name not in before:
            print(f"\n{name}: nothing committed\n{here.to_string(index=False, na_rep='')}")
            continue
        cells = compare(before[name], before[name].head(0) if here is None else here)
        print(f"\n{name}\n{cells.to_string(index=False, na_rep='')}")
        verdicts.append(cells["verdict"])
    if not verdicts:
        print(f"\n{scale}: nothing committed to compare with")
        return 0
    counts = pd.concat(verdicts).value_counts()
    print(f"\n{scale}: " + ", ".join(f"{n} cells {verdict}" for verdict, n in counts.items()))
    return int(counts.get("OUTSIDE", 0) + counts.get("MISSING", 0) > 0)


if __name__ == "__main__":
    sys.exit(main())
