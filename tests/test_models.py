"""A model's name and configuration give its adapter, in our own format or in a published one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_prompt
from safetensors.torch import save_file
from test_flow_matching import TINY, make_adapter
from test_masked import SIZES, build

import intp.models
from intp.adapters.ar import ARAdapter
from intp.adapters.flow_matching import FlowMatchingAdapter
from intp.adapters.masked import MaskedAdapter
from intp.models import load_adapter
from intp.params import Model, Params, load_params


def with_model(kind: str, checkpoint: Path, config: dict, published: dict | None) -> Params:
    model = Model(
        label="Tiny",
        adapter=f"intp.adapters.{kind}", checkpoint=str(checkpoint), config=config,
        published=published,
    )  # fmt: skip
    params = load_params("mini")
    return replace(params, models=params.models | {"tiny": model})


@pytest.fixture
def no_tokenizer(monkeypatch, tmp_path: Path) -> None:
    """A checkout without the mini tokenizer's checkpoint."""
    monkeypatch.setattr(intp.models, "TOKENIZER", tmp_path / "absent.safetensors")


def test_published_f5_loads_by_configuration(tmp_path: Path, no_tokenizer):
    path, vocabulary = tmp_path / "model.safetensors", tmp_path / "vocab.txt"
    vocabulary.write_text("".join(f"{symbol}\n" for symbol in " abcd."))
    weights = make_adapter().model.state_dict()
    save_file({f"ema_model.transformer.{k}": v for k, v in weights.items()}, path)
    published = {"vocabulary": str(vocabulary), "text": "pinyin", "text_positions": "plain"}
    params = with_model("flow_matching:FlowMatchingAdapter", path, TINY, published)
    loaded = load_adapter("tiny", params)
    assert all(torch.equal(v, weights[k]) for k, v in loaded.model.state_dict().items())
    assert loaded.ids["a"] == 1 and loaded.config.text == "pinyin"
    loaded.save(tmp_path / "aligned.safetensors")
    assert load_adapter("tiny", params, tmp_path / "aligned.safetensors").config == loaded.config


def test_published_maskgct_loads_by_configuration(tokenizer, tmp_path: Path, no_tokenizer):
    path = tmp_path / "model.safetensors"
    published = {"tokens": 64, "phonemes": list("abcd ."), "text_positions": "plain"}
    sizes = SIZES | {"phone_table": 20}
    weights = build(tokenizer, **published, model=sizes).model.state_dict()
    save_file({k: v.clone() for k, v in weights.items()}, path)
    loaded = load_adapter("tiny", with_model("masked:MaskedAdapter", path, sizes, published))
    assert all(torch.equal(v, weights[k]) for k, v in loaded.model.state_dict().items())
    with pytest.raises(ValueError, match="mini tokenizer"):
        loaded.encode(make_prompt("x").reference_speech)


def test_a_file_in_another_layout_and_an_adapter_that_lacks_something_are_named(
    adapter: ARAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "theirs.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"theirs\.safetensors: not written by .*published:"):
        load_adapter("tiny", with_model("ar:ARAdapter", path, {}, None))
    adapter.save(path)
    monkeypatch.delattr(ARAdapter, "stochastic")
    with pytest.raises(TypeError, match="ARAdapter has no stochastic"):
        load_adapter("tiny", with_model("ar:ARAdapter", path, {}, None))


@pytest.mark.parametrize("kind", [ARAdapter, FlowMatchingAdapter, MaskedAdapter])
def test_a_setting_that_is_misspelt_or_missing_is_named(kind: type, adapter: ARAdapter, tokenizer):
    models = [adapter, make_adapter(), build(tokenizer)]
    (model,) = [model for model in models if isinstance(model, kind)]
    known = load_params("mini").sampling
    right = known[{ARAdapter: "ars", FlowMatchingAdapter: "f5", MaskedAdapter: "maskgct"}[kind]]
    wrong = {k: v for k, v in right.evaluation.items() if k != "max_seconds"} | {"max_secs": 1.0}
    with pytest.raises(ValueError, match=r"\['max_seconds'\] missing and \['max_secs'\] unknown"):
        model.synthesise([make_prompt("a")], wrong, [0])


def test_our_own_format_needs_the_mini_tokenizer(adapter: ARAdapter, tmp_path: Path, no_tokenizer):
    adapter.save(tmp_path / "ars.safetensors")
    params = with_model("ar:ARAdapter", tmp_path / "ars.safetensors", {}, None)
    with pytest.raises(FileNotFoundError, match="dvc pull"):
        load_adapter("tiny", params)
    with pytest.raises(ValueError, match=r"models\.none: unknown"):
        load_adapter("none", params)
