"""*Simulated* listeners: instruments that mining did not use, each heard a little differently.

No person is imitated. A simulated listener hears a reading error where a second recogniser
(judges.second) finds more errors than on clean recordings, calls that speech more natural which
Distill-MOS rates higher, and that voice more similar which Resemblyzer puts nearer. Listeners
differ in how strict they are and now and then answer at random.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from judges import build_quality, build_similarity, cosine
from judges.second import CHINESE, second_judge
from listening.design import RECORDING, Plan
from listening.schema import COLUMNS, QUESTIONS, check_answers

FLOOR = 0.75  # quantile of the second error on recordings that every listener forgives
LAPSE = 0.02  # share of answers that are given at random
FORGIVEN = (5.0, 15.0)  # points of error above the floor that a listener does not mind
EARS = {  # ranges of what is no difference and what a great one; deviation of each impression
    "naturalness": ((0.10, 0.40), (0.8, 1.4), 0.30),  # of 1 to 5
    "similarity": ((0.01, 0.03), (0.08, 0.16), 0.02),  # cosine
}
INSTRUMENTS = {
    "reading": "a second recogniser: Whisper-tiny.en (en), a phoneme recogniser (zh)",
    "naturalness": "Distill-MOS",
    "similarity": "Resemblyzer",
}


@dataclass(frozen=True)
class Measured:
    """What the instruments say of a test: one row an item (id), and the second error's floors.

    `items` has second_error (reading) and the ratings first and second (comparisons).
    """

    items: pd.DataFrame
    floors: dict[str, float]


def measure(
    plan: Plan,
    clips: Mapping[str, np.ndarray],
    recordings: pd.DataFrame,
    progress: str | None = None,
    chinese: Path = CHINESE,
) -> Measured:
    """Ask the instruments about every item of a test.

    `clips` maps names to samples [N], those of `recordings` too: clip, text, lang of clean speech,
    on which the floors are measured. Raises what the judges raise.
    """
    frame = plan.frame().set_index("id", drop=False)
    read = frame[frame["question"] == "reading"]
    errors = _errors(read, clips, progress, chinese)
    clean = recordings.rename(columns={"clip": "first"}).assign(id=recordings["clip"])
    heard = _errors(clean.set_index("id", drop=False), clips, progress, chinese)
    floors = heard.groupby(clean.set_index("id")["lang"]).quantile(FLOOR).to_dict()
    out = frame[["id"]].assign(second_error=errors, first_rating=np.nan, second_rating=np.nan)
    for question, rate in (("naturalness", _quality), ("similarity", _nearness)):
        rows = frame[frame["question"] == question]
        if len(rows):
            out.loc[rows.index, ["first_rating", "second_rating"]] = rate(rows, clips, progress)
    return Measured(out.reset_index(drop=True), floors)


def _errors(
    rows: pd.DataFrame, clips: Mapping[str, np.ndarray], progress: str | None, chinese: Path
) -> pd.Series:
    asked = rows.rename(columns={"text": "target_text", "lang": "target_lang"})
    audio = {row.id: clips[row.first] for row in rows.itertuples()}
    return second_judge(audio, asked, progress, chinese).set_index("id")["second_error"]


def _quality(
    rows: pd.DataFrame, clips: Mapping[str, np.ndarray], progress: str | None
) -> np.ndarray:
    names = sorted({*rows["first"], *rows["second"]})
    scores = build_quality("distillmos").score(
        [clips[n] for n in names], progress and f"{progress}: naturalness"
    )
    known = pd.Series(scores, names)
    return np.stack([known[rows["first"]], known[rows["second"]]], axis=1)


def _nearness(
    rows: pd.DataFrame, clips: Mapping[str, np.ndarray], progress: str | None
) -> np.ndarray:
    names = sorted({*rows["first"], *rows["second"], *rows["reference"]})
    label = progress and f"{progress}: similarity"
    vectors = build_similarity("resemblyzer").embed([clips[n] for n in names], label)
    place = {name: k for k, name in enumerate(names)}
    to = [vectors[[place[n] for n in rows[c]]] for c in ("first", "second", "reference")]
    return np.stack([cosine(to[0], to[2]), cosine(to[1], to[2])], axis=1)


def simulate(plan: Plan, measured: Measured) -> pd.DataFrame:
    """The answers of a panel of *simulated* listeners, one in each slot of the test.

    Code-switched speech has no second recogniser, so nobody says how it was read.
    """
    known = measured.items.set_index("id")
    rows: list[dict] = []
    for slot in range(plan.listeners):
        generator = np.random.default_rng([plan.seed, slot, 99])
        forgiven = generator.uniform(*FORGIVEN)
        ears = {q: [generator.uniform(*r) for r in ranges[:2]] for q, ranges in EARS.items()}
        for shown in plan.session(slot):
            item, impression = shown.item, generator.standard_normal()
            lapse, luck = generator.uniform() < LAPSE, generator.integers(60)
            said = known.loc[item.id]
            answers = QUESTIONS[item.question].answers
            if item.question == "reading":
                if np.isnan(said["second_error"]):
                    continue
                wrong = said["second_error"] > measured.floors[item.lang] + forgiven
                answer = answers[int(wrong)]
            else:
                gap = said["first_rating"] - said["second_rating"]
                gap = (-gap if shown.swapped else gap) + impression * EARS[item.question][2]
                answer = graded(gap, *ears[item.question])
            answer = answers[luck % len(answers)] if lapse else answer
            rows.append(
                {"test": plan.id, "kind": "simulated", "listener": f"simulated-{slot:03d}",
                 "item": item.id, "pair": item.pair, "question": item.question,
                 "role": item.role, "answer": answer, "shown_a": shown.shown[0],
                 "shown_b": shown.shown[1], "position": shown.position, "plays": 1,
                 "seconds": 0.0, "time": ""}
            )  # fmt: skip
    return check_answers(pd.DataFrame(rows, columns=COLUMNS), "simulated panel")


def graded(gap: float, tie: float, great: float) -> str:
    """The answer to a comparison in which A is better than B by `gap` in a listener's ears."""
    if abs(gap) < tie:
        return "Tie"
    return f"{'A' if gap > 0 else 'B'}+{2 if abs(gap) >= great else 1}"


def recordings_of(prompts: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """At most `number` reference recordings of each language: clip, text, lang."""
    kept = prompts.drop_duplicates("reference").sort_values("reference")
    kept = kept.sample(frac=1, random_state=seed).groupby("prompt_lang").head(number)
    return pd.DataFrame(
        {"clip": RECORDING + kept["reference"], "text": kept["prompt_text"],
         "lang": kept["prompt_lang"]}
    ).sort_values("clip", ignore_index=True)  # fmt: skip
