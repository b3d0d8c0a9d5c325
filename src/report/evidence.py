"""What a comparison of cells comes to, here and in the paper: score files first, then tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from intp.params import Params
from report.claims import Comparison, Term
from report.paper import paper_cells
from report.statistics import stratified_mean
from report.tables import LANGUAGES, MEASURES, SETS, quality_name, with_clamped

SCORED = ("4", "5", "6", "9")  # tables whose rows are score files
RECORDINGS = "recording"  # the row of a table's topline


class Missing(LookupError):
    """What a comparison needs and is not here; the message says what."""


@dataclass(frozen=True)
class Found:
    """A comparison's value with its interval, where it comes from, and whether nobody listened."""

    value: float
    low: float
    high: float
    source: str
    simulated: bool = False


def file_of(table: str, folder: Path) -> Path:
    """Where a scale's results folder holds a table: tables/table_04.csv, figures/figure_02.csv."""
    if table.startswith("figure"):
        return folder / "figures" / f"{table}.csv"
    digits = table.rstrip("ab")
    return folder / "tables" / f"table_{int(digits):02d}{table[len(digits) :]}.csv"


def files_of(table: str, folder: Path) -> list[Path]:
    """The files that have cells of a table: its own, and figure 2's for Table 4's N-CMOS."""
    names = [table, *(["figure_02"] if table == "4" else [])]
    return [path for name in names if (path := file_of(name, folder)).is_file()]


@dataclass
class Evidence:
    """All tables and score files of one scale; `runs` maps what follows a model's name to a run."""

    folder: Path
    params: Params
    runs: dict[str, str]
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    _scores: dict[str, pd.DataFrame] = field(default_factory=dict)

    def compare(self, comparison: Comparison, level: float) -> Found:
        """The comparison's value and its interval at `level`; raises Missing.

        From score files it is a bootstrap, paired by item wherever one column is compared; from
        cells alone it adds up their intervals, which is the wider of the two.
        """
        terms = [*comparison.terms, *comparison.times]
        if all(term.constant for term in terms):
            raise Missing("nothing of this project takes part")
        if not comparison.times and all(t.constant or self._file(t) is not None for t in terms):
            return self._from_scores(comparison.terms, level)
        left, simulated = self._from_cells(comparison.terms, level)
        if comparison.times:
            right, also = self._from_cells(comparison.times, level)
            corners = [a * b for a in left[1:] for b in right[1:]]
            left = (left[0] * right[0], min(corners), max(corners))
            simulated = simulated or also
        return Found(*left, "cells", simulated)

    def printed(self, comparison: Comparison) -> Found:
        """The same from the paper's cells; a half interval is used where one is printed (N-CMOS).

        Raises Missing where the paper prints no such cell.
        """
        sums = []
        for terms in filter(None, (comparison.terms, comparison.times)):
            cells = [self._paper.get(term.address) for term in terms]
            if any(c is None or not np.isfinite(c[0]) for c in cells):
                raise Missing("the paper prints no such cell")
            value = sum(t.sign * c[0] for t, c in zip(terms, cells, strict=True))
            sums.append((value, sum(c[1] for c in cells)))
        # What two decimals cannot show is no difference.
        value, half = round(float(np.prod([v for v, _ in sums])), 9), sums[0][1]
        return Found(value, value - half, value + half, "paper")

    @cached_property
    def _paper(self) -> dict[str, tuple[float, float]]:
        cells = paper_cells().fillna({"half_interval": 0.0})
        names = cells["table"] + ":" + cells["row"] + ":" + cells["column"]
        values = zip(cells["number"], cells["half_interval"], strict=True)
        return dict(zip(names, values, strict=True))

    def _file(self, term: Term) -> Path | None:
        """The score file behind a cell, if there can be and is one."""
        _, _, measure = term.column.rpartition(" ")
        if term.table not in SCORED or measure not in ("WER", "SIM", "UTMOS"):
            return None
        for name, model in self.params.models.items():
            run = self.runs.get(term.row_here.removeprefix(model.label))
            if run is not None and term.row_here.startswith(model.label):
                path = self.folder / "scores" / f"{name}-{run}.csv"
                return path if path.is_file() else None
        return None

    def _from_scores(self, terms: Sequence[Term], level: float) -> Found:
        shift = sum(t.sign * self._paper[t.address][0] for t in terms if t.constant)
        columns: dict[str, list[Term]] = {}
        for term in terms:
            if not term.constant:
                columns.setdefault(term.column, []).append(term)
        parts = [self._combined(column, group) for column, group in columns.items()]
        sets = sum(part["set"].nunique() for part in parts)
        for part in parts:  # a mean over the sets of all parts is to become the sum of the parts
            part["value"] *= sets / part["set"].nunique()
        rule = self.params.statistics
        found = stratified_mean(
            pd.concat(parts), "value", resamples=rule.resamples, level=level, seed=self.params.seed
        )
        own = len(terms) - sum(term.constant for term in terms)
        paired = "paired by item" if own > len(parts) == 1 else "score files"
        return Found(found.value + shift, found.low + shift, found.high + shift, paired)

    def _combined(self, column: str, terms: Sequence[Term]) -> pd.DataFrame:
        """One row an item: the signed sum of one column over the rows of a table."""
        part, _, measure = column.rpartition(" ")
        name = {"WER": self.params.claims.measure, "UTMOS": "quality"}.get(measure, measure)
        total: pd.DataFrame | None = None
        for term in terms:
            scores = self._score_file(term)
            rows = _part(scores, part).set_index("id")
            key = MEASURES[name][0]
            if rows.empty or key not in rows or rows[key].isna().any():
                raise Missing(f"no {column} in the scores of {term.row_here}")
            value = term.sign * rows[key]
            if total is None:
                total = rows[["set", "direction", "voice"]].assign(value=value)
            elif set(total.index) != set(rows.index):
                raise Missing(f"{term.row_here} spoke other items")
            else:
                total["value"] += value.reindex(total.index)
        assert total is not None
        return total.reset_index().assign(set=lambda frame: column + frame["set"])

    def _score_file(self, term: Term) -> pd.DataFrame:
        path = self._file(term)
        assert path is not None
        if path.stem not in self._scores:
            self._scores[path.stem] = with_clamped(pd.read_csv(path), self.params)
        return self._scores[path.stem]

    def table(self, name: str) -> pd.DataFrame:
        """One table of this scale, by row and column. Raises Missing."""
        if name not in self._tables:
            blank = {"keep_default_na": False, "na_values": {"value": [""], "low": [""]}}
            frames = [pd.read_csv(path, **blank) for path in files_of(name, self.folder)]
            if not frames:
                raise Missing(f"{file_of(name, self.folder).stem} is not there")
            self._tables[name] = pd.concat(frames).set_index(["row", "column"])
        return self._tables[name]

    def _cell(self, table: str, row: str, column: str) -> tuple[float, float, float, bool]:
        """Value, low, high and whether it is simulated. Raises Missing."""
        frame = self.table(table)
        for name in self._columns(column):
            if (row, name) in frame.index:
                cell = frame.loc[(row, name)]
                numbers = pd.to_numeric(cell[["value", "low", "high"]], errors="coerce")
                value, low, high = (float(x) for x in numbers)
                if not np.isfinite(value):
                    break
                low, high = (value if not np.isfinite(x) else x for x in (low, high))
                return value, low, high, "simulated" in str(cell["note"])
        what = f"{row}: {column}" if row in frame.index.get_level_values("row") else f"row {row}"
        raise Missing(f"{file_of(table, self.folder).stem} has no {what}")

    def _columns(self, column: str) -> list[str]:
        """What a column of the paper may be called here, the parameters' measure first."""
        names = [column]
        for printed, ours in (
            ("WER", self.params.claims.measure),
            ("UTMOS", quality_name(self.params)),
        ):
            if column.endswith(printed):
                names.insert(0, column.removesuffix(printed) + ours)
        return names

    def _from_cells(
        self, terms: Sequence[Term], level: float
    ) -> tuple[tuple[float, float, float], bool]:
        self._check_topline(terms)
        cells = []
        if difference := self._difference(terms):
            cells = [(1, difference)]
        else:
            for term in terms:
                number = self._paper[term.address][0] if term.constant else 0.0
                exact = (number, number, number, False)
                cell = (
                    exact if term.constant else self._cell(term.table, term.row_here, term.column)
                )
                cells.append((term.sign, cell))
        value = sum(sign * c[0] for sign, c in cells)
        low = sum(c[1] if sign > 0 else -c[2] for sign, c in cells)
        high = sum(c[2] if sign > 0 else -c[1] for sign, c in cells)
        wider = _quantile(level) / _quantile(self.params.statistics.level)
        bounds = (value, value - wider * (value - low), value + wider * (high - value))
        return bounds, any(c[3] for _, c in cells)

    def _difference(self, terms: Sequence[Term]) -> tuple[float, float, float, bool] | None:
        """The table's own paired difference of an aligned model and its base, where it has one."""
        if len(terms) != 2 or any(t.constant for t in terms):
            return None
        after, before = terms
        base = after.row_here.partition(" w/ ")[0]
        if (
            (after.sign, before.sign) != (1, -1)
            or before.row_here != base
            or base == after.row_here
        ):
            return None
        if after.column != before.column:
            return None
        for column in self._columns(after.column):
            try:
                return self._cell(after.table, after.row_here, f"{column} difference")
            except Missing:
                continue
        return None

    def _check_topline(self, terms: Sequence[Term]) -> None:
        """Raises Missing for an unseen language whose recordings the judge itself gets wrong, or that
        has none: then nobody knows."""
        for term in terms:
            if term.table != "10":
                continue
            language = term.column.rpartition(" ")[0]
            try:
                value, *_ = self._cell("10", RECORDINGS, f"{language} WER")
            except Missing as error:
                raise Missing(f"no recordings in {language}, so no topline") from error
            if value > self.params.claims.ceiling:
                raise Missing(f"the judge gets {value:.0f} % of {language} recordings wrong")


def _part(scores: pd.DataFrame, part: str) -> pd.DataFrame:
    """The items of a set ("regular"), of one direction ("regular en"), or an average over sets."""
    first, _, direction = part.partition(" ")
    if first == "avg":
        rows = scores[scores["direction"].isin(LANGUAGES[direction])] if direction else scores
        return rows if set(SETS) <= set(rows["set"]) else rows.head(0)
    rows = scores[scores["set"] == first]
    return rows[rows["direction"] == direction] if direction else rows


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
