"""The HTML report: every page is there, code folds away, and nothing is fetched from anywhere."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from report.guards import COLUMNS
from report.page import ReportError, build, equation
from report.show import audio_tag
from report.verdicts import LEDGER


def executed(folder: Path, stem: str) -> None:
    """A notebook as the runner leaves it: prose with TeX, code, a player."""
    shown = new_output("display_data", {"text/html": audio_tag(np.zeros(1600, np.float32))})
    cells = [
        new_markdown_cell(
            f"# Title of {stem}\n\nTwo $y^w$ and `code`.\n\n$$\\frac{{a}}{{b}} \\tag{{3}}$$"
        ),
        new_code_cell("listen(rows)", outputs=[shown]),
    ]
    nbformat.write(new_notebook(cells=cells), folder / f"{stem}.ipynb")


def ledger() -> pd.DataFrame:
    row = dict.fromkeys(LEDGER, "") | {"id": "C11", "claim": "a < b", "here": -6.4, "low": -11.4,
                                       "high": -1.5, "verdict": "reproduced"}  # fmt: skip
    return pd.DataFrame([row, row | {"id": "C12", "verdict": "undecided", "here": ""}])


def guard(change: float, alarm: str) -> dict:
    values = (
        "ARS w/ INTP",
        "avg",
        "SIM",
        "cosine",
        0.7,
        change,
        -0.1,
        -0.03,
        80,
        -0.02,
        1.0,
        alarm,
    )
    return dict(zip(COLUMNS, values, strict=True))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    for stem in ("01_first", "02_second"):
        executed(tmp_path, stem)
    ledger().to_csv(tmp_path / "claims.csv", index=False)
    pd.DataFrame([guard(-0.05, "alarm")]).to_csv(tmp_path / "guards.csv", index=False)
    return build("smoke", tmp_path, tmp_path)


def test_the_index_leads_to_every_page_and_counts_verdicts(report: Path):
    text = report.read_text("utf-8")
    links = set(re.findall(r'href="([^"]+)"', text))
    assert links == {f"{n}.html" for n in ("index", "01_first", "02_second", "speech_or_judge")}
    assert all((report.parent / link).is_file() for link in links)
    assert "Title of 01_first" in text and "a &lt; b" in text
    assert re.search(r">1 reproduced<.*>0 not reproduced<.*>1 undecided<", text)
    assert "-6.4 [-11.4, -1.5]" in text


def test_pages_work_from_disk(report: Path):
    for page in report.parent.glob("*.html"):
        text = page.read_text("utf-8")
        sources = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert all(s.startswith(("data:", "#")) or s.endswith(".html") for s in sources), page.name
        assert "<script" not in text and "url(" not in text, page.name


def test_a_notebook_s_page_has_its_player_its_equations_and_its_code_folded(report: Path):
    text = (report.parent / "01_first.html").read_text("utf-8")
    assert text.count("<audio controls") == 1
    assert text.count('class="math"') == 2 and text.count('<p class="equation">') == 1
    assert re.search(r"<details><summary>code</summary>.*listen.*</details>", text, re.DOTALL)
    assert "In [" not in text


def test_an_alarm_is_marked(report: Path):
    text = (report.parent / "speech_or_judge.html").read_text("utf-8")
    assert "<span class='alarm'>-0.050 [-0.100, -0.030] alarm</span>" in text
    assert "ARS w/ INTP: 1 of 1 ring" in text


def test_without_claims_and_guards_the_rest_is_there(tmp_path: Path):
    executed(tmp_path, "01_first")
    text = build("smoke", tmp_path, tmp_path / "nowhere").read_text("utf-8")
    assert "01_first.html" in text and "paper_tables" in text


def test_nothing_to_report_is_an_error(tmp_path: Path):
    with pytest.raises(ReportError, match="no executed notebook"):
        build("smoke", tmp_path, tmp_path)


def test_tex_that_cannot_be_drawn_stays_readable():
    assert equation(r"\unheard{x < y}", shown=False) == r"<code>\unheard{x &lt; y}</code>"
    assert equation(r"\lVert x \rVert", shown=False).startswith('<img class="math"')
