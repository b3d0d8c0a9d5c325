"""The listening test in JupyterLab, as in Figures 3 and 4: an anywidget around a session.

The page is served by the kernel alone: it gets numbers, texts and sound, never the name of a clip,
a model or a label, and asks nobody on the network.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import soundfile
import traitlets

from intp.audio import SAMPLE_RATE
from listening.design import Plan, Presentation
from listening.schema import QUESTIONS
from listening.session import Session, SessionError, Sheet, correct
from listening.stimuli import StimulusError, matched

HERE = Path(__file__).parent
BREAK_AFTER = 40  # items, about twenty minutes
Loader = Callable[[list[str]], Mapping[str, np.ndarray]]

_open: dict[Path, Session] = {}  # of this kernel; a cell that runs again takes its listener over


class ListeningWidget(anywidget.AnyWidget):
    """Sheet, volume check, training, items with breaks, and an end; see docs/listening.md.

    `page` is what is shown; sound reaches it as WAV files beside a message.
    """

    _esm = HERE / "widget.js"
    _css = HERE / "widget.css"
    page = traitlets.Dict().tag(sync=True)

    def __init__(self, plan: Plan, load: Loader, folder: Path, **settings: Any) -> None:
        """`load` gives samples [N] at 16 kHz of named clips; answers go to `folder`."""
        super().__init__(**settings)
        self.plan, self.load, self.folder = plan, load, folder
        self.session: Session | None = None
        self.sounds: dict[str, bytes] = {}
        self.clips: list[str] = []
        self.rested = 0
        self.page = {"kind": "sheet", "message": "", "serial": 0}
        self.on_msg(self._received)

    def _received(self, _: object, content: dict[str, Any], __: object) -> None:
        """A message of the page; what cannot be taken is said on the page and changes nothing."""
        actions = {"sheet": self._begin, "next": self._show, "answer": self._answer}
        actions["again"] = self._again
        try:
            actions[content["type"]](content)
        except (SessionError, StimulusError) as error:
            self.page = self.page | {"message": str(error)}

    def _begin(self, content: dict[str, Any]) -> None:
        """A filled-in sheet: open the session, make ready every clip, check the volume.

        A clip that cannot be played as loud as the others is refused here, before anything is heard.
        """
        sheet = Sheet(**{name: content[name] for name in Sheet.__dataclass_fields__})
        path = self.folder / self.plan.id / f"{sheet.listener}.csv"
        if path in _open:
            _open.pop(path).close()
        self.session = _open[path] = Session(self.plan, sheet, self.folder)
        self.rested = self.session.done
        names = {name for p in self.session.presentations for name in p.item.clips}
        self.sounds = {n: wav(matched(x, n)) for n, x in self.load(sorted(names)).items()}
        voice = next(i.first for i in self.plan.items if i.role == "training")
        self._page({"kind": "volume", "resumed": self.session.done}, [voice])

    def _show(self, _: dict[str, Any]) -> None:
        """The next item, a break, or the end."""
        session = self.session
        if session is None:
            raise SessionError("fill in the sheet first")
        shown, total = session.current, len(session.presentations)
        if shown is None:
            self._page({"kind": "done", "total": total}, [])
        elif session.done - self.rested >= BREAK_AFTER:
            self.rested = session.done
            self._page({"kind": "break", "done": session.done, "total": total}, [])
        else:
            self._page(page_of(shown, total), clips_of(shown))

    def _answer(self, content: dict[str, Any]) -> None:
        """An answer: write it down, then say what was right (training) or go on."""
        if self.session is None or self.session.current is None:
            raise SessionError("there is nothing to be answered")
        shown, answer = self.session.current, content["answer"]
        plays = [int(count) for count in content["plays"]]
        self.session.answer(int(content["position"]), answer, plays, float(content["seconds"]))
        if shown.item.role != "training":
            self._show({})
            return
        expected = correct(shown)
        right = answer == expected or answer.partition("+")[0] == expected
        said = f"{expected} sounds better" if expected in ("A", "B") else expected
        self.page = self.page | {"feedback": said, "right": right, "message": ""}

    def _page(self, page: dict[str, Any], clips: list[str]) -> None:
        """Show a page with its clips; they go first, under the page's number."""
        self.clips, serial = clips, self.page["serial"] + 1
        self._send_sound(serial)
        self.page = page | {"message": "", "serial": serial}

    def _again(self, _: dict[str, Any]) -> None:
        """A reloaded page still knows what it showed, but has lost the sound."""
        self._send_sound(self.page["serial"])

    def _send_sound(self, serial: int) -> None:
        self.send({"serial": serial}, [self.sounds[name] for name in self.clips])


def page_of(shown: Presentation, total: int) -> dict[str, Any]:
    """What the page may know of an item: no name, model, label or expected answer."""
    question = QUESTIONS[shown.item.question]
    return {
        "kind": "item",
        "training": shown.item.role == "training",
        "position": shown.position,
        "total": total,
        "interface": question.interface,
        "question": question.text,
        "criteria": [[answer, text] for answer, text in question.criteria.items()],
        "text": shown.item.text if shown.item.question == "reading" else "",
        "clips": labels_of(shown),
    }


def labels_of(shown: Presentation) -> list[str]:
    """What the players are called, in the order of `clips_of`."""
    if shown.item.question == "reading":
        return ["Speech"]
    return ["Reference", "A", "B"] if shown.item.reference else ["A", "B"]


def clips_of(shown: Presentation) -> list[str]:
    """The clips in the order in which they are offered."""
    reference = [shown.item.reference] if shown.item.reference else []
    return reference + [clip for clip in shown.shown if clip]


def wav(samples: np.ndarray) -> bytes:
    """Samples [N] as a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
