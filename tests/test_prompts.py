"""Mining prompts are balanced, of the asked length, and share nothing with held-out data."""

import dataclasses
from itertools import product

import pandas as pd
import pytest

from intp.params import load_params
from intp.paths import DATA
from intp.prompts import (
    DIRECTIONS,
    held_out_prompts,
    load_prompts,
    mining_prompts,
)
from intp.speech import sample_seed
from report.tables import SETS
from texts.targets import text_length
from texts.transforms import KINDS


@pytest.fixture(scope="module")
def mining() -> pd.DataFrame:
    return mining_prompts(load_params("smoke"))


def test_every_type_in_four_directions_in_balance(mining: pd.DataFrame):
    each = load_params("smoke").prompts.mining
    sizes = mining.groupby(["text_type", "direction"]).size()
    assert set(sizes.index) == set(product(KINDS, DIRECTIONS)) and (sizes == each).all()
    assert not mining["id"].duplicated().any()
    for direction, rows in mining[mining["text_type"] == "regular"].groupby("direction"):
        assert (rows["prompt_lang"] + "2" + rows["target_lang"] == direction).all()


def test_a_perturbed_prompt_is_its_regular_one_with_another_text_to_read(mining: pd.DataFrame):
    known = mining.set_index("id")
    for row in mining[mining["text_type"].str.endswith("perturbed")].itertuples():
        meant = known.loc[row.base]
        assert meant["text_type"] == "regular" and meant["reference"] == row.reference
        assert meant["target_text"] != row.target_text
        assert meant["target_phonemes"] != row.target_phonemes
    plain = mining[~mining["text_type"].str.endswith("perturbed")]
    assert (plain["base"] == plain["id"]).all()


def test_code_switching_targets_mix_and_repeated_ones_repeat(mining: pd.DataFrame):
    mixed = mining[mining["text_type"] == "code-switching"]
    assert (mixed["target_lang"] == "mixed").all()
    assert mixed["target_text"].str.contains("[a-zA-Z]").all()
    assert mixed["target_text"].str.contains("[\u4e00-\u9fff]").all()
    assert (mining.loc[mining["text_type"] == "repeated", "note"].str.contains("×")).all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mining", 9999, "prompts.mining: 9999 en texts"),
        ("words", [50_000, 60_000], "prompts.words: no en text of 50000 to 60000 words"),
        ("reference_seconds", [20.0, 30.0], "prompts.reference_seconds: none of 0 recordings"),
    ],
)
def test_what_the_data_cannot_give_is_named(field: str, value: object, message: str):
    params = load_params("smoke")
    asked = dataclasses.replace(params.prompts, **{field: value})
    with pytest.raises(ValueError, match=message):
        mining_prompts(dataclasses.replace(params, prompts=asked))


def test_targets_have_the_asked_length_and_are_not_the_reference(mining: pd.DataFrame):
    limits = {
        "en": load_params("smoke").prompts.words,
        "zh": load_params("smoke").prompts.characters,
    }
    for row in mining[mining["text_type"] == "regular"].itertuples():
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
