"""What a right preference loss must satisfy, checked on any adapter, ours or yours.

    python -m intp.conformance --model ars

Prints one row a check with the number that was found and its limit; exits 1 if one fails.
"""

import argparse
import copy
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from intp.adapters.base import Adapter, Example, draw
from intp.trainer import Pair, Recipe, live_reference, step_loss

NEAR = 1e-5  # relative; float32 sums over hundreds of positions
EXACT = 0.0
RULE = Recipe(beta=0.1)


@dataclass(frozen=True)
class Check:
    """One property: what was found, and the most it may be."""

    check: str
    found: float
    at_most: float

    @property
    def passed(self) -> bool:
        """Whether it holds; a number that is none never does."""
        return self.found <= self.at_most


def score(adapter: Adapter, examples: list[Example], seed: int = 0, **reduction: str) -> Tensor:
    """Scores [B] of examples, all in one batch, with draws as in a pair "x"."""
    inputs = adapter.batch(examples, [draw("x", e, seed) for e in examples])
    with torch.no_grad():
        return adapter.score(adapter.model, inputs, **reduction).double()


def apart(a: Tensor, b: Tensor) -> float:
    """The largest relative difference."""
    return ((a - b).abs() / a.abs().clamp_min(1)).max().item()


def moved(adapter: Adapter) -> nn.Module:
    """A copy of the model a little way off, as a policy in training is."""
    policy = copy.deepcopy(adapter.model)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.parameters():
            size = 0.02 * weight.std() if weight.numel() > 1 else 0.0
            weight.add_(size * torch.randn(weight.shape, generator=noise).to(weight))
    return policy


def start(adapter: Adapter, pairs: list[Pair]) -> tuple[float, float]:
    """Distance of the first loss from log 2, and of the first margin from 0."""
    loss, parts = step_loss(adapter, adapter.model, pairs, live_reference(adapter, RULE), RULE)
    return abs(loss.item() - math.log(2)), abs(parts["margin"])


def swap(adapter: Adapter, pairs: list[Pair]) -> float:
    """How far the margins of swapped pairs are from the negated ones."""
    policy, reference = moved(adapter), live_reference(adapter, RULE)
    swapped = [Pair(p.id, p.rejected, p.chosen) for p in pairs]
    margins = [
        step_loss(adapter, policy, [pair], reference, RULE)[1]["margin"]
        for rows in (pairs, swapped)
        for pair in rows
    ]
    half = len(pairs)
    size = max(1.0, *(abs(m) for m in margins))
    return max(abs(a + b) for a, b in zip(margins[:half], margins[half:], strict=True)) / size


def positions(adapter: Adapter, example: Example) -> Tensor:
    """How many numbers a score is summed over, told by the ratio of sum and mean."""
    both = [score(adapter, [example], reduction=kind) for kind in ("sum", "mean")]
    return both[0] / both[1]


def counted(adapter: Adapter, pairs: list[Pair]) -> tuple[float, float]:
    """Positions counted beyond the target and its end, and their change with the prompt alone."""
    beyond, change = 0.0, 0.0
    for pair in pairs:
        example = pair.chosen
        width = example.target[0].numel() if len(example.target) else 1
        found = positions(adapter, example)
        beyond = max(beyond, found.item() - (len(example.target) + 1) * width)
        longer = replace(
            example.prompt,
            prompt_text=example.prompt.prompt_text + " " + example.prompt.prompt_text,
            prompt_phonemes=example.prompt.prompt_phonemes + " " + example.prompt.prompt_phonemes,
            reference_speech=example.prompt.reference_speech.repeat(2),
        )
        other = positions(adapter, Example(longer, example.target))
        change = max(change, (found - other).abs().item() / width)
    return beyond, change


def gradients(adapter: Adapter, pairs: list[Pair]) -> tuple[float, float]:
    """The reference's largest gradient, and whether the policy lacks one (1 if it does)."""
    frozen = copy.copy(adapter)
    frozen.model = copy.deepcopy(adapter.model)
    reference = live_reference(frozen, RULE)
    policy = copy.deepcopy(adapter.model).requires_grad_(True)
    policy.zero_grad()
    step_loss(adapter, policy, pairs, reference, RULE)[0].backward()
    theirs = [p.grad.abs().max().item() for p in frozen.model.parameters() if p.grad is not None]
    ours = [p.grad.abs().max().item() for p in policy.parameters() if p.grad is not None]
    return max(theirs, default=0.0), float(not ours or max(ours) == 0)


def equal_answers(adapter: Adapter, pairs: list[Pair]) -> float:
    """The largest gradient of pairs whose chosen is their rejected."""
    policy = moved(adapter).requires_grad_(True)
    policy.zero_grad()
    same = [Pair(p.id, p.chosen, p.chosen) for p in pairs]
    step_loss(adapter, policy, same, live_reference(adapter, RULE), RULE)[0].backward()
    return max(p.grad.abs().max().item() for p in policy.parameters() if p.grad is not None)


def save_and_load(adapter: Adapter, pairs: list[Pair], load: Callable[[Path], Adapter]) -> float:
    """How far scores move when a loaded model is saved and loaded again."""
    with tempfile.TemporaryDirectory() as folder:
        adapter.save(Path(folder) / "once.safetensors")
        once = load(Path(folder) / "once.safetensors")
        once.save(Path(folder) / "twice.safetensors")
        twice = load(Path(folder) / "twice.safetensors")
    examples = [p.chosen for p in pairs]
    return apart(score(once, examples), score(twice, examples))


def conformance(
    adapter: Adapter, pairs: list[Pair], load: Callable[[Path], Adapter]
) -> list[Check]:
    """Run every check; `pairs` should be of different lengths, `load` reads what `save` wrote."""
    adapter.model.eval()
    examples = [e for p in pairs for e in (p.chosen, p.rejected)]
    alone = torch.cat([score(adapter, [e]) for e in examples])
    loss, margin = start(adapter, pairs)
    beyond, change = counted(adapter, pairs)
    reference, none = gradients(adapter, pairs)
    again = apart(alone, torch.cat([score(adapter, [e]) for e in examples]))
    return [
        Check("loss is log 2 at the start", loss, 1e-6),
        Check("margin is 0 at the start", margin, 1e-6),
        Check("swapping chosen and rejected negates the margin", swap(adapter, pairs), NEAR),
        Check(
            "padding and batch mates change nothing", apart(alone, score(adapter, examples)), NEAR
        ),
        Check(
            "batch order changes nothing",
            apart(score(adapter, examples), score(adapter, examples[::-1]).flip(0)),
            NEAR,
        ),
        Check("the same draw gives the same score", again, EXACT),
        Check("positions counted beyond the target and its end", beyond, 0.5),
        Check("positions counted do not hang on the prompt", change, 0.5),
        Check("the reference gets no gradient", reference, EXACT),
        Check("the policy gets none", none, EXACT),
        Check("equal answers give no gradient", equal_answers(adapter, pairs), NEAR),
        Check("saved and loaded, it scores alike", save_and_load(adapter, pairs, load), EXACT),
    ]


def development_pairs(adapter: Adapter, count: int) -> list[Pair]:
    """Pairs for checking: development prompts, answered by other development recordings."""
    from intp.prompts import held_out_prompts, load_prompts

    prompts = load_prompts(held_out_prompts("development", count, ["regular"]))[: count + 1]
    answers = [adapter.encode(p.reference_speech) for p in prompts]
    return [
        Pair(p.id, Example(p, answers[i + 1]), Example(p, answers[i][: len(answers[i]) // 2]))
        for i, p in enumerate(prompts[:-1])
    ]


def table(checks: list[Check]) -> pd.DataFrame:
    """Checks as a table."""
    return pd.DataFrame([asdict(c) | {"passed": c.passed} for c in checks])


def main() -> None:
    """Check one model of `params.yaml`."""
    from intp.models import load_adapter
    from intp.params import load_params

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True, help="a name under `models:` in params.yaml")
    parser.add_argument("--pairs", type=int, default=3, help="how many pairs to check on")
    options = parser.parse_args()
    params = load_params()
    adapter = load_adapter(options.model, params)
    pairs = development_pairs(adapter, options.pairs)
    found = conformance(adapter, pairs, lambda path: load_adapter(options.model, params, path))
    print(table(found).to_string(index=False, float_format=lambda x: f"{x:.2g}"))
    sys.exit(any(not check.passed for check in found))


if __name__ == "__main__":
    main()
