"""The claims ledger: what the paper's numbers support, and verdicts on results whose truth is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from intp.params import Params, load_params
from report.claims import CLAIMS, ClaimsError, Comparison, Term, claims, read_ledger
from report.evidence import Evidence, Missing
from report.verdicts import LEDGER, examine, ledger, supports, verdict

DIRECTIONS = {"regular": "en", "articulatory": "en", "code-switching": "en2mixed",
              "cross-lingual": "zh2en"}  # fmt: skip
PARTLY = {"C02", "C04", "C09", "C12", "C13", "C18", "C22", "C24", "C25"}
NO = {"C15", "C27", "C30"}
NO_CELLS = {"C10", "C16", "C17", "C21", "C32", "C39", "C43"}


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params("smoke")


def scores(mean: float, seed: int, spread: float = 5.0, items: int = 24) -> pd.DataFrame:
    """A score file: per set one direction, six voices, errors around `mean` with paired items."""
    own, shared = np.random.default_rng(seed), np.random.default_rng(0)
    frames = []
    for name, direction in DIRECTIONS.items():
        error = mean + 10 * shared.random(items) + spread * own.standard_normal(items)
        frames.append(pd.DataFrame({
            "id": [f"{name}-{i}" for i in range(items)], "set": name, "direction": direction,
            "voice": [f"v{i % 6}" for i in range(items)],
            "wer": error, "error": error, "sim": 0.7, "quality": 3.0,
        }))  # fmt: skip
    return pd.concat(frames)


def results(folder: Path, files: dict[str, pd.DataFrame]) -> Path:
    """A scale's results folder with these score files."""
    (folder / "scores").mkdir()
    for name, frame in files.items():
        frame.to_csv(folder / "scores" / f"{name}.csv", index=False)
    return folder


def evidence(folder: Path, params: Params) -> Evidence:
    return Evidence(folder, params, read_ledger().runs)


def better(column: str = "avg WER", expect: str = "lower") -> Comparison:
    """ARS w/ INTP against ARS."""
    terms = tuple(Term(s, "4", row, column, row) for s, row in ((1, "ARS w/ INTP"), (-1, "ARS")))
    return Comparison(terms, (), expect, 0.0)


def table(folder: Path, stem: str, rows: list[tuple], note: str) -> None:
    """A table of cells (row, column, value, low, high)."""
    (folder / "tables").mkdir(exist_ok=True)
    frame = pd.DataFrame(rows, columns=["row", "column", "value", "low", "high"])
    frame.assign(note=note).to_csv(folder / "tables" / f"{stem}.csv", index=False)


def test_every_claim_stands_once_and_in_order():
    assert [c.id for c in read_ledger().claims] == [f"C{i:02d}" for i in range(1, 44)]


def test_the_paper_supports_what_its_own_numbers_support(params: Params, tmp_path: Path):
    nothing, _ = ledger(tmp_path, params)
    by = nothing.groupby("paper_supports")["id"].agg(set)
    assert (by["partly"], by["no"], by["no cells"]) == (PARTLY, NO, NO_CELLS)
    assert len(by["yes"]) == 43 - len(PARTLY | NO | NO_CELLS)


def test_without_results_every_claim_is_undecided_and_says_why(params: Params, tmp_path: Path):
    nothing, parts = ledger(tmp_path, params)
    assert list(nothing.columns) == LEDGER
    assert set(nothing["verdict"]) == {"undecided"} and (nothing["rule"] != "").all()
    assert nothing["here"].isna().all() and (parts["missing"] != "").all()


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (scores(20, 2), "reproduced"),
        (scores(60, 2), "not reproduced"),
        (scores(40, 2, spread=8), "undecided"),
    ],
    ids=["less", "more", "alike"],
)
def test_the_interval_decides(params: Params, tmp_path: Path, after: pd.DataFrame, expected: str):
    before = scores(40, 1, spread=8)
    folder = results(tmp_path, {"ars-base": before, "ars-intp": after})
    tested = examine(better(), evidence(folder, params), 1)
    assert verdict([tested]) == expected
    assert tested.here.source == "paired by item"
    assert tested.here.value == pytest.approx(after["error"].mean() - before["error"].mean())


def test_one_missing_model_leaves_a_claim_on_all_undecided(params: Params, tmp_path: Path):
    folder = results(tmp_path, {"ars-base": scores(40, 1), "ars-intp": scores(20, 2)})
    rows, parts = ledger(folder, params)
    claim = rows.set_index("id").loc["C11"]
    assert claim["verdict"] == "undecided" and claim["high"] < 0
    assert set(parts.query("id == 'C11'")["outcome"]) == {"holds", "open"}
    assert (
        parts.query("id == 'C11' and outcome == 'holds'")["comparison"].str.contains("ARS")
    ).all()


def test_one_clear_failure_refutes_a_claim_on_all(params: Params, tmp_path: Path):
    folder = results(tmp_path, {"ars-base": scores(20, 1), "ars-intp": scores(40, 2)})
    verdicts = ledger(folder, params)[0].set_index("id")["verdict"]
    assert verdicts["C11"] == "not reproduced"
    assert verdicts["C14"] == "undecided"  # speaks of other models


def test_a_single_failure_among_many_needs_the_corrected_level(params: Params, tmp_path: Path):
    folder = results(tmp_path, {"ars-base": scores(40, 1), "ars-intp": scores(41.4, 2)})
    alone = examine(better(), evidence(folder, params), 1)
    among = examine(better(), evidence(folder, params), 40)
    assert alone.fails and not among.fails
    assert among.strict.low < among.here.low and among.strict.high > among.here.high
    assert among.here == alone.here


def test_a_comparison_within_one_model_is_the_difference_of_its_sets(
    params: Params, tmp_path: Path
):
    frame = scores(30, 1)
    frame.loc[frame["set"] == "articulatory", "error"] += 20
    folder = results(tmp_path, {"ars-base": frame})
    terms = tuple(
        Term(s, "4", "ARS", f"{part} WER", "ARS")
        for s, part in ((1, "articulatory"), (-1, "regular"))
    )
    found = evidence(folder, params).compare(Comparison(terms, (), "higher", 0.0), 0.95)
    means = frame.groupby("set")["error"].mean()
    assert found.value == pytest.approx(means["articulatory"] - means["regular"])
    assert found.low < found.value < found.high


def test_margins_and_equality(params: Params, tmp_path: Path):
    before, after = scores(30, 1), scores(30, 1)
    after["sim"] -= 0.015
    folder = results(tmp_path, {"ars-base": before, "ars-intp": after})
    at = evidence(folder, params)
    for expect, margin, holds, fails in (
        ("not lower", 0.02, True, False),
        ("not lower", 0.01, False, True),
        ("equal", 0.0, False, True),
        ("higher", 0.0, False, True),
    ):
        wanted = dataclasses.replace(better("avg SIM", expect), margin=margin)
        tested = examine(wanted, at, 1)
        assert (tested.holds, tested.fails) == (holds, fails), (expect, margin)


def test_other_items_are_no_pairs(params: Params, tmp_path: Path):
    folder = results(tmp_path, {"ars-base": scores(30, 1), "ars-intp": scores(30, 1, items=20)})
    with pytest.raises(Missing, match="other items"):
        evidence(folder, params).compare(better(), 0.95)


def heard(positive: float) -> list[tuple]:
    return [
        ("Positive Samples", "ARS", positive, positive - 5, positive + 5),
        ("Negative Samples", "ARS", 50.0, 45.0, 55.0),
    ]


def readings() -> Comparison:
    rows = ((1, "Positive Samples"), (-1, "Negative Samples"))
    return Comparison(tuple(Term(s, "3", r, "ARS", r) for s, r in rows), (), "higher", 0.0)


@pytest.mark.parametrize(
    ("note", "expected"), [("", "reproduced"), ("simulated", "undecided")], ids=["people", "nobody"]
)
def test_simulated_listeners_decide_nothing(
    params: Params, tmp_path: Path, note: str, expected: str
):
    table(tmp_path, "table_03", heard(90.0), note)
    tested = examine(readings(), evidence(tmp_path, params), 1)
    assert verdict([tested]) == expected
    assert (tested.here.low, tested.here.high) == (30.0, 50.0)
    assert ("simulated" in tested.missing) == (note == "simulated")


def test_two_tables_agree_on_an_order_where_both_are_sure(params: Params, tmp_path: Path):
    (claim,) = [c for c in claims(read_ledger(), params.claims.margins) if c.id == "C02"]
    order = [c for c in claim.comparisons if "ARS" in c.text and "MaskGCT" in c.text]
    table(
        tmp_path,
        "table_02",
        [("ARS", "Win Rate", 20, 18, 22), ("MaskGCT", "Win Rate", 30, 28, 32)],
        "",
    )
    for ars, agrees in ((50, True), (70, False)):
        rows = [("All", "ARS", ars, ars - 3, ars + 3), ("All", "MaskGCT", 60, 57, 63)]
        table(tmp_path, "table_03", rows, "")
        tested = examine(order[0], evidence(tmp_path, params), 1)
        assert (tested.holds, tested.fails) == (agrees, not agrees)
        assert tested.supported  # 18.3 and 24.3; 59.7 and 64.3


def test_a_language_that_the_judge_cannot_hear_decides_nothing(params: Params, tmp_path: Path):
    cells = [("Ints", "Korean WER", 60, 55, 65), ("Ints w/ INTP", "Korean WER", 40, 35, 45)]
    rows = tuple(Term(s, "10", r, "Korean WER", r) for s, r in ((1, "Ints w/ INTP"), (-1, "Ints")))
    wanted = Comparison(rows, (), "lower", 0.0)
    table(tmp_path, "table_10", [*cells, ("recording", "Korean WER", 30, 25, 35)], "")
    assert examine(wanted, evidence(tmp_path, params), 1).holds
    table(tmp_path, "table_10", [*cells, ("recording", "Korean WER", 70, 65, 75)], "")
    assert "Korean" in examine(wanted, evidence(tmp_path, params), 1).missing
    table(tmp_path, "table_10", cells, "")
    assert "no recordings in Korean" in examine(wanted, evidence(tmp_path, params), 1).missing


def test_a_table_s_own_paired_difference_is_preferred(params: Params, tmp_path: Path):
    cells = [("Ints", "Korean WER", 60, 50, 70), ("Ints w/ INTP", "Korean WER", 55, 45, 65)]
    rows = tuple(Term(s, "10", r, "Korean WER", r) for s, r in ((1, "Ints w/ INTP"), (-1, "Ints")))
    wanted = Comparison(rows, (), "lower", 0.0)
    cells.append(("recording", "Korean WER", 30, 25, 35))
    table(tmp_path, "table_10", cells, "")
    assert not examine(wanted, evidence(tmp_path, params), 1).holds
    table(tmp_path, "table_10", [*cells, ("Ints w/ INTP", "Korean WER difference", -5, -8, -2)], "")
    assert examine(wanted, evidence(tmp_path, params), 1).here.low == -8


def test_support_is_a_share_of_what_is_printed(params: Params, tmp_path: Path):
    at = evidence(tmp_path, params)
    lower, higher = (examine(better(expect=e), at, 1) for e in ("lower", "higher"))
    printed = [lower, higher]
    assert supports([lower]) == "yes" and supports([higher]) == "no"
    assert supports(printed) == "partly" and supports([]) == "no cells"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expect": "greater"}, "expect"),
        ({"margin": "taste"}, "taste"),
        ({"cells": ["4:{nobody}:avg WER"]}, "nobody"),
        ({"cells": ["4:ARS"]}, "table:row:column"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_fault_in_the_file_is_named(params: Params, tmp_path: Path, change: dict, message: str):
    values = YAML(typ="safe").load(CLAIMS.read_text("utf-8"))
    values["claims"][0]["tests"][0] |= change
    path = tmp_path / "claims.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(values, file)
    with pytest.raises(ClaimsError, match=message):
        claims(read_ledger(path), params.claims.margins)
