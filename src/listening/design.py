"""Who hears what, in which order and on which side: all of it decided by a seed (Appendix F.3).

Every item is rated equally often, by different listeners; every listener hears each stratum (model
and direction) equally often and the preferred clip as A in half of the comparisons.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from intp.files import whole
from intp.params import Listening
from listening.schema import QUESTIONS

PER_SETTING = 10  # items a set and direction before and after alignment (F.3)
EACH = 2  # recordings of each language that the checks of one question are made of
RECORDING, BROKEN = "recording:", "broken:"  # before the id of a recording: as it is, or spoilt


class DesignError(ValueError):
    """A test that cannot be held; the message says what is wrong with it."""


@dataclass(frozen=True)
class Item:
    """One thing to be judged. `first` is what the label prefers (chosen, after), `second` the other;
    a reading item has only `first`, which its `label` says is chosen or rejected. `expected`: the
    right answer of a check, "first" if whichever side plays `first` must win.
    """

    id: str
    question: str
    role: str
    pair: str
    stratum: str
    lang: str
    text: str
    first: str
    label: str = ""
    second: str = ""
    reference: str = ""
    expected: str = ""

    @property
    def clips(self) -> list[str]:
        """Every clip that is heard, the reference last."""
        return [clip for clip in (self.first, self.second, self.reference) if clip]


@dataclass(frozen=True)
class Presentation:
    """An item as one listener meets it; `swapped` if `first` is played as B."""

    item: Item
    position: int
    swapped: bool

    @property
    def shown(self) -> tuple[str, str]:
        """The clips played as A and as B ("" where there is only one)."""
        pair = (self.item.first, self.item.second)
        return pair[::-1] if self.swapped else pair


@dataclass(frozen=True)
class Plan:
    """A listening test: its items and how many listeners rate each."""

    items: tuple[Item, ...]
    listeners: int
    ratings: int
    seed: int

    @property
    def id(self) -> str:
        """A hash of everything that decides what is heard; it stands in every answer."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    def session(self, slot: int) -> list[Presentation]:
        """What the listener in `slot` (0 … listeners - 1) hears, in order.

        Question by question: training first, then main items and checks in random order. Raises
        DesignError for a slot that does not exist.
        """
        if not 0 <= slot < self.listeners:
            raise DesignError(f"slot {slot}: the test has slots 0 to {self.listeners - 1}")
        order: list[tuple[Item, bool]] = []
        for number, question in enumerate(QUESTIONS):
            mine = [i for i in self.items if i.question == question]
            generator = np.random.default_rng([self.seed, slot, number])
            training = [(i, k % 2 == 1) for k, i in enumerate(mine) if i.role == "training"]
            rest = [i for i in mine if i.role in ("gold", "trap")]
            rest += [i for i, raters in self._raters(question) if slot in raters]
            sides = [(item, (k + slot) % 2 == 1) for k, item in enumerate(rest)]
            order += [*training, *(sides[k] for k in generator.permutation(len(sides)))]
        return [
            Presentation(item, position, swapped and bool(item.second))
            for position, (item, swapped) in enumerate(order)
        ]

    def _raters(self, question: str) -> Iterator[tuple[Item, set[int]]]:
        """Every main item of a question with the slots that rate it, in turn.

        Stratum by stratum and label by label, so that nobody hears the rejected clips alone.
        """
        main = [i for i in self.items if (i.question, i.role) == (question, "main")]
        for n, item in enumerate(sorted(main, key=lambda item: (item.stratum, item.label))):
            yield item, {(n * self.ratings + k) % self.listeners for k in range(self.ratings)}

    def frame(self) -> pd.DataFrame:
        """One row an item."""
        return pd.DataFrame([asdict(item) for item in self.items])

    def summary(self) -> pd.DataFrame:
        """What is asked of whom, by question, and how sharp a share can become at best: half the
        95 % interval of 50 %, in points, if all answers were independent (they are not quite).
        """
        main = self.frame().query("role == 'main'")["question"].value_counts()
        main = main.reindex([q for q in QUESTIONS if q in main.index])
        answers = main * self.ratings
        return pd.DataFrame(
            {"items": main, "answers": answers, "a listener": (answers / self.listeners).round(1),
             "± points": (98 / np.sqrt(answers)).round(1)}
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the test as JSON, whole."""
        with whole(path) as partial:
            partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), "utf-8")

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read what `save` wrote."""
        values = json.loads(path.read_text("utf-8"))
        return cls(**values | {"items": tuple(Item(**item) for item in values["items"])})


def build_plan(
    pairs: pd.DataFrame,
    prompts: pd.DataFrame,
    sizes: Listening,
    seed: int,
    similarity: bool = False,
) -> Plan:
    """The test of Sections 3.4 and A.4 on mined pairs of regular text, with its checks.

    `pairs` and `prompts` as docs/intp-schema.md has them. Reading: both clips of intra pairs
    (Table 3). Naturalness: pairs of any kind but perturbed (Tables 7 and 8). `similarity` asks of
    the same pairs which sounds more like the reference. Fewer pairs than asked for are all heard.
    Raises DesignError without pairs, with fewer listeners than ratings or too few references.
    """
    if sizes.ratings > sizes.listeners:
        raise DesignError(f"{sizes.ratings} ratings of an item need as many listeners")
    regular = pairs[pairs["text_type"].eq("regular") & pairs["kind"].isin(["intra", "inter"])]
    if regular.empty:
        raise DesignError("no intra or inter pairs of regular text to listen to")
    reading = spread(regular[regular["kind"] == "intra"], sizes.reading_pairs, seed)
    compared = spread(regular, sizes.preference_pairs, seed + 1)
    texts = prompts.set_index("id")
    items: list[Item] = []
    for row in reading.itertuples():
        about = _about(row, texts)
        for label, clip in (("chosen", row.chosen), ("rejected", row.rejected)):
            name = f"reading-{label}-{row.pair}"
            items.append(Item(name, "reading", first=clip, label=label, **about))
    for row in compared.itertuples():
        both = _about(row, texts) | {"first": row.chosen, "second": row.rejected}
        items.append(Item(f"naturalness-{row.pair}", "naturalness", **both))
        if similarity:
            voice = RECORDING + texts.loc[row.prompt, "reference"]
            items.append(Item(f"similarity-{row.pair}", "similarity", reference=voice, **both))
    asked = [q for q in QUESTIONS if any(item.question == q for item in items)]
    items += [item for q in asked for item in checks(q, prompts, seed)]
    return Plan(tuple(items), sizes.listeners, sizes.ratings, seed)


def build_before_after(
    frame: pd.DataFrame, model: str, run: str, sizes: Listening, seed: int
) -> Plan:
    """The test of F.3: ten evaluation prompts of each set and direction, aligned against not.

    `frame` has evaluation prompts; clips are called as `listening.aligned` calls them. All three
    questions are asked of every prompt; `first` is the aligned model's answer. Raises DesignError.
    """
    if sizes.ratings > sizes.listeners:
        raise DesignError(f"{sizes.ratings} ratings of an item need as many listeners")
    items: list[Item] = []
    for row in picked(frame).itertuples():
        after, before = (f"{model}-{name}-{row.id}" for name in (run, "base"))
        about = {
            "role": "main", "pair": row.id, "stratum": f"{model} {row.set}|{row.direction}",
            "lang": row.target_lang, "text": row.target_text,
        }  # fmt: skip
        for label, clip in (("after", after), ("before", before)):
            items.append(Item(f"reading-{clip}", "reading", first=clip, label=label, **about))
        both = about | {"first": after, "second": before}
        items.append(Item(f"naturalness-{after}", "naturalness", **both))
        voice = RECORDING + row.reference
        items.append(Item(f"similarity-{after}", "similarity", reference=voice, **both))
    items += [item for question in QUESTIONS for item in checks(question, frame, seed)]
    return Plan(tuple(items), sizes.listeners, sizes.ratings, seed)


def picked(frame: pd.DataFrame) -> pd.DataFrame:
    """The first ten rows of each set and direction (F.3)."""
    return frame.groupby(["set", "direction"], sort=False).head(PER_SETTING)


def _about(row: tuple, texts: pd.DataFrame) -> dict[str, str]:
    prompt = texts.loc[row.prompt]
    return {
        "role": "main", "pair": row.pair, "stratum": f"{row.chosen_model} {row.direction}",
        "lang": prompt["target_lang"], "text": prompt["target_text"],
    }  # fmt: skip


def spread(pairs: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """At most `number` random pairs, of every model and direction as equally many as there are."""
    mixed = pairs.sample(frac=1, random_state=seed)
    turn = mixed.groupby(["chosen_model", "direction"]).cumcount()
    return mixed.iloc[np.argsort(turn, kind="stable")].head(number).sort_index()


def checks(question: str, prompts: pd.DataFrame, seed: int) -> list[Item]:
    """Training, gold and trap items of a question, made of reference recordings.

    A recording against a spoilt one has a known winner, a recording beside itself is a tie, and a
    recording beside another one's text is misread.
    """
    kept = prompts.drop_duplicates("reference").drop_duplicates("prompt_text")
    kept = kept.sort_values(["prompt_lang", "reference"])
    few = kept["prompt_lang"].value_counts().reindex(["en", "zh"], fill_value=0)
    if few.min() < EACH:
        raise DesignError(f"checks need {EACH} references a language, found {few.to_dict()}")
    number = list(QUESTIONS).index(question)
    kept = kept.groupby("prompt_lang").sample(n=EACH, random_state=seed + 10 + number)
    one, two, three, four = kept.itertuples()
    if question == "reading":
        plan = [
            ("training", one, RECORDING, one.prompt_text, "No Error"),
            ("training", two, RECORDING, one.prompt_text, "Has Error"),
            ("gold", three, RECORDING, three.prompt_text, "No Error"),
            ("gold", four, RECORDING, three.prompt_text, "Has Error"),
            ("trap", two, BROKEN, two.prompt_text, "Has Error"),
        ]
        return [
            _check(question, k, role, row, text, expected, first=state + row.reference)
            for k, (role, row, state, text, expected) in enumerate(plan)
        ]
    voice = {"reference": ""} if question == "naturalness" else {}
    comparisons: Sequence[tuple[str, tuple, str, str]] = [
        ("training", one, BROKEN + one.reference, "first"),
        ("training", two, RECORDING + two.reference, "Tie"),
        ("gold", three, BROKEN + three.reference, "first"),
        ("gold", four, BROKEN + four.reference, "first"),
        ("trap", one, RECORDING + one.reference, "Tie"),
    ]
    return [
        _check(question, k, role, row, row.prompt_text, expected, first=RECORDING + row.reference,
               second=second, **{"reference": RECORDING + row.reference} | voice)
        for k, (role, row, second, expected) in enumerate(comparisons)
    ]  # fmt: skip


def _check(
    question: str, k: int, role: str, row: tuple, text: str, expected: str, **clips: str
) -> Item:
    return Item(
        id=f"{question}-{role}-{k}", question=question, role=role, pair=f"{role}-{k}",
        stratum=role, lang=row.prompt_lang, text=text, expected=expected, **clips,
    )  # fmt: skip
