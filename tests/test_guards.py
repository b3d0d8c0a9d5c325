"""Guards: what is repeated and missing, and which movement rings."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from intp.params import Params, load_params
from report.guards import GUARDS, absent, alarm, guard_table, said
from report.statistics import Estimate

TEXTS = {f"item-{i}": f"they said number {word} to us" for i, word in
         enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight"])}  # fmt: skip


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params("smoke")


def prompts() -> pd.DataFrame:
    return pd.DataFrame({"id": list(TEXTS), "target_text": list(TEXTS.values())})


def scores(seconds: float, **columns: object) -> pd.DataFrame:
    """A score file of `TEXTS`, read without a fault, with other columns on demand."""
    frame = pd.DataFrame({
        "id": list(TEXTS), "set": "regular", "direction": "en",
        "voice": [f"v{i % 4}" for i in range(len(TEXTS))], "target_lang": "en",
        "transcript": list(TEXTS.values()), "wer_length": 6,
        "seconds": seconds + 0.1 * np.arange(len(TEXTS)), "sim": 0.7, "quality": 3.0,
    })  # fmt: skip
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("target", "heard", "lang", "expected"),
    [
        ("One, two three four.", "one two three four", "en", (0, 0)),
        ("one two three four", "one two two three four", "en", (25, 0)),
        ("one two three four", "one two three four five", "en", (0, 0)),  # added, not repeated
        ("one two three four", "one four", "en", (0, 50)),
        ("one two three four", "", "en", (0, 100)),
        ("one two", "one two " * 20, "en", (100, 0)),
        ("四是四", "四是四是四", "zh", (200 / 3, 0)),
        ("他說好", "他说好", "zh", (0, 0)),
        ("我喜欢 pandas", "我喜欢 pandas pandas", "mixed", (25, 0)),
    ],
)
def test_repeated_and_missing_units(target: str, heard: str, lang: str, expected: tuple):
    assert said(target, heard, lang) == pytest.approx(expected)


def test_faster_speech_rings_and_the_same_speech_does_not(params: Params):
    rows = {"ARS": scores(2.0), "ARS w/ INTP": scores(1.0), "ARS w/ SFT": scores(2.0)}
    table = guard_table(rows, prompts(), params).query("set == 'regular'")
    rung = set(
        table[table["alarm"] == "alarm"][["row", "guard"]].itertuples(index=False, name=None)
    )
    assert rung == {("ARS w/ INTP", "speaking rate"), ("ARS w/ INTP", "duration")}
    rate = table.query("row == 'ARS w/ INTP' and guard == 'speaking rate'").iloc[0]
    seconds = scores(2.0)["seconds"]
    assert rate["before"] == pytest.approx((6 / seconds).mean(), abs=1e-4)
    assert rate["change"] == pytest.approx((6 / (seconds - 1) - 6 / seconds).mean(), abs=1e-4)


def test_the_average_is_there_though_sets_are_missing(params: Params):
    table = guard_table({"ARS": scores(2.0), "ARS w/ INTP": scores(2.0)}, prompts(), params)
    assert set(table["set"]) == {"regular", "avg"}


def test_files_without_prosody_and_second_judge_still_give_the_rest(params: Params):
    rows = {"ARS": scores(2.0), "ARS w/ INTP": scores(2.0)}
    table = guard_table(rows, prompts(), params)
    assert absent(table) == ["second recogniser's error", "pauses", "F0 spread"]
    assert {"SIM", "quality", "repeated words", "missing words"} <= set(table["guard"])


def test_a_second_judge_of_some_languages_counts_those(params: Params):
    half = np.where(np.arange(len(TEXTS)) < 5, 10.0, np.nan)
    rows = {
        "ARS": scores(2.0, second_error=half, f0_spread=2.0),
        "ARS w/ INTP": scores(2.0, second_error=half + 7, f0_spread=2.0),
    }
    table = guard_table(rows, prompts(), params).query("set == 'regular'").set_index("guard")
    second = table.loc["second recogniser's error"]
    assert (second["n"], second["change"], second["alarm"]) == (5, 7.0, "alarm")
    assert (table.loc["F0 spread", "n"], table.loc["F0 spread", "alarm"]) == (8, "")


def test_babble_counts_for_the_second_judge_as_for_the_first(params: Params):
    rows = {
        "ARS": scores(2.0, second_error=100.0),
        "ARS w/ INTP": scores(2.0, second_error=900.0),
    }
    table = guard_table(rows, prompts(), params).set_index("guard")
    assert set(table.loc["second recogniser's error", "change"]) == {0.0}


def test_an_alarm_needs_size_and_certainty():
    assert alarm(Estimate(-0.05, -0.06, -0.04, 9), -0.02, 1.0) == "alarm"
    assert alarm(Estimate(-0.05, -0.11, 0.01, 9), -0.02, 1.0) == "beyond"
    assert alarm(Estimate(-0.01, -0.015, -0.005, 9), -0.02, 1.0) == ""


def test_every_rule_is_a_guard_that_is_known_and_wrong_texts_are_named(params: Params):
    assert set(params.claims.guards) == set(GUARDS)
    with pytest.raises(ValueError, match="item-0"):
        guard_table({"ARS": scores(2.0)}, prompts().iloc[1:], params)


def test_a_rule_that_is_not_asked_for_is_not_measured(params: Params):
    only = dataclasses.replace(params.claims, guards={"sim": [-0.02, 1.0]})
    rows = {"ARS": scores(2.0), "ARS w/ INTP": scores(1.0)}
    table = guard_table(rows, prompts(), dataclasses.replace(params, claims=only))
    assert set(table["guard"]) == {"SIM"}
