"""The listening test: what is asked, who hears what, how loud, what counts, what a panel says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyloudnorm
import pytest

from intp.audio import SAMPLE_RATE
from intp.corpus import read_audio, read_manifest
from intp.params import Listening
from intp.paths import DATA
from listening.design import BROKEN, RECORDING, DesignError, Plan, build_plan
from listening.schema import QUESTIONS
from listening.stimuli import StimulusError, broken, load_clips, matched

SIZES = Listening(reading_pairs=10, preference_pairs=12, listeners=6, ratings=3)


def prompts() -> pd.DataFrame:
    """Prompts whose references are recordings of the corpus, three of each direction."""
    rows = [r for r in read_manifest(DATA / "corpus") if r.shard == "audio-00.tar"]
    rows = {lang: [r for r in rows if r.lang == lang and r.duration > 1] for lang in ("en", "zh")}
    made = []
    for direction in ("en2en", "zh2zh", "zh2en", "en2zh"):
        spoken, target = direction.split("2")
        for k in range(3):
            reference, said = rows[spoken].pop(), rows[target].pop()
            made.append(
                {"id": f"regular-{direction}-{k}", "target_text": said.text, "target_lang": target,
                 "prompt_text": reference.text, "prompt_lang": spoken, "said": said.id,
                 "reference": reference.id, "reference_corpus": "data/corpus"}
            )  # fmt: skip
    return pd.DataFrame(made)


def pairs_of(frame: pd.DataFrame, models: tuple[str, ...] = ("ars", "f5")) -> pd.DataFrame:
    """An intra pair a prompt and model: a recording of the text is chosen, another one rejected."""
    made = []
    for model in models:
        for row, wrong in zip(frame.itertuples(), frame["said"].iloc[::-1].tolist(), strict=True):
            made.append(
                {"pair": f"intra-{model}-{row.id}", "kind": "intra", "text_type": "regular",
                 "prompt": row.id, "direction": row.id.split("-")[1], "chosen": row.said,
                 "rejected": wrong, "chosen_model": model, "rejected_model": model}
            )  # fmt: skip
    return pd.DataFrame(made)


@pytest.fixture(scope="module")
def asked() -> pd.DataFrame:
    return prompts()


@pytest.fixture(scope="module")
def plan(asked: pd.DataFrame) -> Plan:
    return build_plan(pairs_of(asked), asked, SIZES, seed=3, similarity=True)


# Design


def test_every_item_is_rated_equally_often_by_different_listeners(plan: Plan):
    heard = [(p.item.id, slot) for slot in range(6) for p in plan.session(slot)]
    assert len(heard) == len(set(heard))
    times = pd.Series([item for item, _ in heard]).value_counts()
    roles = plan.frame().set_index("id")["role"]
    assert set(times[roles[times.index] == "main"]) == {SIZES.ratings}
    assert set(times[roles[times.index] != "main"]) == {SIZES.listeners}
    assert sum(roles == "main") == 2 * 10 + 2 * 12


def test_sides_and_strata_are_balanced_for_every_listener(plan: Plan):
    loads = []
    for slot in range(6):
        mine = [p for p in plan.session(slot) if p.item.role == "main"]
        for question in ("naturalness", "similarity"):
            swapped = [p.swapped for p in mine if p.item.question == question]
            assert abs(2 * sum(swapped) - len(swapped)) <= 2
        loads.append(pd.Series([p.item.stratum for p in mine]).value_counts())
    spread = pd.DataFrame(loads).fillna(0)
    assert (spread.max() - spread.min()).max() <= 3
    sides = pd.DataFrame(
        [(p.item.id, p.swapped) for s in range(6) for p in plan.session(s) if p.item.second],
        columns=["item", "swapped"],
    )
    both = sides.groupby("item")["swapped"].nunique()
    assert (both[[i.id for i in plan.items if i.role == "main" and i.second]] == 2).all()


def test_order_hangs_on_the_seed_and_the_listener_alone(plan: Plan, asked: pd.DataFrame):
    again = build_plan(pairs_of(asked), asked, SIZES, seed=3, similarity=True)
    assert again == plan and again.session(2) == plan.session(2) and again.id == plan.id
    orders = {tuple(p.item.id for p in plan.session(slot)) for slot in range(6)}
    assert len(orders) == 6
    assert replace(plan, seed=4).session(2) != plan.session(2)
    assert replace(plan, seed=4).id != plan.id


def test_training_comes_first_and_checks_hide_among_the_items(plan: Plan):
    session = plan.session(0)
    for question in QUESTIONS:
        roles = [p.item.role for p in session if p.item.question == question]
        assert roles[:2] == ["training", "training"] and "training" not in roles[2:]
        assert roles.count("gold") == 2 and roles.count("trap") == 1
    assert [p.position for p in session] == list(range(len(session)))


def test_a_plan_is_kept_as_a_file(plan: Plan, tmp_path: Path):
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_tests_that_cannot_be_held_are_refused(asked: pd.DataFrame):
    pairs = pairs_of(asked)
    with pytest.raises(DesignError, match="3 ratings of an item need as many listeners"):
        build_plan(pairs, asked, replace(SIZES, listeners=2), 0)
    with pytest.raises(DesignError, match="no intra or inter pairs of regular text"):
        build_plan(pairs.assign(text_type="repeated"), asked, SIZES, 0)
    with pytest.raises(DesignError, match="found {'en': 12, 'zh': 0}"):
        build_plan(pairs, asked.assign(prompt_lang="en"), SIZES, 0)
    with pytest.raises(DesignError, match="slot 6"):
        build_plan(pairs, asked, SIZES, 0).session(6)


def test_default_sizes_are_the_paper_s():
    sizes = Listening()
    assert (sizes.reading_pairs, sizes.preference_pairs) == (300, 1000)
    assert (sizes.listeners, sizes.ratings) == (20, 3)


# Stimuli


def tone(seconds: float, level: float) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


@pytest.mark.parametrize(("seconds", "level"), [(2.0, 0.9), (2.0, 0.001), (0.5, 0.1)])
def test_clips_are_equally_loud(seconds: float, level: float):
    played = matched(tone(seconds, level), "tone")
    loudness = pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(played)
    assert loudness == pytest.approx(-23.0, abs=0.5)
    assert np.abs(played).max() <= 10 ** (-1 / 20) + 1e-6


def test_peaks_are_limited_not_clipped_and_silence_is_refused():
    speech = next(s for _, s in read_audio(DATA / "corpus"))
    spiky = speech.copy()
    spiky[1000] = 40 * np.abs(speech).max()
    played = matched(spiky, "spiky")
    assert np.abs(played).max() <= 10 ** (-1 / 20) + 1e-6
    assert matched(speech[:2000], "short").any()
    with pytest.raises(StimulusError, match="hush: silent"):
        matched(np.zeros(SAMPLE_RATE), "hush")


def test_clips_come_by_name_and_a_missing_one_is_named(asked: pd.DataFrame):
    name = asked["reference"].iloc[0]
    clips = load_clips([RECORDING + name, BROKEN + name], {}, [DATA / "corpus"])
    assert not np.array_equal(clips[RECORDING + name], clips[BROKEN + name])
    assert np.array_equal(clips[BROKEN + name], broken(clips[RECORDING + name]))
    with pytest.raises(StimulusError, match="no audio for 1 clips: .*nobody"):
        load_clips(["nobody"], {}, [DATA / "corpus"])
