"""The paper's numbers: complete, addressable, and in agreement with themselves but for a list."""

import re

import pandas as pd
import pytest

from report.paper import PAPER_TABLES, contradictions, paper_cells, select

DOCS = PAPER_TABLES.parents[2] / "docs" / "paper-loose-ends.md"

CELLS = {
    "1a": 36,
    "1b": 4,  # the Repeated example is lost
    "2": 16,
    "3": 12,
    "4": 125,  # rows without alignment have no N-CMOS
    "5": 195,  # 13 distinct rows
    "6": 47,
    "7": 5,
    "8": 3,
    "9": 150,
    "10": 16,
    "11": 12,
    "text": 98,
}

KNOWN_CONTRADICTIONS = {
    "I01": {
        "9:ARS:avg zh WER",
        "9:ARS w/ en2en:avg en WER",
        "9:ARS w/ zh2zh:avg en WER",
        "9:ARS w/ zh2zh:avg zh WER",
        "9:ARS w/ all:avg zh WER",
        "5:ARS:avg WER",
        "5:ARS w/ Regular:avg WER",
    },
    "I02": {"5:ARS w/ Regular:regular WER"},
    "I03": {"4:F5-TTS w/ INTP:avg N-CMOS"},
    "I04": {"3:All:ARS", "3:All:F5-TTS", "3:All:MaskGCT", "3:All:CosyVoice 2"},
    "I05": {"7:*:*"},
    "I07": {"text:Section 5.1:samples for subjective evaluation"},
    "I08": {
        "4:ARS w/ INTP:avg N-CMOS",
        "4:F5-TTS w/ INTP:avg N-CMOS",
        "4:MaskGCT w/ INTP:avg N-CMOS",
        "4:CosyVoice 2 w/ INTP:avg N-CMOS",
    },
    "I09": {"3:All:*"},
    "I13": {
        "1a:ARS:{Regular;*-perturbed}",
        "1a:F5-TTS:{Regular;*-perturbed}",
        "1a:MaskGCT:{Regular;*-perturbed}",
        "1a:Intra Pairs:{Regular;*-perturbed}",
        "1a:Inter Pairs:{Regular;*-perturbed}",
        "1a:#Total:{Regular;*-perturbed}",
    },
    "I22": {
        "2:ARS:CosyVoice 2",
        "2:ARS:Win Rate",
        "2:F5-TTS:Win Rate",
        "2:MaskGCT:Win Rate",
        "2:CosyVoice 2:Win Rate",
    },
    "I33": {"4:ARS:regular WER"},  # the reading that the paper does not take
    "I42": {"1a:*:#Total"},
}


@pytest.fixture(scope="module")
def checks() -> pd.DataFrame:
    return contradictions()


def number(address: str) -> float:
    return select(address)["number"].item()


def printed(address: str) -> list[str]:
    return list(select(address)["value"])


def test_every_table_is_complete() -> None:
    assert paper_cells()["table"].value_counts().to_dict() == CELLS


def test_file_has_the_agreed_columns() -> None:
    names = list(pd.read_csv(PAPER_TABLES, nrows=0).columns)
    assert names == ["table", "row", "column", "value", "half_interval"]


def test_every_cell_stands_once() -> None:
    assert not paper_cells().duplicated(["table", "row", "column"]).any()


def test_names_can_be_addressed() -> None:
    names = paper_cells()[["table", "row", "column"]].to_numpy().ravel()
    assert not [name for name in names if name != name.strip() or re.search(r"[][:;*?{}]", name)]


def test_only_examples_and_data_names_are_text() -> None:
    texts = paper_cells().query("number.isna()")
    assert set(texts["table"] + ":" + texts["column"]) == {
        "1b:Text",
        "6:Preference Data",
        "text:pronunciation-perturbed example",
    }


def test_intervals_belong_to_naturalness_only() -> None:
    cells = paper_cells()
    has_interval = cells["half_interval"].notna()
    assert (has_interval == cells["column"].str.endswith(" N-CMOS")).all()
    assert has_interval.sum() == 25


def test_mismatches_are_the_known_ones(checks: pd.DataFrame) -> None:
    wrong = checks[~checks["supports"]]
    found = {(check.id, check.where) for check in wrong.itertuples()}
    known = {(loose_end, at) for loose_end, ats in KNOWN_CONTRADICTIONS.items() for at in ats}
    assert found == known


@pytest.mark.parametrize(
    "totals",
    [
        "{4;5;6;9}:*:avg *",
        "2:*:Win Rate",
        "{1a;11}:*:#Total",
        "1a:{Intra Pairs;#Total}:*",
        "3:All:*",
    ],
)
def test_every_total_is_recomputed(totals: str, checks: pd.DataFrame) -> None:
    cells = select(totals)
    assert set(cells["table"] + ":" + cells["row"] + ":" + cells["column"]) <= set(checks["where"])


def test_an_average_wrong_by_one_cell_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = paper_cells()
    changed = (cells["row"] == "Ints v2") & (cells["column"] == "regular WER")
    cells.loc[changed, ["value", "number"]] = ["2.31", 2.31]
    monkeypatch.setattr("report.paper.paper_cells", lambda: cells)
    wrong = contradictions().query("not supports and id == ''")
    assert list(wrong["where"]) == ["6:Ints v2:avg WER"]


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("4:ARS:* {WER;SIM}", "5:ARS:* {WER;SIM}"),
        ("4:ARS w/ INTP:* {WER;SIM}", "5:ARS w/ INTP:* {WER;SIM}"),
        ("4:Ints:* {WER;SIM}", "6:Ints:* {WER;SIM}"),
        ("4:Ints w/ INTP:* {WER;SIM}", "6:Ints v1:* {WER;SIM}"),
        ("text:Section 5.1:{CosyVoice 2;Ints} avg WER", "4:{CosyVoice 2;Ints}:avg WER"),
        ("text:Section 5:regular samples*", "11:Regular:{en;zh}"),
        ("text:Section 5:{articulatory;code-switching} samples", "11:{Art*;Code*}:#Total"),
        ("text:Section 5:cross-lingual samples*", "11:Cross-lingual:{zh2en;en2zh}"),
        ("text:Section 3.3:ARS success rate*", "2:ARS:CosyVoice 2"),
        ("text:Appendix A.4:{tie rate*;agreement*}", "8:*:{*Tie;*Winner}"),
    ],
)
def test_repeated_numbers_agree(here: str, there: str) -> None:
    # Sorted, because the two places order the same numbers differently.
    assert sorted(printed(here)) == sorted(printed(there))


def test_listening_test_sizes_multiply() -> None:
    per_system = select("text:Appendix F.3:{settings;languages*;samples a language*}")["number"]
    assert per_system.prod() == number("text:Appendix F.3:pairs a system")
    all_systems = select("text:Appendix F.3:{pairs a system;systems}")["number"].prod()
    assert all_systems == number("text:Appendix F.3:pairs over all systems")


def test_distinguishable_pairs_are_those_that_do_not_tie() -> None:
    distinguishable = number("text:Appendix A.4:pairs with distinguishable naturalness (%)")
    assert distinguishable == 100 - number("7:preference:Tie")


def test_dataset_is_of_the_size_the_text_says() -> None:
    about = number("text:Section 1:preference pairs in INTP (about)")
    assert round(number("1a:#Total:#Total"), -4) == about


@pytest.mark.parametrize(
    ("address", "cells"),
    [
        ("3:{Positive Samples;Negative Samples}:*", 8),  # C01
        ("text:Section 5:*samples*", 6),  # C05
        ("4:{ARS;F5-TTS;MaskGCT;CosyVoice 2;Ints}:regular WER", 5),  # C06
        ("4:*w/ INTP:*N-CMOS", 25),  # C12
        ("5:ARS*:cross-lingual WER", 13),  # C20
        ("5:ARS w/ {Intra pairs;Inter pairs;INTP}:* WER", 15),  # C24
        ("9:*:cross-lingual {zh2en;en2zh} *", 30),  # C40
        ("10:*:* SIM", 8),  # C42
    ],
)
def test_claims_find_their_cells(address: str, cells: int) -> None:
    assert len(select(address)) == cells


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("12:*:*", "no table matches '12'"),
        ("4:{ARS;VALL-E}:*", "no row matches 'VALL-E'"),
        ("4:ARS:* UTMOS", r"no column matches '\* UTMOS'"),
        ("4:ARS", "expected table:row:column"),
    ],
)
def test_address_of_nothing_is_named(address: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        select(address)
    assert repr(address) in str(error.value)


def test_docs_keep_all_43_loose_ends() -> None:
    described = re.findall(r"^- \*\*(I\d\d)\*\*", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(described) == [f"I{i:02}" for i in range(1, 44)]


def test_docs_list_the_recomputed_contradictions(checks: pd.DataFrame) -> None:
    wrong = checks[~checks["supports"]].sort_values("id", kind="stable")
    lines = [
        f"| {check.id} | `{check.where}` | {round(check.printed, 3):g} "
        f"| {round(check.recomputed, 3):g} | {check.note} |"
        for check in wrong.itertuples()
    ]
    assert "\n".join(lines) in DOCS.read_text(encoding="utf-8")
