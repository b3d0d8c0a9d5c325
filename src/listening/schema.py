"""What a listening test asks and what it writes down: one row an answer (docs/listening.md)."""

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

KINDS = ("human", "simulated")
ROLES = ("main", "gold", "trap", "training")


class AnnotationError(ValueError):
    """An annotation table that cannot be used; the message names file, row and field."""


@dataclass(frozen=True)
class Question:
    """One of the paper's questions: what is asked, and the answers with their criteria."""

    interface: str
    text: str
    criteria: dict[str, str]
    clips: int

    @property
    def answers(self) -> list[str]:
        """The answers in the order in which they are shown."""
        return list(self.criteria)


def _comparison(quality: str) -> dict[str, str]:
    return {
        "A+2": f"A +2 (Sample A is much more {quality})",
        "A+1": f"A +1 (Sample A is slightly more {quality})",
        "Tie": f"Tie (Both are equally {quality})",
        "B+1": f"B +1 (Sample B is slightly more {quality})",
        "B+2": f"B +2 (Sample B is much more {quality})",
    }


QUESTIONS = {  # Appendix F.3, word for word
    "reading": Question(
        "Users listen to the speech audio and compare it to the provided target text to assess "
        "whether the speech matches the text.",
        "Is any reading error? (insertion, omission, or mispronunciation)",
        {
            "No Error": "No Error (the speech matches the text)",
            "Has Error": "Has Error (the speech does not match the text)",
        },
        clips=1,
    ),
    "naturalness": Question(
        "Users listen to two speech samples, A and B, to compare their naturalness.",
        "Which speech sounds more natural?",
        _comparison("natural"),
        clips=2,
    ),
    "similarity": Question(
        "Users listen to two speech samples, A and B, to evaluate their similarity to the speech "
        "of the reference speaker.",
        "Which speech sounds more like the reference speaker’s style?",
        _comparison("similar"),
        clips=2,
    ),
}
SCORES = {"A+2": 2, "A+1": 1, "Tie": 0, "B+1": -1, "B+2": -2}  # for what was played as A


@dataclass(frozen=True)
class Answer:
    """One row of an annotation table."""

    test: str
    kind: str
    listener: str
    item: str
    pair: str
    question: str
    role: str
    answer: str
    shown_a: str
    shown_b: str
    position: int
    plays: int
    seconds: float
    time: str


COLUMNS = [field.name for field in fields(Answer)]
NUMBERS = [field.name for field in fields(Answer) if field.type in (int, float)]


def read_answers(path: Path) -> pd.DataFrame:
    """Answers of a CSV or Parquet file, or of every such file in a folder, checked.

    Raises AnnotationError naming file, row and field; FileNotFoundError if there is none.
    """
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".csv", ".parquet"))
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{path}: no annotation table")
    frames = []
    for file in files:
        if file.suffix == ".parquet":
            frame = pd.read_parquet(file)
        elif not file.stat().st_size:
            raise AnnotationError(f"{file}: empty, nobody answered; delete it")
        else:
            frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        frames.append(check_answers(frame, str(file)))
    return check_answers(pd.concat(frames, ignore_index=True), str(path))


def check_answers(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The answers with their columns in order and numbers as numbers.

    Raises AnnotationError: missing or unknown columns, a value that a field cannot have, an item
    answered twice by one listener, two tests in one table, or human beside simulated answers.
    """
    missing, surplus = (sorted(a - b) for a, b in _both_ways(set(COLUMNS), set(frame)))
    if missing or surplus:
        raise AnnotationError(f"{name}: missing fields {missing}, unknown fields {surplus}")
    frame = frame[COLUMNS].copy()
    for field in NUMBERS:
        frame[field] = pd.to_numeric(frame[field], errors="coerce")
        _refuse(name, frame, field, ~(frame[field] >= 0), "expected a number of at least 0")
    for field, allowed in (("kind", KINDS), ("role", ROLES), ("question", tuple(QUESTIONS))):
        wrong = ~frame[field].isin(allowed)
        _refuse(name, frame, field, wrong, f"expected one of {', '.join(allowed)}")
    for field in ("test", "listener", "item", "pair", "shown_a"):
        _refuse(name, frame, field, frame[field].eq(""), "expected a name")
    for question, rows in frame.groupby("question"):
        allowed = QUESTIONS[question].answers
        wrong = ~rows["answer"].isin(allowed)
        _refuse(name, rows, "answer", wrong, f"expected one of {', '.join(allowed)}")
    when = pd.to_datetime(frame["time"], errors="coerce", utc=True, format="ISO8601")
    timed = when.notna() & frame["time"].str.contains(r"(?:Z|[+-]\d\d:\d\d)$")
    wrong = ~timed & frame["kind"].eq("human")
    _refuse(name, frame, "time", wrong, "expected an ISO time with its zone")
    twice = frame.duplicated(["listener", "item"])
    _refuse(name, frame, "item", twice, "answered twice by this listener")
    if len(kinds := sorted(frame["kind"].unique())) > 1:
        raise AnnotationError(f"{name}: field kind: {' and '.join(kinds)} answers are never mixed")
    if len(tests := sorted(frame["test"].unique())) > 1:
        raise AnnotationError(f"{name}: field test: answers to different tests {tests}")
    return frame


def _both_ways(a: set[str], b: set[str]) -> list[tuple[set[str], set[str]]]:
    return [(a, b), (b, a)]


def _refuse(name: str, frame: pd.DataFrame, field: str, wrong: pd.Series, expected: str) -> None:
    if wrong.any():
        row = frame.index[wrong][0]
        found = frame.loc[row, field]
        raise AnnotationError(f"{name}: row {row + 1}: field {field}: {expected}, found {found!r}")
