"""One listener at work: what comes next, what was answered; every answer is on disk at once."""

import csv
import fcntl
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from intp.files import whole
from intp.paths import ROOT
from listening.design import Plan, Presentation
from listening.schema import COLUMNS, QUESTIONS, Answer, check_answers, read_answers

ANNOTATIONS = ROOT / "annotations"  # in git: one table a scale, pseudonyms only
SESSIONS = ROOT / "sessions"  # not in git
PSEUDONYM = re.compile(r"[a-z0-9][a-z0-9-]{1,30}")


class SessionError(RuntimeError):
    """A listener or an answer that cannot be taken; the message says why."""


@dataclass(frozen=True)
class Sheet:
    """What is asked of a listener. `listener` is a pseudonym; no other personal data is kept."""

    listener: str
    languages: str
    hearing: str
    device: str
    consent: bool

    def __post_init__(self) -> None:
        if not PSEUDONYM.fullmatch(self.listener):
            raise SessionError("the pseudonym: 2 to 31 of a-z, 0-9 and hyphens, please")
        if not self.consent:
            raise SessionError("without consent nothing is recorded")


def local_time() -> str:
    """Now, with the zone."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


class Session:
    """The answers of one listener to one test, in `folder`/<test>/<listener>.csv.

    A listener who comes back goes on at the first item without an answer. Raises SessionError if
    the test is full or another process holds this listener's file.
    """

    def __init__(
        self, plan: Plan, sheet: Sheet, folder: Path, now: Callable[[], str] = local_time
    ) -> None:
        self.plan, self.sheet, self.now = plan, sheet, now
        self.folder = folder / plan.id
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"{sheet.listener}.csv"
        self.lock = (self.folder / f"{sheet.listener}.lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise SessionError(f"{sheet.listener} is already listening in another window") from None
        self.presentations = plan.session(self._slot())
        self.done = self._answered()

    def _slot(self) -> int:
        """The listener's own slot, or the first free one; kept beside the answers."""
        path = self.folder / f"{self.sheet.listener}.json"
        if path.is_file():
            return json.loads(path.read_text("utf-8"))["slot"]
        # Of two sheets submitted at once, one looks after the other has its place. No pseudonym
        # begins with a dot.
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._claim(path)

    def _claim(self, path: Path) -> int:
        """Write the sheet with the first free slot to `path`; raises SessionError if none is."""
        taken = {json.loads(p.read_text("utf-8"))["slot"] for p in self.folder.glob("*.json")}
        free = [slot for slot in range(self.plan.listeners) if slot not in taken]
        if not free:
            raise SessionError(f"all {self.plan.listeners} places of this test are taken")
        values = asdict(self.sheet) | {"slot": free[0], "began": self.now(), "test": self.plan.id}
        with whole(path) as partial:
            partial.write_text(json.dumps(values, ensure_ascii=False), "utf-8")
        return free[0]

    def _answered(self) -> int:
        """How many answers the file holds; a last line that was cut off by a crash is removed."""
        if not self.path.is_file():
            return 0
        text = self.path.read_text("utf-8")
        if not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            with whole(self.path) as partial:
                partial.write_text(text, "utf-8")
        return max(0, len(text.splitlines()) - 1)

    @property
    def current(self) -> Presentation | None:
        """What is to be judged now; None at the end."""
        return self.presentations[self.done] if self.done < len(self.presentations) else None

    def answer(self, position: int, answer: str, plays: list[int], seconds: float) -> Answer:
        """Take the answer to the item at `position` and write it down before anything else.

        `plays`: how often each of the item's clips was heard to its end. Raises SessionError for an
        item that is not the current one, an answer that it does not have, or a clip not heard.
        """
        shown = self.current
        if shown is None or shown.position != position:
            raise SessionError(f"item {position} is not the one to be answered now")
        item = shown.item
        if answer not in QUESTIONS[item.question].answers:
            raise SessionError(f"{answer!r} is no answer to this question")
        if len(plays) != len(item.clips) or min(plays) < 1:
            raise SessionError("listen to every clip to its end first")
        a, b = shown.shown
        row = Answer(
            self.plan.id, "human", self.sheet.listener, item.id, item.pair, item.question,
            item.role, answer, a, b, position, sum(plays), round(seconds, 2), self.now(),
        )  # fmt: skip
        self._append(row)
        self.done += 1
        return row

    def _append(self, row: Answer) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if file.tell() == 0:  # new, or left empty by a crash
                writer.writeheader()
            writer.writerow(asdict(row))
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Let another window go on for this listener."""
        self.lock.close()


def correct(shown: Presentation) -> str:
    """The expected answer of a check as this listener sees it, for the training page."""
    expected = shown.item.expected
    return ("B" if shown.swapped else "A") if expected == "first" else expected


def export(plan: Plan, folder: Path, path: Path) -> pd.DataFrame:
    """All answers to a test as one annotation table at `path` (CSV), checked and whole.

    Raises FileNotFoundError if nobody answered, AnnotationError for a table that is not sound.
    """
    answers = read_answers(folder / plan.id)
    with whole(path) as partial:
        answers.to_csv(partial, index=False, lineterminator="\n")
    return check_answers(answers, str(path))


def withdraw(plan: Plan, folder: Path, listener: str) -> int:
    """Delete a listener's answers and sheet; returns how many files that were."""
    files = [folder / plan.id / f"{listener}{end}" for end in (".csv", ".json", ".lock")]
    found = [file for file in files if file.is_file()]
    for file in found:
        file.unlink()
    return len(found)
