"""Mining prompts are balanced, of the asked length, and share nothing with held-out data."""

import dataclasses

import pandas as pd
import pytest

from intp.params import load_params
from intp.paths import DATA
from intp.prompts import (
    DIRECTIONS,
    held_out_prompts,
    load_prompts,
    mining_prompts,
    text_length,
)
from intp.speech import sample_seed
from intp.tables import SETS


@pytest.fixture(scope="module")
def mining() -> pd.DataFrame:
    return mining_prompts(load_params("smoke"))


def test_four_directions_in_balance(mining: pd.DataFrame):
    assert mining["direction"].value_counts().to_dict() == dict.fromkeys(DIRECTIONS, 4)
    for direction, rows in mining.groupby("direction"):
        assert (rows["prompt_lang"] + "2" + rows["target_lang"] == direction).all()


def test_targets_have_the_asked_length_and_are_not_the_reference(mining: pd.DataFrame):
    limits = {
        "en": load_params("smoke").prompts.words,
        "zh": load_params("smoke").prompts.characters,
    }
    for row in mining.itertuples():
        low, high = limits[row.target_lang]
        assert low <= text_length(row.target_text, row.target_lang) <= high
        assert row.prompt_text not in row.target_text


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others(mining: pd.DataFrame):
    params = load_params("smoke")
    assert mining_prompts(params).equals(mining)
    other = mining_prompts(dataclasses.replace(params, seed=params.seed + 10))
    assert set(other["target_text"]) != set(mining["target_text"])


def test_evaluation_takes_the_first_items_of_every_set_and_direction():
    rows = held_out_prompts("evaluation", 2, SETS)
    sizes = rows.groupby(["set", "direction"]).size()
    assert len(sizes) == 8 and (sizes == 2).all()
    assert not rows.duplicated("id").any()


def test_mining_shares_no_text_and_no_voice_with_held_out_sets(mining: pd.DataFrame):
    for split in ("development", "evaluation"):
        items = pd.read_json(DATA / split / "items.jsonl", lines=True)
        assert not set(mining["target_text"]) & set(items["target_text"])
        assert not set(mining["voice"]) & set(held_out_prompts(split, 16, SETS)["voice"])


def test_references_are_loaded_and_a_missing_one_is_named(mining: pd.DataFrame):
    few = mining.head(2)
    prompts = load_prompts(few)
    assert [p.id for p in prompts] == few["id"].tolist()
    assert all(1.9 * 16000 < len(p.reference_speech) < 5.1 * 16000 for p in prompts)
    with pytest.raises(ValueError, match="nobody"):
        load_prompts(few.assign(reference="nobody"))


def test_seeds_are_keyed_to_prompt_and_sampling():
    seeds = {sample_seed(p, k, s) for p in "ab" for k in range(5) for s in (0, 1)}
    assert len(seeds) == 20
    assert sample_seed("a", 0, 0) == sample_seed("a", 0, 0)
