"""The second round: hard prompts, v1's own pairs, v1 as policy and reference, and Table 6."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from experiments.iterative import NoPairs, hard_prompts, own_pairs, table_6
from experiments.unseen import unseen_prompts
from intp.adapters.ar import ARAdapter
from intp.align import align, load_pairs
from intp.params import Params, load_params
from intp.speech import synthesise_shards
from intp.trainer import Recipe, reference_scores
from report.paper import select

SAMPLINGS = [{"temperature": t, "top_k": 20, "top_p": 1.0, "max_seconds": 0.4} for t in (0.8, 1.2)]


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params("mini")


def prompts(*kinds: str) -> pd.DataFrame:
    """Two prompts of each text type that the tiny model can read, with real references."""
    rows = unseen_prompts(load_params("mini")).head(2 * len(kinds))
    types = [kind for kind in kinds for _ in range(2)]
    return rows.assign(text_type=types, target_phonemes="abcd. abc", prompt_phonemes="dcba.")


def judged(spoken: pd.DataFrame, asked: pd.DataFrame, errors: list[float]) -> pd.DataFrame:
    """A manifest of speech as if the recogniser had found these errors, in order of the rows."""
    rows = spoken.merge(asked.rename(columns={"id": "prompt"}), on="prompt")
    told = {"transcript": "t", "judge": "j", "normaliser": "1"}
    return rows.assign(error=errors, wer=errors, **told)


def test_the_hard_prompts_are_those_of_the_text_types_asked_for(params: Params):
    asked = prompts("regular", "repeated", "code-switching")
    assert (
        list(hard_prompts(asked, params)["text_type"]) == ["repeated"] * 2 + ["code-switching"] * 2
    )
    with pytest.raises(ValueError, match=r"no mining prompts of \['code-switching'\]"):
        hard_prompts(prompts("regular", "repeated"), params)
    perturbed = asked.assign(base=asked["base"].where(asked["text_type"] != "repeated", "other"))
    with pytest.raises(ValueError, match=r"\['repeated'\] are perturbed; C.2 has intra pairs only"):
        hard_prompts(perturbed, params)


@pytest.fixture
def spoken(adapter: ARAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """What the tiny v1 says to four prompts, twice each, in tmp_path/speech."""
    for module in ("speech", "align"):
        monkeypatch.setattr(f"intp.{module}.WORK", tmp_path / "work")
    asked = prompts("repeated", "code-switching")
    return synthesise_shards(adapter, "ints", asked, SAMPLINGS, 0, tmp_path / "speech")


def test_a_model_that_is_never_mined_mines_its_own_speech_here(
    spoken: pd.DataFrame, params: Params
):
    assert "ints" not in params.mining.models
    asked = prompts("repeated", "code-switching")
    # Rows come by sampling: four prompts at 0.8, then the same four at 1.2.
    pairs = own_pairs(judged(spoken, asked, [0, 50, 20, 5, 30, 40, 20, 10.9]), params)
    assert sorted(pairs["gap"]) == [10, 30] and set(pairs["kind"]) == {"intra"}
    assert set(pairs["prompt"]) == set(asked["id"].head(2))
    with pytest.raises(
        NoPairs, match="v1 mined no pair from 4 prompts: no two answers to one differ"
    ):
        own_pairs(judged(spoken, asked, [50.0] * 8), params)


def test_v2_starts_from_v1_which_is_its_reference(
    adapter: ARAdapter, spoken: pd.DataFrame, params: Params, tmp_path: Path
):
    asked = prompts("repeated", "code-switching")
    pairs = own_pairs(judged(spoken, asked, [0, 0, 0, 0, 50, 50, 50, 50]), params)
    speech = {"ints": tmp_path / "speech"}
    examples = load_pairs(pairs, asked, speech, adapter)
    rule = Recipe(lr=3e-3, warmup_steps=1, epochs=4, batch_pairs=4)
    before = reference_scores(adapter, examples, rule)
    log = align(adapter, examples, rule, tmp_path / "v2.safetensors")
    assert abs(log["loss"].iloc[0] - 0.6931) < 1e-3 and log["loss"].iloc[-1] < 0.69
    written = ARAdapter.load(tmp_path / "v2.safetensors", adapter.tokenizer)
    after = reference_scores(written, examples, rule)
    assert after == reference_scores(adapter, examples, rule)  # rounded, it would be another model
    assert all(after[k][0] - after[k][1] > before[k][0] - before[k][1] for k in before)


def scores(error: float) -> pd.DataFrame:
    """Two voices an item in every direction of Table 11, all equally wrong."""
    directions = {
        "regular": ("en", "zh"), "articulatory": ("en", "zh"),
        "code-switching": ("en2mixed", "zh2mixed"), "cross-lingual": ("zh2en", "en2zh"),
    }  # fmt: skip
    rows = [
        {"id": f"{s}-{d}-{v}", "set": s, "direction": d, "voice": v, "wer": error, "error": error,
         "wer_edits": 1, "wer_length": 10, "error_edits": 1, "error_length": 10,
         "sim": 0.6, "quality": 2.0}
        for s, both in directions.items() for d in both for v in ("a", "b")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_table_6_has_the_paper_s_cells_and_each_round_s_difference(params: Params):
    few = dataclasses.replace(params.statistics, resamples=100)
    utmos = dataclasses.replace(params.judges, quality="utmos")
    params = dataclasses.replace(params, statistics=few, judges=utmos)
    rows = {"Ints": scores(150.0), "Ints v1": scores(60.0), "Ints v2": scores(50.0)}
    cells = pd.DataFrame(table_6(rows, {"Ints v1": 300, "Ints v2": 30}, params))
    found = cells.set_index(["row", "column"])
    printed = select("6:*:*")
    assert set(zip(printed["row"], printed["column"], strict=True)) <= set(found.index)
    assert found.loc[("Ints v1", "avg error difference"), "value"] == -90
    assert found.loc[("Ints v1", "avg clamped error difference"), "value"] == -40
    assert found.loc[("Ints v2", "avg clamped error difference"), "value"] == -10
    assert found.loc[("Ints v2", "avg SIM difference"), "value"] == 0
    assert found.loc[("Ints v2", "Preference Data"), "value"] == 30
    assert found.loc[("Ints v2", "avg SIM difference"), "note"] == "mini models; minus Ints v1"
    assert found.loc[("Ints v2", "Preference Data"), "note"] == "mini models; Ints v1 generated"
    assert not cells.duplicated(["row", "column"]).any()
