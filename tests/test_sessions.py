"""A listener at work: answers on disk, resuming, refusals; and the widget around it."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from listening_parts import prompts, small_plan

from intp.paths import DATA
from listening.design import Plan
from listening.schema import QUESTIONS, read_answers
from listening.session import (
    Session,
    SessionError,
    Sheet,
    correct,
    export,
    local_time,
    withdraw,
)
from listening.stimuli import load_clips
from listening.widget import ListeningWidget


@pytest.fixture(scope="module")
def plan() -> Plan:
    return small_plan(prompts())


def sheet(name: str = "fox-7") -> Sheet:
    return Sheet(name, "en, zh", "no complaints", "headphones", consent=True)


def answered(session: Session) -> str:
    """Answer the current item as a listener who is right about every check."""
    shown = session.current
    expected = correct(shown)
    reply = {"A": "A+2", "B": "B+2", "": QUESTIONS[shown.item.question].answers[0]}
    value = reply.get(expected, expected)
    session.answer(shown.position, value, [1] * len(shown.item.clips), 2.5)
    return value


def test_an_answer_is_on_disk_at_once_and_a_session_goes_on_where_it_stopped(
    plan: Plan, tmp_path: Path
):
    first = Session(plan, sheet(), tmp_path, now=lambda: "2026-01-01T10:00:00+01:00")
    given = [answered(first) for _ in range(5)]
    kept = read_answers(first.path)
    assert list(kept["answer"]) == given
    assert list(kept["item"]) == [p.item.id for p in first.presentations[:5]]
    with pytest.raises(SessionError, match="fox-7 is already listening in another window"):
        Session(plan, sheet(), tmp_path)
    first.close()
    with first.path.open("a") as file:
        file.write("half a li")  # the machine went down
    again = Session(plan, sheet(), tmp_path)
    assert again.done == 5 and again.presentations == first.presentations
    answered(again)
    assert len(read_answers(again.path)) == 6


@pytest.mark.parametrize("left", ["", "test,kind,liste"])
def test_a_crash_before_the_first_answer_was_down_costs_no_header(
    left: str, plan: Plan, tmp_path: Path
):
    first = Session(plan, sheet(), tmp_path)
    first.close()
    first.path.write_text(left)
    again = Session(plan, sheet(), tmp_path)
    given = [answered(again) for _ in range(2)]
    again.close()
    assert list(read_answers(again.path)["answer"]) == given
    assert Session(plan, sheet(), tmp_path).done == 2


def test_what_cannot_be_an_answer_is_refused_and_nothing_is_written(plan: Plan, tmp_path: Path):
    session = Session(plan, sheet(), tmp_path)
    with pytest.raises(SessionError, match="listen to every clip"):
        session.answer(0, "No Error", [0], 1.0)
    with pytest.raises(SessionError, match="item 3 is not the one"):
        session.answer(3, "No Error", [1], 1.0)
    with pytest.raises(SessionError, match="'A\\+2' is no answer"):
        session.answer(0, "A+2", [1], 1.0)
    assert session.done == 0 and not session.path.exists()
    session.close()


def test_sheets_without_consent_or_with_a_name_in_them_are_refused():
    with pytest.raises(SessionError, match="without consent"):
        Sheet("fox-7", "en", "", "", consent=False)
    with pytest.raises(SessionError, match="pseudonym"):
        Sheet("Jane Doe", "en", "", "", consent=True)


def test_places_are_given_once_and_a_listener_can_withdraw(plan: Plan, tmp_path: Path):
    small = replace(plan, listeners=3)
    sessions = [Session(small, sheet(f"fox-{k}"), tmp_path) for k in range(3)]
    with pytest.raises(SessionError, match="all 3 places"):
        Session(small, sheet("late"), tmp_path)
    for session in sessions:
        answered(session)
        session.close()
    table = export(small, tmp_path, tmp_path / "out" / "annotations.csv")
    assert set(table["listener"]) == {"fox-0", "fox-1", "fox-2"}
    assert withdraw(small, tmp_path, "fox-1") == 3
    assert set(read_answers(tmp_path / small.id)["listener"]) == {"fox-0", "fox-2"}
    assert Session(small, sheet("late"), tmp_path).presentations == small.session(1)


def test_two_sheets_submitted_at_once_get_two_places(plan: Plan, tmp_path: Path):
    other = Thread(target=lambda: Session(plan, sheet("fox-2"), tmp_path))

    def meanwhile() -> str:
        """The time, asked for after the look for a free place and before it is taken."""
        other.start()
        other.join(0.5)
        return local_time()

    Session(plan, sheet("fox-1"), tmp_path, now=meanwhile)
    other.join()
    sheets = [(tmp_path / plan.id / f"fox-{k}.json").read_text() for k in (1, 2)]
    assert [json.loads(text)["slot"] for text in sheets] == [0, 1]


# Widget (tests/test_browser.py drives it in Chromium)


@pytest.fixture
def widget(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ListeningWidget:
    """A widget whose messages are kept in `sent`, for a listener who has filled in the sheet."""
    made = ListeningWidget(plan, lambda n: load_clips(n, {}, [DATA / "corpus"]), tmp_path)
    made.sent = []
    monkeypatch.setattr(made, "send", lambda content, buffers=None: made.sent.append(buffers))
    tell(made, "sheet", listener="fox-7", languages="", hearing="", device="", consent=True)
    return made


def tell(widget: ListeningWidget, kind: str, **content: object) -> None:
    widget._received(widget, {"type": kind, **content}, [])


def test_the_page_gets_sound_and_texts_but_no_names(widget: ListeningWidget, plan: Plan):
    assert widget.page["kind"] == "volume" and len(widget.sent[-1]) == 1
    tell(widget, "next")
    page, item = widget.page, widget.session.current.item
    assert page["kind"] == "item" and page["text"] == item.text
    assert page["question"] == "Is any reading error? (insertion, omission, or mispronunciation)"
    assert widget.sent[-1][0][:4] == b"RIFF"
    shown = str({k: v for k, v in page.items() if k != "text"})
    names = {name for i in plan.items for name in (i.id, i.pair, i.first, i.second)}
    names |= {i.stratum for i in plan.items if i.role == "main"}
    assert not [name for name in names if name and name in shown]


def test_answers_are_taken_once_and_refusals_change_nothing(widget: ListeningWidget):
    tell(widget, "next")
    given = {"answer": "No Error", "seconds": 2.0}
    tell(widget, "answer", position=0, plays=[0], **given)
    assert "listen to every clip" in widget.page["message"] and widget.session.done == 0
    tell(widget, "answer", position=0, plays=[1], **given)
    assert widget.page["right"] and widget.page["feedback"] == "No Error"
    tell(widget, "answer", position=0, plays=[1], **given)
    assert "item 0 is not the one" in widget.page["message"] and widget.session.done == 1
    tell(widget, "next")
    tell(widget, "answer", position=1, plays=[1], **given)
    assert not widget.page["right"] and widget.page["feedback"] == "Has Error"


def test_a_cell_that_runs_again_takes_the_listener_over(widget: ListeningWidget, plan: Plan):
    tell(widget, "next")
    tell(widget, "answer", position=0, plays=[1], answer="No Error", seconds=1.0)
    again = ListeningWidget(plan, widget.load, widget.folder)
    tell(again, "sheet", listener="fox-7", languages="", hearing="", device="", consent=True)
    assert again.page["resumed"] == 1 and again.session.current.position == 1


def test_there_is_a_break_and_an_end(widget: ListeningWidget, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("listening.widget.BREAK_AFTER", 10)
    kinds = []
    tell(widget, "next")
    while widget.page["kind"] != "done":
        kinds.append(widget.page["kind"])
        if kinds[-1] == "break" or "feedback" in widget.page:
            tell(widget, "next")
            continue
        shown = widget.session.current
        value = {"reading": "No Error"}.get(shown.item.question, "Tie")
        plays = [1] * len(shown.item.clips)
        tell(widget, "answer", position=shown.position, plays=plays, answer=value, seconds=1.0)
        assert widget.page["message"] == ""
    total = len(widget.session.presentations)
    assert kinds.count("break") == (total - 1) // 10
    assert len(read_answers(widget.session.path)) == total == widget.page["total"]
