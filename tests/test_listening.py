"""The listening test: what is asked, who hears what, how loud, what counts, what a panel says."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyloudnorm
import pytest
from listening_parts import SIZES, pairs_of, prompts, small_plan

from intp.audio import SAMPLE_RATE
from intp.corpus import read_audio
from intp.evaluate import evaluate, speak
from intp.models import load_adapter
from intp.params import Listening, Params, load_params
from intp.paths import DATA
from intp.prompts import held_out_prompts
from listening.aligned import before_and_after
from listening.analysis import (
    agreement_cells,
    alpha,
    answered_cells,
    counted,
    crossed_mean,
    decided,
    exclusions,
    joined,
    preference_cells,
    reading_cells,
)
from listening.design import BROKEN, RECORDING, DesignError, Plan, build_before_after, build_plan
from listening.panel import Measured, measure, recordings_of, simulate
from listening.schema import QUESTIONS, AnnotationError, check_answers, read_answers
from listening.stimuli import StimulusError, broken, load_clips, matched
from report.tables import SETS


@pytest.fixture(scope="module")
def asked() -> pd.DataFrame:
    return prompts()


@pytest.fixture(scope="module")
def plan(asked: pd.DataFrame) -> Plan:
    return small_plan(asked)


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
        loads.append(pd.Series([p.item.stratum + p.item.label for p in mine]).value_counts())
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


def test_peaks_are_limited_not_clipped_and_a_mere_click_is_refused():
    speech = next(s for _, s in read_audio(DATA / "corpus"))
    spiky = speech.copy()
    spiky[1000] = 40 * np.abs(speech).max()
    played = matched(spiky, "spiky")
    assert np.abs(played).max() <= 10 ** (-1 / 20) + 1e-6
    assert matched(speech[:2000], "short").any()
    assert not matched(np.zeros(SAMPLE_RATE), "hush").any()
    click = np.zeros(10 * SAMPLE_RATE)
    click[5000:5003] = 1.0
    with pytest.raises(StimulusError, match="click: cannot be played at -23 LUFS"):
        matched(click, "click")


def test_clips_come_by_name_and_a_missing_one_is_named(asked: pd.DataFrame):
    name = asked["reference"].iloc[0]
    clips = load_clips([RECORDING + name, BROKEN + name], {}, [DATA / "corpus"])
    assert not np.array_equal(clips[RECORDING + name], clips[BROKEN + name])
    assert np.array_equal(clips[BROKEN + name], broken(clips[RECORDING + name]))
    with pytest.raises(StimulusError, match="no audio for 1 clips: .*nobody"):
        load_clips(["nobody"], {}, [DATA / "corpus"])


# Schema


@pytest.fixture(scope="module")
def table(plan: Plan) -> pd.DataFrame:
    return simulate(plan, measured(plan))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": "maybe"}, "t.csv: row 1: field answer: expected one of No Error, Has Error"),
        ({"kind": "robot"}, "row 1: field kind: expected one of human, simulated, found 'robot'"),
        ({"position": "x"}, "row 1: field position: expected a number of at least 0"),
        ({"seconds": -1}, "row 1: field seconds"),
        ({"listener": ""}, "row 1: field listener: expected a name"),
        ({"kind": "human", "time": "noon"}, "row 1: field time: expected an ISO time with its"),
        ({"kind": "human", "time": "2026-01-01T10:00:00"}, "row 1: field time"),
        ({"kind": "human", "time": "2026-01-01T10:00:00+01:00"}, "human and simulated .* mixed"),
        ({"test": "other"}, "field test: answers to different tests"),
    ],
)
def test_a_fault_in_a_table_is_named_with_file_row_and_field(
    table: pd.DataFrame, change: dict, says: str
):
    bad = table.astype({"position": object, "seconds": object})
    for field, value in change.items():
        bad.loc[0, field] = value
    with pytest.raises(AnnotationError, match=says):
        check_answers(bad, "t.csv")


def test_columns_and_double_answers_are_checked_and_parquet_reads_as_csv_does(
    table: pd.DataFrame, tmp_path: Path
):
    with pytest.raises(AnnotationError, match=r"missing fields \['role'\], unknown fields \['x'\]"):
        check_answers(table.rename(columns={"role": "x"}), "t.csv")
    with pytest.raises(AnnotationError, match="field item: answered twice"):
        check_answers(pd.concat([table, table.head(1)], ignore_index=True), "t.csv")
    with pytest.raises(FileNotFoundError, match="no annotation table"):
        read_answers(tmp_path)
    (tmp_path / "crashed.csv").touch()
    with pytest.raises(AnnotationError, match="crashed.csv: empty, nobody answered"):
        read_answers(tmp_path)
    (tmp_path / "crashed.csv").unlink()
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet", index=False)
    pd.testing.assert_frame_equal(
        read_answers(tmp_path / "t.csv"), read_answers(tmp_path / "t.parquet"), check_dtype=False
    )


# Simulated panel and analysis


def measured(plan: Plan, gap: float = 1.5) -> Measured:
    """Instruments that find `first` better by `gap`, rejected clips misread, and every check right."""
    frame = plan.frame()
    even = frame["expected"].eq("Tie")
    wrong = frame["expected"].eq("Has Error") | frame["id"].str.startswith("reading-rejected")
    items = pd.DataFrame(
        {"id": frame["id"], "second_error": np.where(wrong, 80.0, 5.0),
         "first_rating": np.where(even, 3.0, np.where(frame["role"] == "main", 3.0 + gap, 4.5)),
         "second_rating": 3.0}
    )  # fmt: skip
    return Measured(items, {"en": 10.0, "zh": 10.0})


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params("smoke")


def test_a_panel_is_marked_simulated_and_hangs_on_the_seed(plan: Plan, table: pd.DataFrame):
    assert set(table["kind"]) == {"simulated"}
    pd.testing.assert_frame_equal(table, simulate(plan, measured(plan)))
    other = replace(plan, seed=9)
    assert list(simulate(other, measured(other))["answer"]) != list(table["answer"])


def test_tables_say_what_the_panel_heard(plan: Plan, table: pd.DataFrame, params: Params):
    rows = joined(table, plan)
    assert "training" not in set(rows["role"])
    labels = {"ars": "ARS", "f5": "F5-TTS"}
    cells = pd.DataFrame(reading_cells(rows, labels, params)).set_index(["row", "column"])
    assert cells.loc[("Positive Samples", "ARS"), "value"] > 90
    assert cells.loc[("Negative Samples", "ARS"), "value"] < 10
    assert 40 < cells.loc[("All", "ARS"), "value"] < 60
    assert {"ARS", "ARS en", "ARS zh"} <= set(cells.loc["All"].index)
    assert cells.loc[("listeners", "alpha"), "value"] > 0.8
    assert (cells["low"] <= cells["value"]).all() and (cells["value"] <= cells["high"]).all()
    agreement = pd.DataFrame(agreement_cells(rows, params)).set_index(["row", "column"])["value"]
    whole = agreement["INTP winner"]
    shares = whole[[f"Naturalness {name}" for name in ("Winner", "Tie", "Loser")]]
    assert shares.sum() == pytest.approx(100) and whole["Naturalness Winner"] > 90
    assert whole["N-CMOS"] > 1
    sides = pd.DataFrame(preference_cells(rows, params)).set_index(["row", "column"])["value"]
    a = sides["preference"][["A+1", "A+2"]].sum()
    assert a == pytest.approx(50, abs=8), "the better side is A in half of the comparisons"
    assert decided(rows, "naturalness", params).value > 90


def test_a_panel_without_a_difference_agrees_with_nothing(plan: Plan, params: Params):
    rows = joined(simulate(plan, measured(plan, gap=0.0)), plan)
    found = decided(rows, "naturalness", params)
    assert found.low < 50 < found.high
    kept = rows[(rows["question"] == "naturalness") & (rows["role"] == "main")]
    assert abs(alpha(kept, params).value) < 0.3


def test_alpha_is_one_if_all_agree_and_has_no_value_if_nobody_differs(params: Params):
    rows = pd.DataFrame({"item": ["a", "a", "b", "b"], "answer": "x", "score": [2, 2, -1, -1]})
    assert alpha(rows, params).value == 1
    assert alpha(rows.assign(score=1), params) is None
    assert alpha(rows.drop_duplicates("item"), params) is None


def test_intervals_cover_listeners_and_items(params: Params):
    generator = np.random.default_rng(0)
    people, things = np.divmod(np.arange(200), 20)
    taste = generator.standard_normal(10)[people]
    found = crossed_mean(taste, pd.Series(people), pd.Series(things), params)
    assert found.high - found.low > 3 * 2 * 1.96 * taste.std() / np.sqrt(200) / 2
    same = crossed_mean(np.ones(200), pd.Series(people), pd.Series(things), params)
    assert (same.low, same.value, same.high) == (1, 1, 1) and same.n == 200
    with pytest.raises(ValueError, match="no answers"):
        crossed_mean(np.array([]), pd.Series([]), pd.Series([]), params)


def test_listeners_that_fail_the_checks_do_not_count(plan: Plan, table: pd.DataFrame):
    rows = joined(table, plan)
    before = set(exclusions(rows)["listener"])
    blind = rows["listener"].eq("simulated-002")
    rows.loc[blind & rows["question"].eq("reading"), "answer"] = "No Error"
    found = exclusions(rows).set_index("listener")["reason"]
    assert set(found.index) == before | {"simulated-002"}
    assert "1 of 3 traps missed" in found["simulated-002"]
    assert "simulated-002" not in set(counted(rows, "naturalness")["listener"])


def test_answers_to_another_test_are_refused(plan: Plan, table: pd.DataFrame):
    with pytest.raises(AnnotationError, match="field test: expected"):
        joined(table, replace(plan, seed=4))


def test_instruments_hear_what_is_wrong(plan: Plan, asked: pd.DataFrame, tmp_path: Path):
    english = [i for i in plan.items if i.lang == "en"]
    gold = [i for i in english if i.role in ("gold", "trap")]
    main = [i for i in english if i.question == "reading" and i.role == "main"][:6]
    few = replace(plan, items=(*main, *gold))
    clean = recordings_of(asked[asked["prompt_lang"] == "en"], 4, seed=0)
    wanted = {clip for item in few.items for clip in item.clips} | set(clean["clip"])
    clips = load_clips(wanted, {}, [DATA / "corpus"])
    found = measure(few, clips, clean)
    known = found.items.set_index("id")
    assert set(found.floors) == {"en"} and found.floors["en"] < 25
    for item in few.items:
        if item.expected == "first":
            assert known.loc[item.id, "first_rating"] > known.loc[item.id, "second_rating"]
        if item.question == "reading" and item.expected == "Has Error":
            assert known.loc[item.id, "second_error"] > 50
    assert (
        known["second_error"].notna().equals(few.frame().set_index("id")["question"] == "reading")
    )


# Before and after (F.3)


def evaluation_prompts() -> pd.DataFrame:
    """Three evaluation prompts a set and direction."""
    return held_out_prompts("evaluation", 3, SETS)


def test_f3_asks_all_three_questions_of_every_setting(params: Params):
    frame = evaluation_prompts()
    plan = build_before_after(frame, "ars", "intp", SIZES, seed=0)
    main = plan.frame().query("role == 'main'")
    assert main["question"].value_counts().to_dict() == {
        "reading": 2 * len(frame), "naturalness": len(frame), "similarity": len(frame)
    }  # fmt: skip
    found = measured(plan)
    mixed = plan.frame().set_index("id")["lang"].reindex(found.items["id"]).eq("mixed").to_numpy()
    found.items.loc[mixed, "second_error"] = np.nan
    answers = simulate(plan, found)
    unasked = answers["question"].eq("reading") & answers["item"].isin(found.items["id"][mixed])
    assert mixed.any() and not unasked.any()
    cells = pd.DataFrame(answered_cells(joined(answers, plan), "ARS", "INTP", params))
    value = cells.set_index(["row", "column"])["value"]
    assert value["ARS w/ INTP", "reading accuracy"] > 90
    assert value["ARS w/ INTP", "similarity win"] > 90
    assert {f"{name} N-CMOS" for name in (*SETS, "avg")} <= set(value["ARS w/ INTP"].index)


def test_what_was_judged_is_what_the_plan_plays(params: Params, tmp_path: Path):
    frame = held_out_prompts("evaluation", 2, ["regular"])
    plan = build_before_after(frame, "ars", "intp", SIZES, seed=0)
    adapter, sampling = load_adapter("ars", params), params.sampling["ars"].evaluation
    for run in ("base", "intp"):
        evaluate(adapter, frame, sampling, params, keep=tmp_path / f"ars-{run}")
    clips = before_and_after(plan, frame, "ars", "intp", tmp_path)
    assert {clip for item in plan.items for clip in item.clips} <= set(clips)
    said = speak(adapter, frame, sampling, params.seed)
    for name in frame["id"]:  # as FLAC keeps it: 16 bits
        assert np.abs(clips[f"ars-base-{name}"] - said[name]).max() < 2**-15
        assert np.array_equal(clips[f"ars-base-{name}"], clips[f"ars-intp-{name}"])
    shutil.rmtree(tmp_path / "ars-intp")
    with pytest.raises(FileNotFoundError, match="ars-intp: no such folder"):
        before_and_after(plan, frame, "ars", "intp", tmp_path)
    (tmp_path / "ars-intp").mkdir()
    with pytest.raises(StimulusError, match="no audio for 4 clips"):
        before_and_after(plan, frame, "ars", "intp", tmp_path)
