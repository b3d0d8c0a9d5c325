"""Every adapter passes the conformance command's checks; a wrongly masked one is found out."""

from pathlib import Path

import pytest
import torch
from conftest import make_prompt
from test_layouts import SPEECH, make_layout

from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Adapter, Example
from intp.conformance import conformance, main, table
from intp.losses import IGNORE, ar_logps
from intp.trainer import Pair
from networks.tokenizer import SpeechTokenizer


def pairs(adapter: Adapter) -> list[Pair]:
    """Three pairs of prompts and answers of different lengths."""
    prompts = [make_prompt("a", "abc", 0.5), make_prompt("bb", "abcd abcd."), make_prompt("c")]
    speech = adapter.encode(make_prompt("speech", seconds=2.0).reference_speech)
    lengths = ((20, 11), (9, 26), (30, 14))
    return [
        Pair(p.id, Example(p, speech[:w]), Example(p, speech[-l:]))
        for p, (w, l) in zip(prompts, lengths, strict=True)
    ]


def tiny_qwen2(tokenizer: SpeechTokenizer) -> ARAdapter:
    """Another causal LM of transformers behind the same adapter, as CosyVoice 2's is."""
    torch.manual_seed(3)
    sizes = {
        "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    config = ARConfig(phonemes=list("abcd ."), text_positions="plain", model=sizes)
    return ARAdapter(config, tokenizer)


class InvertedMask(ARAdapter):
    """CosyVoice's own DPO (`cosyvoice/llm/llm.py`): the mask that means "ignored" read as "counted",
    so that token 0 is scored wherever text or padding stands, and speech is not."""

    def batch(self, examples, draws=()):
        rows = []
        for e in examples:
            prefix = self.prefix(e.prompt, self.encode(e.prompt.reference_speech))
            rows.append(self.sequence(*prefix, e.target))
        batch = self.pad(rows)
        ignored = batch["labels"] == IGNORE
        return batch | {"labels": torch.where(ignored, 0, IGNORE)}

    def score(self, model, batch, reduction="sum"):
        inputs = {k: batch[k] for k in ("input_ids", "position_ids", "attention_mask")}
        return ar_logps(model(**inputs).logits, batch["labels"], reduction)


def checks(adapter: Adapter, load) -> dict[str, bool]:
    found = table(conformance(adapter, pairs(adapter), load))
    print(found.to_string())
    return dict(zip(found["check"], found["passed"], strict=True))


def test_ar_conforms(adapter: ARAdapter, tokenizer: SpeechTokenizer):
    found = checks(adapter, lambda path: ARAdapter.load(path, tokenizer))
    assert all(found.values()), found


def test_qwen2_conforms(tokenizer: SpeechTokenizer):
    adapter = tiny_qwen2(tokenizer)

    def load(path: Path) -> ARAdapter:
        return ARAdapter.load(path, tokenizer)

    found = checks(adapter, load)
    assert all(found.values()), found


def test_flow_matching_conforms(tokenizer: SpeechTokenizer):
    from test_flow_matching import make_adapter

    adapter = make_adapter()
    found = checks(adapter, lambda path: type(adapter).load(path, tokenizer))
    assert all(found.values()), found


def test_masked_conforms(tokenizer: SpeechTokenizer):
    from test_masked import build

    adapter = build(tokenizer)
    found = checks(adapter, lambda path: type(adapter).load(path, tokenizer))
    assert all(found.values()), found


def test_a_prompt_without_phonemes_is_named(adapter: ARAdapter, tokenizer: SpeechTokenizer):
    from test_flow_matching import make_adapter
    from test_masked import build

    empty = make_prompt("nobody-wrote-them", "")
    for model in (adapter, make_adapter(), build(tokenizer)):
        with pytest.raises(ValueError, match="nobody-wrote-them: target_phonemes is empty"):
            model.batch([Example(empty, model.encode(empty.reference_speech))])


@pytest.mark.parametrize("layout", SPEECH)
def test_published_ar_layouts_conform(layout: str, tokenizer: SpeechTokenizer, tmp_path: Path):
    adapter = make_layout(layout, tmp_path, tokenizer)
    found = checks(adapter, lambda path: ARAdapter.load(path, tokenizer))
    assert all(found.values()), found


@pytest.mark.parametrize("layout", ["ars", "cosyvoice2"])
def test_an_inverted_mask_is_found_out(
    layout: str, adapter: ARAdapter, tokenizer: SpeechTokenizer, tmp_path: Path
):
    right = adapter if layout == "ars" else make_layout(layout, tmp_path, tokenizer)
    wrong = InvertedMask(right.config, tokenizer, right.model)
    found = checks(wrong, lambda path: InvertedMask.load(path, tokenizer))
    for check in (
        "padding and batch mates change nothing",
        "positions counted do not hang on the prompt",
    ):
        assert not found[check]


@pytest.mark.parametrize("kind", [ARAdapter, InvertedMask])
def test_the_command_fails_on_the_inverted_mask_alone(
    kind: type, tokenizer: SpeechTokenizer, tmp_path: Path, monkeypatch
):
    right = make_layout("cosyvoice2", tmp_path, tokenizer)

    def load(name: str, params: object, path: Path | None = None) -> ARAdapter:
        made = kind(right.config, tokenizer, right.model)
        return made if path is None else kind.load(path, tokenizer)

    monkeypatch.setattr("intp.models.load_adapter", load)
    monkeypatch.setattr("intp.conformance.development_pairs", lambda adapter, _: pairs(adapter))
    monkeypatch.setattr("sys.argv", ["conformance", "--model", "cosyvoice2"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert bool(stopped.value.code) == (kind is InvertedMask)
