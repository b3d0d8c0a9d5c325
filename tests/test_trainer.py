"""Alignment starts at log 2, learns true preferences and not shuffled ones, resumes byte for byte."""

import copy
import json
import math
import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import make_prompt
from test_conformance import pairs as answered
from test_flow_matching import make_adapter
from test_masked import build

from intp import trainer
from intp.adapters.ar import ARAdapter
from intp.adapters.base import Adapter, Example
from intp.trainer import (
    Pair,
    Recipe,
    Reference,
    cached_reference,
    reference_scores,
    step_loss,
    train,
)
from networks.tokenizer import SpeechTokenizer

QUICK = Recipe(beta=0.1, lr=3e-3, warmup_steps=4, batch_pairs=4, epochs=2, save_every=2)


def preferences(count: int, shuffled: bool = False) -> list[Pair]:
    """Chosen answers are made of low codes, rejected ones of high codes; both random."""
    pairs = []
    for i in range(count):
        draw = torch.Generator().manual_seed(i)
        prompt = make_prompt(f"p{i}", "abcd"[: 1 + i % 4], 0.3)
        chosen = torch.randint(0, 20, (6 + i % 3,), generator=draw)
        rejected = torch.randint(20, 40, (6 + (i + 1) % 3,), generator=draw)
        if shuffled and i % 2:
            chosen, rejected = rejected, chosen
        pairs.append(Pair(f"pair{i}", Example(prompt, chosen), Example(prompt, rejected)))
    return pairs


def reference_of(adapter: ARAdapter, pairs: list[Pair]) -> Reference:
    scores = reference_scores(adapter, pairs, QUICK)
    return cached_reference({f"0/{name}": value for name, value in scores.items()})


def held_out_accuracy(policy: ARAdapter, reference: ARAdapter, pairs: list[Pair]) -> float:
    known = reference_of(reference, pairs)
    return step_loss(policy, policy.model, pairs, known, QUICK)[1]["accuracy"]


def test_dpo_learns_true_preferences_and_not_shuffled_ones(adapter: ARAdapter, tmp_path):
    held_out = preferences(60)[40:]
    found = {}
    for shuffled in (False, True):
        policy = copy.deepcopy(adapter)
        log = train(policy, preferences(40, shuffled), QUICK, tmp_path / str(shuffled)).log
        assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert log[0]["margin"] == pytest.approx(0, abs=1e-3)
        found[shuffled] = held_out_accuracy(policy, adapter, held_out)
    assert found[False] >= 0.9
    assert found[True] <= found[False] - 0.1


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch):
    """Training rounds as on a machine that is faster in bf16; accelerate settles that only once."""
    monkeypatch.setattr(trainer, "precision", lambda: "bf16")
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("in_bf16")
@pytest.mark.parametrize("reference", ["cached", "live"])
def test_the_reference_is_scored_in_the_policy_s_precision(
    adapter: ARAdapter, tmp_path, reference: str
):
    for weight in adapter.model.parameters():
        weight.data *= 8  # log-probabilities of a size that bf16 rounds off visibly
    rule = replace(QUICK, reference=reference, epochs=1)
    log = train(adapter, preferences(4), rule, tmp_path).log
    assert log[0]["margin"] == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("in_bf16")
def test_a_trained_model_is_as_precise_as_before(adapter: ARAdapter, tmp_path):
    fresh, pairs = copy.deepcopy(adapter), preferences(4)
    fresh.model.load_state_dict(train(adapter, pairs, QUICK, tmp_path).weights)
    inputs = adapter.batch([pair.chosen for pair in pairs])
    assert torch.equal(adapter.score(adapter.model, inputs), fresh.score(fresh.model, inputs))


def test_the_reference_gets_no_gradient(adapter: ARAdapter):
    pairs = preferences(3)
    reference = copy.deepcopy(adapter)
    known = reference_of(reference, pairs)
    step_loss(adapter, adapter.model, pairs, known, QUICK)[0].backward()
    assert all(p.grad is None for p in reference.model.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.model.parameters())


def test_equal_answers_give_no_gradient(adapter: ARAdapter):
    pair = preferences(1)[0]
    same = [Pair("same", pair.chosen, pair.chosen)]
    step_loss(adapter, adapter.model, same, reference_of(adapter, same), QUICK)[0].backward()
    assert max(p.grad.abs().max() for p in adapter.model.parameters()) < 1e-6


def test_swapping_roles_flips_the_margin(adapter: ARAdapter):
    reference = copy.deepcopy(adapter)
    with torch.no_grad():
        for p in adapter.model.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    pairs = preferences(4)
    swapped = [Pair(p.id, p.rejected, p.chosen) for p in pairs]
    margins = [
        step_loss(adapter, adapter.model, rows, reference_of(reference, rows), QUICK)[1]["margin"]
        for rows in (pairs, swapped)
    ]
    assert margins[0] == pytest.approx(-margins[1], abs=1e-4)


def killed_after(steps: int, adapter: Adapter, work: Path, rule: Recipe, pairs: list[Pair]) -> None:
    """Train, and die before the update that follows `steps` updates."""
    left, update = iter(range(steps)), trainer.update

    def dying(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return update(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "update", dying)
        with pytest.raises(KeyboardInterrupt):
            train(adapter, pairs, rule, work)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_at_random_steps_ends_as_one_never_killed(
    adapter: ARAdapter, tmp_path: Path, seed: int
):
    """Three times, each past another saved state, and once as if between a state's two renames."""
    rule, draw = replace(QUICK, epochs=4), random.Random(seed)
    whole, work, reached = copy.deepcopy(adapter), tmp_path / "killed", []
    expected = train(whole, preferences(16), rule, tmp_path / "whole")
    for number, steps in enumerate(draw.sample(range(2, 6), 3)):
        killed_after(steps, copy.deepcopy(adapter), work, rule, preferences(16))
        reached.append(len(json.loads((work / "last" / "log.json").read_text())))
        if number == 1:
            (work / "last").replace(work / "old")
    assert 0 < reached[0] < reached[1] < reached[2] < len(expected.log) == 16
    resumed = copy.deepcopy(adapter)
    found = train(resumed, preferences(16), rule, work)
    assert found.log == expected.log
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    for name in ("model.safetensors", "log.json"):
        mine, theirs = (tmp_path / run / "last" / name for run in ("killed", "whole"))
        assert mine.read_bytes() == theirs.read_bytes(), name


def of_chance(kind: str, tokenizer: SpeechTokenizer) -> Adapter:
    """A tiny model whose score hangs on what is drawn."""
    return make_adapter() if kind == "flow matching" else build(tokenizer)


@pytest.mark.parametrize("method", ["dpo", "sft"])
@pytest.mark.parametrize("kind", ["flow matching", "masked"])
def test_models_of_chance_learn_for_two_epochs_and_resume_within_the_second(
    kind: str, method: str, tokenizer: SpeechTokenizer, tmp_path: Path
):
    rule = replace(QUICK, method=method, lr=1e-3, batch_pairs=2, save_every=1, sft_weight=0.5)
    runs = [of_chance(kind, tokenizer) for _ in range(3)]
    pairs = answered(runs[0])
    expected = train(runs[0], pairs, rule, tmp_path / "whole")
    killed_after(3, runs[1], tmp_path / "killed", rule, pairs)
    found = train(runs[2], pairs, rule, tmp_path / "killed")
    assert found.log == expected.log and len(found.log) == 4
    for name, weight in runs[0].model.state_dict().items():
        assert torch.equal(weight, runs[2].model.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["flow matching", "masked"])
def test_what_is_drawn_follows_seed_and_epoch(kind: str, tokenizer: SpeechTokenizer):
    adapter, known = of_chance(kind, tokenizer), set()
    for method, seed, epoch in product(("dpo", "sft"), (0, 1), (0, 1)):
        rule = replace(QUICK, method=method, seed=seed)
        reference = None if method == "sft" else lambda inputs, keys: torch.zeros(2 * len(keys))
        loss, _ = step_loss(adapter, adapter.model, answered(adapter), reference, rule, epoch)
        known.add(loss.item())
    assert len(known) == 8


def test_sft_raises_the_likelihood_of_the_chosen(adapter: ARAdapter, tmp_path):
    recipe = Recipe(method="sft", lr=1e-3, warmup_steps=2, batch_pairs=4, epochs=2)
    log = train(adapter, preferences(16), recipe, tmp_path).log
    assert log[-1]["loss"] < log[0]["loss"]


def test_nothing_to_train_on_is_an_error(adapter: ARAdapter, tmp_path):
    with pytest.raises(ValueError, match="no pairs"):
        train(adapter, [], QUICK, tmp_path)


def test_the_schedule_is_the_papers():
    recipe = Recipe(warmup_steps=4000)
    assert recipe.rate(3999) == 1
    assert recipe.rate(1999) == pytest.approx(0.5)
    assert recipe.rate(15999) == pytest.approx(0.5)


def test_a_pair_answers_one_prompt():
    a, b = preferences(2)
    with pytest.raises(ValueError, match="different prompts"):
        Pair("x", a.chosen, b.rejected)
