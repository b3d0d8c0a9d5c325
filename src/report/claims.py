"""The paper's 43 claims as data: configs/claims.yaml, read, checked and written out."""

import json
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from intp.params import Text, checked
from intp.paths import ROOT

CLAIMS = ROOT / "configs" / "claims.yaml"
Expectation = Literal["higher", "lower", "not lower", "not higher", "equal"]
SIGNS = {
    "higher": "> 0",
    "lower": "< 0",
    "not lower": ">= -{}",
    "not higher": "<= {}",
    "equal": "= 0",
}


class ClaimsError(ValueError):
    """The file of claims does not say what it must; the message says where."""


@checked
class Pattern:
    """One entry of `tests`, before `each` is written out; the file's head explains the fields."""

    cells: list[Text]
    expect: Expectation
    than: list[Text] = Field(default_factory=list)
    times: list[Text] = Field(default_factory=list)
    each: dict[Text, list[Any]] = Field(default_factory=dict)
    here: dict[Text, Text] = Field(default_factory=dict)
    margin: Text | None = None


@checked
class Entry:
    """One claim of the file; `why` says what no comparison can, and is needed where there is none."""

    id: Text
    section: Text
    claim: Text
    tests: list[Pattern] = Field(default_factory=list)
    why: Text | None = None


@checked
class Ledger:
    """The whole file: `names` holds YAML anchors only, `runs` maps rows of tables to score files."""

    names: dict[Text, list[Text]]
    runs: dict[str, Text]
    claims: list[Entry]


@dataclass(frozen=True)
class Term:
    """A signed cell of the paper, and the row that it has here."""

    sign: int
    table: str
    row: str
    column: str
    row_here: str

    @property
    def constant(self) -> bool:
        """Whether it is a figure of the paper's prose."""
        return self.table == "text"

    @property
    def address(self) -> str:
        """table:row:column, as in the paper."""
        return f"{self.table}:{self.row}:{self.column}"


@dataclass(frozen=True)
class Comparison:
    """The sum of `terms`, times the sum of `times` if there are any, and where it must lie."""

    terms: tuple[Term, ...]
    times: tuple[Term, ...]
    expect: Expectation
    margin: float

    @property
    def bounds(self) -> tuple[float, float]:
        """What the claim leaves open to the value; bounds that margins or zero make are excluded."""
        inf, m = math.inf, self.margin
        return {
            "higher": (0.0, inf), "lower": (-inf, 0.0), "not lower": (-m, inf),
            "not higher": (-inf, m), "equal": (-m - 1e-9, m + 1e-9),
        }[self.expect]  # fmt: skip

    @property
    def text(self) -> str:
        """As people read it."""
        parts = [_sum(self.terms)]
        if self.times:
            parts = [f"({_sum(self.terms)}) x ({_sum(self.times)})"]
        return f"{parts[0]} {SIGNS[self.expect].format(f'{self.margin:g}')}"


@dataclass(frozen=True)
class Claim:
    """A claim and every comparison that must hold for it."""

    id: str
    section: str
    claim: str
    comparisons: tuple[Comparison, ...]
    why: str


def _sum(terms: tuple[Term, ...]) -> str:
    words = "".join(f" {'+' if t.sign > 0 else '-'} {t.address}" for t in terms)
    return words.removeprefix(" + ").strip()


def read_ledger(path: Path = CLAIMS) -> Ledger:
    """Read and check the file. Raises ClaimsError with every fault."""
    values = YAML(typ="safe").load(path.read_text("utf-8"))
    try:
        ledger = TypeAdapter(Ledger).validate_json(json.dumps(values))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ClaimsError("\n".join(f"{path.name}: {fault}" for fault in faults)) from error
    ids = [entry.id for entry in ledger.claims]
    if len(set(ids)) < len(ids):
        raise ClaimsError(f"{path.name}: claims that come twice")
    if silent := [entry.id for entry in ledger.claims if not entry.tests and not entry.why]:
        raise ClaimsError(f"{path.name}: {silent}: neither a comparison nor a reason why not")
    return ledger


def claims(ledger: Ledger, margins: dict[str, float]) -> list[Claim]:
    """Every claim with its comparisons written out. Raises ClaimsError for an unknown margin, a name
    in braces that `each` lacks, or what is no address."""
    return [
        Claim(
            entry.id, entry.section, entry.claim,
            tuple(c for pattern in entry.tests for c in _written_out(entry.id, pattern, margins)),
            entry.why or "",
        )
        for entry in ledger.claims
    ]  # fmt: skip


def _written_out(name: str, pattern: Pattern, margins: dict[str, float]) -> list[Comparison]:
    if pattern.margin is not None and pattern.margin not in margins:
        raise ClaimsError(f"{name}: no margin {pattern.margin!r} in the parameters")
    margin = margins[pattern.margin] if pattern.margin else 0.0
    found = []
    for values in product(*pattern.each.values()):
        words: dict[str, str] = {}
        for key, value in zip(pattern.each, values, strict=True):
            together = value if isinstance(value, list) else [value]
            words |= dict(zip(key.split(", "), together, strict=True))
        terms = [_term(name, a, words, pattern.here, +1) for a in pattern.cells]
        terms += [_term(name, a, words, pattern.here, -1) for a in pattern.than]
        times = [_term(name, a, words, pattern.here, +1) for a in pattern.times]
        found.append(Comparison(tuple(terms), tuple(times), pattern.expect, margin))
    return found


def _term(name: str, pattern: str, words: dict[str, str], here: dict[str, str], sign: int) -> Term:
    try:
        address = pattern.removeprefix("-").format_map(words)
    except KeyError as error:
        raise ClaimsError(f"{name}: {pattern!r}: `each` has no {error}") from error
    parts = address.split(":")
    if len(parts) != 3:
        raise ClaimsError(f"{name}: {address!r}: expected table:row:column")
    table, row, column = parts
    sign = -sign if pattern.startswith("-") else sign
    return Term(sign, table, row, column, here.get(row, row))
