"""Which pairs a run learns from, equally many within a group, and what of them it sees."""

import copy
import dataclasses
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_prompt

from experiments.unseen import unseen_prompts
from intp.adapters.ar import ARAdapter
from intp.adapters.base import Example, Prompt
from intp.align import fingerprint, load_pairs, recipe
from intp.mining import selected, variant_pairs
from intp.params import Params, Variant, load_params
from intp.speech import read_speech, read_targets, synthesise_shards
from intp.trainer import Pair, Recipe
from networks.tokenizer import SpeechTokenizer

SAMPLINGS = [{"temperature": t, "top_k": 20, "top_p": 1.0, "max_seconds": 0.6} for t in (0.8, 1.2)]


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params("mini")


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    """Every type, direction and couple of models; regular and perturbed pairs share their chosen."""
    types = ("regular", "repeated", "code-switching", "pronunciation-perturbed")
    rows = [
        {
            "pair": f"{kind}-{direction}-{w}-{l}-{i}", "text_type": kind, "direction": direction,
            "chosen": f"{w}-{direction}-{i}" if "perturbed" in kind or kind == "regular" else f"{kind}{i}",
            "rejected": f"{kind}-{l}-{direction}-{i}", "chosen_model": w, "rejected_model": l,
            "gap": 10.0 + i,
        }
        for kind, direction, w, l in product(types, ("en2en", "zh2zh", "zh2en"), ("ars", "f5"), ("ars", "f5"))
        for i in range(3 if kind == "repeated" else 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_variant_selects_by_type_direction_model_and_kind(pairs: pd.DataFrame):
    assert set(selected(pairs, Variant(text_types=["repeated"]))["text_type"]) == {"repeated"}
    assert set(selected(pairs, Variant(directions=["en2en"]))["direction"]) == {"en2en"}
    own = selected(pairs, Variant(of="one model"))
    assert (own["chosen_model"] == own["rejected_model"]).all() and len(own) == len(pairs) / 2
    assert len(selected(pairs, Variant(of="two models"))) == len(pairs) / 2
    ars = selected(pairs, Variant(models=["ars"]))
    assert set(ars["chosen_model"]) == set(ars["rejected_model"]) == {"ars"}
    assert len(selected(pairs, Variant())) == len(pairs)


def test_the_group_of_negatives_shares_its_positives(pairs: pd.DataFrame):
    both = ["regular", "pronunciation-perturbed"]
    some = pairs.drop(
        pairs[(pairs["text_type"] == both[0]) & (pairs["chosen"] == "ars-en2en-0")].index
    )
    chosen = [
        set(selected(some, Variant(text_types=[kind], positives=both))["chosen"]) for kind in both
    ]
    assert chosen[0] == chosen[1] and "ars-en2en-0" not in chosen[1] and len(chosen[0]) == 11


def test_runs_of_a_group_learn_from_equally_many_pairs_unless_told_otherwise(
    params: Params, pairs: pd.DataFrame
):
    sizes = {
        k: len(variant_pairs(pairs, "ars", k, params))
        for k in ("regular", "repeated", "intp-equal")
    }
    assert set(sizes.values()) == {24}
    unequal = dataclasses.replace(params, equal_pairs=False)
    assert len(variant_pairs(pairs, "ars", "repeated", unequal)) == 36
    assert len(variant_pairs(pairs, "ars", "intp", params)) == len(pairs)


def test_a_run_is_the_same_for_the_same_seed_and_limited_by_its_model(
    params: Params, pairs: pd.DataFrame
):
    few = dataclasses.replace(
        params, dpo={**params.dpo, "ars": dataclasses.replace(params.dpo["ars"], pairs=10)}
    )
    one = variant_pairs(pairs, "ars", "intp", few)
    assert len(one) == 10 and one.equals(variant_pairs(pairs, "ars", "intp", few))
    other = dataclasses.replace(few, seed=1)
    assert not one.equals(variant_pairs(pairs, "ars", "intp", other))


def test_shuffling_and_supervised_runs_share_the_pairs_of_intp(params: Params, pairs: pd.DataFrame):
    shuffled = variant_pairs(pairs, "ars", "shuffled", params)
    assert set(shuffled["pair"]) == set(variant_pairs(pairs, "ars", "intp", params)["pair"])
    assert (shuffled["chosen"] != pairs["chosen"]).sum() == len(pairs) / 2
    assert recipe(params, "ars", "sft").method == "sft"
    assert recipe(params, "ars", "shuffled") == recipe(params, "ars", "intp")


def test_an_unknown_variant_and_one_that_selects_nothing_are_named(
    params: Params, pairs: pd.DataFrame
):
    with pytest.raises(ValueError, match="variants.nonsense: unknown"):
        variant_pairs(pairs, "ars", "nonsense", params)
    with pytest.raises(ValueError, match="variants.maskgct-pairs: none of the"):
        variant_pairs(pairs, "ars", "maskgct-pairs", params)


def test_a_run_is_known_by_all_that_it_depends_on(adapter: ARAdapter, params: Params):
    rule, prompt = recipe(params, "ars", "intp"), make_prompt("p")
    tokens = [torch.arange(5), torch.arange(9)]

    def known(prompt: Prompt = prompt, rule: Recipe = rule, model: ARAdapter = adapter) -> str:
        pair = Pair("pair", *(Example(prompt, target) for target in tokens))
        return fingerprint(model, [pair], rule)

    other = copy.copy(adapter)
    other.config = dataclasses.replace(adapter.config, tokens_per_phoneme=9.0)
    louder = dataclasses.replace(prompt, reference_speech=2 * prompt.reference_speech)
    changed = [
        known(dataclasses.replace(prompt, target_text="another")), known(louder),
        known(rule=dataclasses.replace(rule, beta=0.7)), known(model=other),
    ]  # fmt: skip
    assert known() == known() and len({known(), *changed}) == 5


def foreign(tmp_path: Path, adapter: ARAdapter, prompts: pd.DataFrame) -> dict[str, Path]:
    """Answers of two token models of one tokenizer, and of a third that speaks another way."""
    other = SpeechTokenizer(adapter.tokenizer.config).eval()
    far = ARAdapter(adapter.config, other)
    folders = {}
    for name, speaker in {"ars": adapter, "ints": adapter, "f5": far}.items():
        folders[name] = tmp_path / name
        synthesise_shards(speaker, name, prompts, SAMPLINGS, 0, folders[name])
    return folders


def test_both_answers_of_a_pair_reach_the_policy_the_same_way(
    tmp_path: Path, adapter: ARAdapter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("intp.speech.WORK", tmp_path / "work")
    asked = unseen_prompts(load_params("mini")).head(2)
    asked = asked.assign(target_phonemes="abcd. abc", prompt_phonemes="dcba.")
    speech = foreign(tmp_path, adapter, asked)
    first = asked["id"].iloc[0]
    rows = [
        {
            "pair": f"{w}>{l}", "prompt": first, "chosen_model": w, "rejected_model": l,
            "chosen": f"{w}-{first}-0", "rejected": f"{l}-{first}-1",
        }
        for w, l in product(speech, speech)
    ]  # fmt: skip
    heard = {k: adapter.encode(x) for folder in speech.values() for k, x in read_speech(folder)}
    sampled = {}
    for name in ("ars", "ints"):
        sampled |= read_targets(speech[name], adapter.representation)
    assert read_targets(speech["f5"], adapter.representation) == {}
    assert len(sampled) == 8 and any(not torch.equal(sampled[k], heard[k]) for k in sampled)
    pairs = {pair.id: pair for pair in load_pairs(pd.DataFrame(rows), asked, speech, adapter)}
    for row in rows:
        source = heard if "f5" in row["pair"] else sampled
        assert torch.equal(pairs[row["pair"]].chosen.target, source[row["chosen"]])
        assert torch.equal(pairs[row["pair"]].rejected.target, source[row["rejected"]])
    with pytest.raises(ValueError, match=r"no speech folder for the models \['f5'\]"):
        load_pairs(pd.DataFrame(rows), asked, {k: speech[k] for k in ("ars", "ints")}, adapter)
    gone = pd.DataFrame(rows[:1]).assign(chosen=f"ars-{first}-9")
    with pytest.raises(ValueError, match=f"ars>ars: speech ars-{first}-9 is missing"):
        load_pairs(gone, asked, speech, adapter)
