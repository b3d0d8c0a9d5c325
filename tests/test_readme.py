"""The README's block comes from the files, and the commands beside its rows exist."""

import pandas as pd
import pytest

from intp.params import load_params
from intp.paths import results
from report import readme
from report.readme import BEGIN, END, README, ReadmeError, block, command, renewed, verdicts
from tools.deps import stages


def test_the_block_is_current():
    text = README.read_text("utf-8")
    assert renewed(text, block()) == text, "run `python -m report.readme`"


def test_every_row_s_command_names_a_stage_and_a_member_of_its_matrix():
    params, live = load_params(readme.committed()), stages()
    rows = pd.read_csv(results(params.scale) / "tables" / "table_04.csv")["row"].unique()
    for row in rows:
        words = command(row, params).split()
        stage, _, member = words[-1].partition("@")
        assert words[:-1] == ["dvc", "repro"] and stage in live, row
        (axis,) = live[stage]["matrix"].values()
        model = stage.partition("_")[2]
        assert member in (params.runs[model] if isinstance(axis, str) else axis), row


def test_verdicts_are_counted():
    claims = pd.DataFrame({"id": ["C01", "C02", "C03"], "verdict": ["reproduced", "undecided", "undecided"],
                           "paper_supports": ["yes", "partly", "yes"]})  # fmt: skip
    said = verdicts(claims, "mini")
    assert "3 claims" in said and "1 *reproduced* (C01), 0 *not reproduced*, 2 *undecided*" in said
    assert "support 2." in said


def test_only_what_is_between_the_marks_changes():
    before = f"a\n{BEGIN}\nold\n{END}\nb\n"
    after = renewed(before, r"new \1")
    assert after == f"a\n{BEGIN}\nnew \\1\n{END}\nb\n"
    assert renewed(after, r"new \1") == after


@pytest.mark.parametrize("text", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_marks_that_are_not_there_are_named(text: str):
    with pytest.raises(ReadmeError, match="python -m report.readme"):
        renewed(text, "new")
