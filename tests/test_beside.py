"""All tables beside the paper's: every cell of the paper is there, and the marks say what differs."""

from pathlib import Path

import pandas as pd
import pytest

from report.beside import TITLES, beside, latex, markdown, wide, write_all
from report.paper import paper_cells
from report.tables import CELL_COLUMNS

CELLS = [  # row, column, value, low, high, note
    ("ARS", "regular WER", 3.9, 3.0, 5.0, ""),  # the paper: 3.96
    ("ARS", "articulatory WER", 30.0, 25.0, 35.0, ""),  # 20.03
    ("ARS", "code-switching WER", 40.0, 35.0, 45.0, ""),  # 54.15
    ("ARS", "regular error", 3.0, 2.0, 4.0, ""),  # no column of the paper
    ("ARS w/ shuffled", "regular WER", 4.1, 3.0, 5.0, "control"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    rows = [
        dict(zip(("row", "column", "value", "low", "high", "note"), c, strict=True)) for c in CELLS
    ]
    frame = pd.DataFrame(rows).assign(
        table="4", n=20, unit="%", paper="", stage="table_04", notebook="07_effect_of_intp"
    )
    frame[CELL_COLUMNS].to_csv(tmp_path / "tables" / "table_04.csv", index=False)
    judged = frame.head(1).assign(table="5", column="regular Distill-MOS", value=2.0, low=1, high=4)
    judged[CELL_COLUMNS].to_csv(tmp_path / "tables" / "table_05.csv", index=False)
    texts = frame.head(2).assign(table="1b", row=["Regular", "Repeated"], column="Text", low="",
                                 high="", value="A panda.", note="back end rules")  # fmt: skip
    texts[CELL_COLUMNS].to_csv(tmp_path / "tables" / "table_01b.csv", index=False)
    return tmp_path


def test_every_cell_of_the_paper_s_tables_is_there_in_order(folder: Path):
    cells = beside(folder)
    names = ["table", "row", "column"]
    printed = paper_cells().query("table != 'text'")
    assert set(printed[names].itertuples(index=False)) <= set(cells[names].itertuples(index=False))
    assert list(cells["table"].unique()) == list(TITLES)
    both = cells.merge(printed, on=names)
    assert (both["paper"] == both["value"]).all() and len(both) == len(printed)


def test_marks_say_where_the_paper_s_figure_lies(folder: Path):
    cells = beside(folder).set_index(["table", "row", "column"])
    marks = cells.loc["4"]["mark"]
    assert marks["ARS", "regular WER"] == "inside"
    assert marks["ARS", "articulatory WER"] == "above"
    assert marks["ARS", "code-switching WER"] == "below"
    assert marks["F5-TTS", "regular WER"] == ""
    assert cells.loc[("1b", "Regular", "Text"), "mark"] == "differs"


def test_rows_of_ours_come_last_and_columns_of_ours_stay_away(folder: Path):
    table = beside(folder).query("table == '4'")
    assert table["row"].iloc[-1] == "ARS w/ shuffled" and table["note"].iloc[-1] == "control"
    assert "regular error" not in set(table["column"])


def test_what_listeners_said_stands_in_table_4_beside_the_error(folder: Path):
    heard = pd.read_csv(folder / "tables" / "table_04.csv").head(2)
    heard = heard.assign(row="ARS w/ INTP", column=["avg N-CMOS", "similarity win"], value=0.3)
    heard = heard.assign(table="figure_02", low=0.1, high=0.7, note="simulated; mini models")
    (folder / "figures").mkdir()
    heard.to_csv(folder / "figures" / "figure_02.csv", index=False)
    cells = beside(folder).set_index(["table", "row", "column"])
    cell = cells.loc[("4", "ARS w/ INTP", "avg N-CMOS")]
    assert (cell["here"], cell["mark"], cell["paper"]) == ("0.3", "inside", "0.64")
    assert cell["note"].startswith("simulated") and "similarity win" not in cells.loc["4"].index


def test_another_judge_s_scores_stand_in_the_paper_s_column_without_a_mark(folder: Path):
    cell = beside(folder).set_index(["table", "row", "column"]).loc[("5", "ARS", "regular UTMOS")]
    assert (cell["here"], cell["mark"]) == ("2.0", "") and "Distill-MOS" in cell["note"]


def test_every_format_has_every_table_and_its_origin(folder: Path, tmp_path: Path):
    cells = beside(folder)
    words, source = markdown(cells), latex(cells)
    assert words.count("\n## Table ") == source.count(r"\toprule") == len(TITLES)
    assert words.count("not made at this scale yet") == len(TITLES) - 3
    assert "stage table_04, notebook 07_effect_of_intp" in words
    assert r"notebook 07\_effect\_of\_intp" in source and "▲" not in source
    assert (
        "3.90 [3.00, 5.00] = (3.96)" in wide(cells.query("table == '4'")).loc["ARS", "regular WER"]
    )
    write_all(cells, tmp_path / "out")
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(first) == {"paper_tables.csv", "paper_tables.md", "paper_tables.tex"}
    write_all(beside(folder), tmp_path / "out")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_rows_of_a_markdown_table_have_as_many_cells(folder: Path):
    for block in markdown(beside(folder)).split("\n## ")[1:]:
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count(" | ") for line in lines if "---" not in line}) == 1, lines[0]
