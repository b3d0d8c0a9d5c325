"""Every adapter passes the conformance command's checks; a wrongly masked one is found out."""

from pathlib import Path

import torch
from conftest import make_prompt

from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Adapter, Example
from intp.conformance import conformance, table
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
    """What the best-known open TTS DPO does: the mask that means "ignored" read as "counted", so
    that text and padding are scored and speech is not."""

    def batch(self, examples, draws=()):
        rows = []
        for e in examples:
            prefix = self.prefix(e.prompt, self.encode(e.prompt.reference_speech))
            rows.append(self.sequence(*prefix, e.target))
        batch = self.pad(rows)
        ignored = batch["labels"] == IGNORE
        return batch | {"labels": torch.where(ignored, batch["input_ids"].roll(-1, 1), IGNORE)}

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


def test_an_inverted_mask_is_found_out(adapter: ARAdapter, tokenizer: SpeechTokenizer):
    wrong = InvertedMask(adapter.config, tokenizer, adapter.model)
    found = checks(wrong, lambda path: InvertedMask.load(path, tokenizer))
    for check in (
        "padding and batch mates change nothing",
        "positions counted do not hang on the prompt",
    ):
        assert not found[check]
