"""The claims ledger: a verdict for each of the paper's claims, by a rule that is fixed beforehand.

A claim stands if every one of its comparisons holds. *reproduced*: the interval of each, at the
parameters' level, lies on the right side (intersection-union: no correction is needed). *not
reproduced*: at least one lies on the wrong side, at a level that Bonferroni corrects for as many
chances as there are comparisons. Else *undecided*: also where something is missing or simulated.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from intp.params import Params
from report.claims import Claim, Comparison, claims, read_ledger
from report.evidence import Evidence, Found, Missing

VERDICTS = ("reproduced", "not reproduced", "undecided")
LEDGER = [
    "id", "claim", "section", "comparison", "here", "low", "high", "paper", "paper_supports",
    "verdict", "rule",
]  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """One comparison's outcome. `here` is None where it could not be made, and `missing` says why;
    `strict` has the interval at the corrected level."""

    comparison: Comparison
    here: Found | None
    strict: Found | None
    paper: Found | None
    missing: str = ""

    @property
    def holds(self) -> bool:
        """Whether the interval lies where the claim puts it."""
        return self.here is not None and self.here.simulated is False and _inside(self, self.here)

    @property
    def fails(self) -> bool:
        """Whether the corrected interval lies wholly elsewhere."""
        if self.strict is None or self.strict.simulated:
            return False
        low, high = self.comparison.bounds
        return self.strict.high < low or self.strict.low > high

    @property
    def supported(self) -> bool:
        """Whether the paper's own numbers lie there."""
        return self.paper is not None and _inside(self, self.paper)

    def room(self, found: Found) -> float:
        """How far the value lies from the nearest bound, in halves of its interval's width."""
        low, high = self.comparison.bounds
        half = max((found.high - found.low) / 2, 1e-9)
        return min(found.value - low, high - found.value) / half


def _inside(tested: Tested, found: Found) -> bool:
    low, high = tested.comparison.bounds
    return low < found.low and found.high < high


def examine(comparison: Comparison, evidence: Evidence, of: int) -> Tested:
    """Compare here and in the paper; `of` comparisons share the corrected level."""
    level = evidence.params.statistics.level
    try:
        paper = evidence.printed(comparison)
    except Missing:
        paper = None
    try:
        here = evidence.compare(comparison, level)
        strict = evidence.compare(comparison, 1 - (1 - level) / of)
    except Missing as error:
        return Tested(comparison, None, None, paper, str(error))
    missing = "simulated listeners alone answered" if here.simulated else ""
    return Tested(comparison, here, strict, paper, missing)


def verdict(tested: Sequence[Tested]) -> str:
    """The rule at the head of this file."""
    if any(t.fails for t in tested):
        return "not reproduced"
    return "reproduced" if tested and all(t.holds for t in tested) else "undecided"


def supports(tested: Sequence[Tested]) -> str:
    """Whether the paper's numbers bear the claim out: yes, partly (at least half of what is printed)
    or no; "no cells" where it prints nothing that could."""
    printed = [t for t in tested if t.paper is not None]
    if not printed:
        return "no cells"
    share = np.mean([t.supported for t in printed])
    return "yes" if share == 1 else "partly" if share >= 0.5 else "no"


def ledger(folder: Path, params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test every claim on the results in `folder`: the ledger (columns of LEDGER, one row a claim) and
    all its comparisons, one row each. Raises ClaimsError for a file of claims that is not right."""
    said = read_ledger()
    evidence = Evidence(folder, params, said.runs)
    rows, parts = [], []
    for claim in claims(said, params.claims.margins):
        of = max(len(claim.comparisons), 1)
        tested = [examine(c, evidence, of) for c in claim.comparisons]
        rows.append(_row(claim, tested, params.statistics.level))
        parts += [_part(claim.id, t) for t in tested]
    return _rounded(pd.DataFrame(rows)[LEDGER]), _rounded(pd.DataFrame(parts))


def _weakest(tested: Sequence[Tested]) -> Tested | None:
    """The comparison that decides: the one with the least room here, else in the paper."""
    here = [t for t in tested if t.here is not None]
    if here:
        return min(here, key=lambda t: t.room(t.here))
    printed = [t for t in tested if t.paper is not None]
    return min(printed, key=lambda t: t.room(t.paper)) if printed else next(iter(tested), None)


def _row(claim: Claim, tested: Sequence[Tested], level: float) -> dict[str, object]:
    shown = _weakest(tested)
    here = shown.here if shown else None
    return {
        "id": claim.id, "claim": claim.claim, "section": claim.section,
        "comparison": shown.comparison.text if shown else "",
        "here": here and here.value, "low": here and here.low, "high": here and here.high,
        "paper": shown.paper.value if shown and shown.paper else None,
        "paper_supports": supports(tested), "verdict": verdict(tested),
        "rule": _rule(claim, tested, level),
    }  # fmt: skip


def _rule(claim: Claim, tested: Sequence[Tested], level: float) -> str:
    """What the verdict rests on, and what it lacks."""
    made = [t for t in tested if t.here is not None]
    if not tested:
        return f"no comparison: {claim.why}"
    words = [f"{len(made)} of {len(tested)} comparisons made"]
    if made:
        words.append(f"{sum(t.holds for t in made)} hold at {100 * level:g} %")
        words.append(f"{sum(t.fails for t in made)} fail at 1 - {1 - level:.2g}/{len(tested)}")
        words.append("shown: the weakest, " + _weakest(tested).here.source)
    lacking = Counter(t.missing for t in tested if t.missing)
    words += [f"{reason} ({count})" for reason, count in lacking.most_common(3)]
    if len(lacking) > 3:
        words.append(f"{len(lacking) - 3} more reasons")
    return "; ".join(words + ([claim.why] if claim.why else []))


def _part(name: str, tested: Tested) -> dict[str, object]:
    here = tested.here
    outcome = "holds" if tested.holds else "fails" if tested.fails else "open"
    return {
        "id": name, "comparison": tested.comparison.text,
        "here": here and here.value, "low": here and here.low, "high": here and here.high,
        "paper": tested.paper and tested.paper.value,
        "paper_supports": {True: "yes", False: "no"}[tested.supported] if tested.paper else "",
        "outcome": outcome, "source": here.source if here else "", "missing": tested.missing,
    }  # fmt: skip


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = ["here", "low", "high", "paper"]
    return frame.assign(**{name: frame[name].astype(float).round(4) for name in numbers})
