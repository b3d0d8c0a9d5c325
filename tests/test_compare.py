"""Committed and recomputed tables, cell by cell."""

import pandas as pd

from tools.compare import compare

COLUMNS = ["row", "column", "value", "low", "high", "unit"]


def test_each_cell_gets_its_verdict():
    old = pd.DataFrame(
        [
            ("ARS", "same", 1.0, 0.0, 2.0, "%"),
            ("ARS", "inside", 1.0, 0.0, 2.0, "%"),
            ("ARS", "outside", 1.0, 0.0, 2.0, "%"),
            ("ARS", "gone", 1.0, 0.0, 2.0, "%"),
            ("ARS", "count", 7.0, None, None, "pairs"),
            ("ARS", "empty", None, None, None, "%"),
        ],
        columns=COLUMNS,
    )
    new = old[old["column"] != "gone"].copy()
    new["value"] = [1.0, 1.9, 2.1, 8.0, None]
    new.loc[99] = ("ARS", "more", 3.0, 2.0, 4.0, "%")
    verdicts = compare(old, new).set_index("column")["verdict"].to_dict()
    assert verdicts == {
        "same": "same",
        "inside": "inside",
        "outside": "OUTSIDE",
        "gone": "MISSING",
        "count": "OUTSIDE",
        "empty": "same",
        "more": "new",
    }


def test_a_table_that_was_not_made_is_missing_whole():
    old = pd.DataFrame([("ARS", "WER", 1.0, 0.0, 2.0, "%")], columns=COLUMNS)
    assert list(compare(old, old.head(0))["verdict"]) == ["MISSING"]


def test_texts_are_the_same_or_outside():
    old = pd.DataFrame([("Regular", "Text", "a", None, None, "text"),
                        ("Repeated", "Text", "b b", None, None, "text")], columns=COLUMNS)  # fmt: skip
    new = old.assign(value=["a", "b"])
    assert list(compare(old, new)["verdict"]) == ["same", "OUTSIDE"]
