"""The AR adapter scores target tokens only, and neither padding nor batch mates change anything."""

import pytest
import torch
from conftest import make_prompt

from intp.adapters.ar import ARAdapter
from intp.adapters.base import Example
from intp.losses import IGNORE


def examples(prompts: list) -> list[Example]:
    lengths = (5, 30, 12)
    return [
        Example(p, torch.randint(1000, (n,), generator=torch.Generator().manual_seed(n)))
        for p, n in zip(prompts, lengths, strict=True)
    ]


def plain_batch(adapter: ARAdapter, example: Example) -> dict[str, torch.Tensor]:
    """One example as pretraining sees it: one sequence and nothing beside it."""
    tokens = adapter.encode(example.prompt.reference_speech)
    return adapter.pad([adapter.sequence(*adapter.prefix(example.prompt, tokens), example.target)])


def test_a_single_token_can_be_heard(adapter: ARAdapter):
    reference = make_prompt("x").reference_speech
    found = [len(adapter.decode(torch.arange(count), reference)) for count in (0, 1, 2, 9)]
    assert found == [1600, 256, 3 * 256, 17 * 256]


def logits_of(adapter: ARAdapter, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {k: batch[k] for k in ("input_ids", "position_ids", "attention_mask")}
    return adapter.model(**inputs).logits[0]


@torch.no_grad()
def test_score_is_the_sum_over_target_and_eos(adapter: ARAdapter, prompts: list):
    example = examples(prompts)[0]
    batch = plain_batch(adapter, example)
    logps = logits_of(adapter, batch).log_softmax(-1)
    first = batch["input_ids"].shape[1] - len(example.target) - 1
    wanted = [*example.target.tolist(), adapter.ids["eos_target"]]
    by_hand = sum(logps[first + i, token] for i, token in enumerate(wanted))
    found = adapter.score(adapter.model, adapter.batch([example])).item()
    assert found == pytest.approx(by_hand.item(), abs=1e-4)
    assert (batch["labels"] != IGNORE).sum() == len(wanted)


@torch.no_grad()
def test_answers_that_share_a_prompt_score_as_alone(adapter: ARAdapter, prompts: list):
    targets = [e.target for e in examples(prompts)]
    shared = [Example(prompts[1], target) for target in targets]
    mixed = [*shared, Example(prompts[0], targets[0])]
    batch = adapter.batch(mixed)
    assert len(batch["input_ids"]) == 2
    alone = torch.cat([adapter.score(adapter.model, adapter.batch([e])) for e in mixed])
    assert torch.allclose(adapter.score(adapter.model, batch), alone, atol=1e-4, rtol=1e-6)


@torch.no_grad()
def test_padding_order_and_batch_mates_change_nothing(adapter: ARAdapter, prompts: list):
    rows = examples(prompts)
    alone = torch.cat([adapter.score(adapter.model, adapter.batch([r])) for r in rows])
    together = adapter.score(adapter.model, adapter.batch(rows))
    backwards = adapter.score(adapter.model, adapter.batch(rows[::-1])).flip(0)
    assert torch.allclose(alone, together, atol=1e-4, rtol=1e-6)
    assert torch.allclose(alone, backwards, atol=1e-4, rtol=1e-6)


def test_generation_depends_on_the_seed_alone(adapter: ARAdapter, prompts: list):
    sampling = {"temperature": 1.0, "top_k": 20, "top_p": 1.0, "max_seconds": 1.0}
    together = adapter.generate(prompts, sampling, [7, 8, 9])
    alone = [
        adapter.generate([p], sampling, [s])[0] for p, s in zip(prompts, (7, 8, 9), strict=True)
    ]
    other = adapter.generate(prompts, sampling, [17, 18, 19])
    for (a, _), (b, _) in zip(together, alone, strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for (a, _), (b, _) in zip(together, other, strict=True))


def test_generated_tokens_have_the_probability_that_score_gives(adapter: ARAdapter, prompts: list):
    sampling = {"temperature": 1e-4, "top_k": 20, "top_p": 1.0, "max_seconds": 0.5}
    tokens, _ = adapter.generate(prompts[:1], sampling, [0])[0]
    batch = plain_batch(adapter, Example(prompts[0], tokens))
    logits = logits_of(adapter, batch)
    allowed = torch.cat([logits[:, :1000], logits[:, adapter.ids["eos_target"], None]], dim=1)
    first = batch["input_ids"].shape[1] - len(tokens) - 1
    assert torch.equal(allowed[first : first + len(tokens)].argmax(1), tokens)


def test_a_model_that_never_stops_is_cut_and_said_so(
    adapter: ARAdapter, prompts: list, monkeypatch
):
    monkeypatch.setattr(adapter, "sample", lambda logits, *_: torch.full((len(logits),), 7))
    sampling = {"temperature": 0.1, "top_k": 1, "top_p": 1.0, "max_seconds": 0.4}
    tokens, stopped = adapter.generate(prompts[:1], sampling, [0])[0]
    assert len(tokens) == int(0.4 * 31.25) and not stopped


def test_text_positions_share_the_time_axis_of_speech(adapter: ARAdapter):
    prompt = make_prompt("x", "abcdabcd.")
    tokens = torch.arange(20)
    _, positions = adapter.prefix(prompt, tokens)
    spoken = len(prompt.prompt_phonemes) + 1
    assert positions[spoken].item() == pytest.approx(len(tokens) - 0.5 * len(tokens) / spoken)
    assert positions[-1].item() == len(tokens)


def test_unknown_phoneme_is_named(adapter: ARAdapter):
    with pytest.raises(ValueError, match="ʒ"):
        adapter.phones("abʒ")


def test_save_and_load_give_the_same_scores(adapter: ARAdapter, prompts: list, tmp_path):
    adapter.save(tmp_path / "first.safetensors")
    first = ARAdapter.load(tmp_path / "first.safetensors", adapter.tokenizer)
    first.save(tmp_path / "second.safetensors")
    second = ARAdapter.load(tmp_path / "second.safetensors", adapter.tokenizer)
    batch = adapter.batch(examples(prompts))
    assert torch.equal(first.score(first.model, batch), second.score(second.model, batch))
