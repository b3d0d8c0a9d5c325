"""The paper's own numbers: read them, address their cells, recompute what can be recomputed."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

PAPER_TABLES = Path(__file__).resolve().parents[2] / "results" / "paper" / "paper_tables.csv"
FOUR_SETS = {  # the columns behind an average: Tables 4 to 6 (no language), Table 9 (en, zh)
    "": "{regular;articulatory;code-switching;cross-lingual}",
    "en": "{regular en;articulatory en;code-switching en2mixed;cross-lingual zh2en}",
    "zh": "{regular zh;articulatory zh;code-switching zh2mixed;cross-lingual en2zh}",
}


class Check(NamedTuple):
    """A printed number beside its recomputation; `slack` is what rounding alone can explain."""

    id: str
    where: str
    printed: float
    recomputed: float
    note: str
    slack: float = 0.0


def paper_cells() -> pd.DataFrame:
    """Every printed cell: `value` as printed (its digits tell its rounding), `number` as float."""
    cells = pd.read_csv(PAPER_TABLES, dtype=str).astype({"half_interval": float})
    return cells.assign(number=pd.to_numeric(cells["value"], errors="coerce"))


def _alternatives(pattern: str) -> list[str]:
    """Write out `{a;b}`: "{en;zh} WER" becomes "en WER" and "zh WER"."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    head, tails = pattern[: found.start()], _alternatives(pattern[found.end() :])
    return [head + option + tail for option in found[1].split(";") for tail in tails]


def select(address: str) -> pd.DataFrame:
    """Cells at `table:row:column`: `*` is anything, `{a;b}` alternatives, which must all match."""
    components = address.split(":")
    if len(components) != 3:
        raise ValueError(f"address {address!r}: expected table:row:column")
    cells = paper_cells()
    for name, pattern in zip(("table", "row", "column"), components, strict=True):
        keep: set[str] = set()
        for option in _alternatives(pattern):
            matches = {text for text in cells[name].unique() if fnmatchcase(text, option)}
            if not matches:
                raise ValueError(f"address {address!r}: no {name} matches {option!r}")
            keep |= matches
        cells = cells[cells[name].isin(keep)]
    return cells


def _half_unit(text: str) -> float:
    """Half a unit of the last decimal; a whole number is a count, hence exact."""
    return 0.5 * 10 ** -len(text.partition(".")[2]) if "." in text else 0.0


def _sum(loose_end: str, where: str, parts: str, note: str, divisor: int = 1) -> Check:
    """Recompute the cell `where` as the sum of the cells `parts` over `divisor`."""
    printed, cells = select(where).iloc[0], select(parts)
    slack = _half_unit(printed["value"]) + cells["value"].map(_half_unit).sum() / divisor
    recomputed = cells["number"].sum() / divisor
    return Check(loose_end, where, printed["number"], recomputed, note, slack)


def _counts() -> Iterator[Check]:
    """Sums of Tables 1a and 11; runs said to be alike, or compared, that differ in size."""
    for column in select("1a:#Total:*")["column"]:
        yield _sum("", f"1a:Intra Pairs:{column}", f"1a:{{ARS;F5-TTS;MaskGCT}}:{column}", "models")
        yield _sum("", f"1a:#Total:{column}", f"1a:{{Intra;Inter}} Pairs:{column}", "intra + inter")
    unequal = [("I42", "1a:*:#Total")]
    for row in select("1a:*:#Total")["row"]:
        types = f"1a:{row}:{{Regular;Repeated;Code-Switching;*-perturbed}}"
        yield _sum("", f"1a:{row}:#Total", types, "sum of the text types")
        unequal.append(("I13", f"1a:{row}:{{Regular;*-perturbed}}"))
    for loose_end, where in unequal:
        sizes = select(where)["number"]
        yield Check(loose_end, where, sizes.max(), sizes.min(), "largest and smallest")
    for row in select("11:*:#Total")["row"]:
        yield _sum("", f"11:{row}:#Total", f"11:{row}:{{en;zh}}*", "sum of the languages")


def _averages() -> Iterator[Check]:
    """Averages of Tables 4, 5, 6, 9; Table 5 from the languages of Table 9; ± of Table 4."""
    for cell in select("{4;5;6;9}:*:avg *").itertuples():
        *language, measure = cell.column.split()[1:]
        loose_end = "I01" if cell.table == "9" else "I03" if measure == "N-CMOS" else ""
        at = f"{cell.table}:{cell.row}:"
        parts = f"{at}{FOUR_SETS[''.join(language)]} {measure}"
        yield _sum(loose_end, at + cell.column, parts, "mean of the four sets", 4)
    for row, row9, loose_end in (("ARS", "ARS", "I33"), ("ARS w/ Regular", "ARS w/ all", "I02")):
        for column in select(f"5:{row}:*")["column"]:
            domain, measure = column.split()
            # A wrong average in Table 9 (I01) shows again here.
            found = "I01" if domain == "avg" else loose_end
            parts = f"9:{row9}:{domain} * {measure}"
            yield _sum(found, f"5:{row}:{column}", parts, "mean of the languages in Table 9", 2)
    wer, sizes = select("9:ARS:regular * WER"), select("11:Regular:{en;zh}")
    weighted = np.average(wer["number"], weights=sizes["number"])
    printed = select("4:ARS:regular WER")["number"].item()
    yield Check("I33", "4:ARS:regular WER", printed, weighted, "languages by samples", 0.01)
    for cell in select("4:*:avg N-CMOS").itertuples():
        parts = select(f"4:{cell.row}:{FOUR_SETS['']} N-CMOS")["half_interval"]
        norm, where = np.linalg.norm(parts), f"4:{cell.row}:avg N-CMOS"
        # Everything is printed to 0.01; the second term is what the rounded parts contribute.
        slack = 0.005 + 0.005 * parts.sum() / (4 * norm)
        yield Check("I08", where, cell.half_interval, norm / 4, "±, of a mean of four sets", slack)


def _listening() -> Iterator[Check]:
    """Tables 2, 3, 7, 8: sums, rates and ranks; the sizes in 5.1 and Appendix F.3."""
    arena = select("2:*:*").pivot(index="row", columns="column", values="number")
    printed = arena.pop("Win Rate")
    wins, losses = arena.sum(axis=1), arena.sum()
    # A sum of n shares with one decimal is off by up to n * 0.05, and 0.05 for its own rounding.
    yield Check("I22", "2:*:*", 100, wins.sum(), "% of all pairs, not rates", 12 * 0.05)
    for model, rate in printed.items():
        where, own = f"2:{model}:Win Rate", wins[model] + losses[model]
        yield Check("I06", where, rate, wins[model], "sum of the row", 4 * 0.05)
        yield Check("I22", where, rate, 100 * wins[model] / own, "% of its own comparisons", 0.2)
        parts = f"3:{{Positive;Negative}} Samples:{model}"
        yield _sum("I04", f"3:All:{model}", parts, "mean of positive and negative", 2)
    won, lost = arena.loc["ARS", "CosyVoice 2"], arena.loc["CosyVoice 2", "ARS"]
    yield Check("I22", "2:ARS:CosyVoice 2", won, 100 * won / (won + lost), "% of the two's own")
    heard = select("3:All:*").set_index("column")["number"]
    yield Check("I09", "3:All:*", 1, printed.rank().corr(heard.rank()), "rank correlation, Table 2")
    for loose_end, where in (("I05", "7:*:*"), ("", "8:*:*")):
        yield Check(loose_end, where, 100, select(where)["number"].sum(), "% of 1,000 verdicts")
    where = "text:Section 5.1:samples for subjective evaluation"
    yield _sum("I07", where, "text:Appendix F.3:pairs over all systems", "pairs in F.3")


def contradictions() -> pd.DataFrame:
    """Recompute sums, averages, rates; `id`: a loose end (docs/paper-loose-ends.md) or empty."""
    checks = pd.DataFrame([*_counts(), *_averages(), *_listening()])
    checks["difference"] = checks["recomputed"] - checks["printed"]
    checks["supports"] = checks["difference"].abs() <= checks["slack"] + 1e-9
    return checks[["id", "where", "printed", "recomputed", "difference", "supports", "note"]]
