"""One loop on accelerate that aligns any adapter: DPO on pairs, or SFT on the chosen only."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm import tqdm

from intp.adapters.base import Adapter, Example
from intp.losses import preference_loss


@dataclass(frozen=True)
class Pair:
    """One preference: the same prompt, a chosen and a rejected answer (Section 3, D = {(x, w, l)})."""

    id: str
    chosen: Example
    rejected: Example

    def __post_init__(self) -> None:
        if self.chosen.prompt.id != self.rejected.prompt.id:
            raise ValueError(f"pair {self.id}: chosen and rejected answer different prompts")

    @property
    def length(self) -> int:
        """Positions of the longer answer; batches are bucketed by it."""
        return max(len(self.chosen.target), len(self.rejected.target))


@dataclass(frozen=True)
class Recipe:
    """How to train (Appendix D): AdamW (0.9, 0.999), warm-up, then inverse square root."""

    method: str = "dpo"
    beta: float = 0.1
    kind: str = "sigmoid"
    lr: float = 5e-6
    warmup_steps: int = 4000
    epochs: int = 1
    batch_pairs: int = 8
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    save_every: int = 50

    def __post_init__(self) -> None:
        if self.method not in ("dpo", "sft"):
            raise ValueError(f"method: expected 'dpo' or 'sft', got {self.method!r}")

    def rate(self, step: int) -> float:
        """Share of `lr` at `step`: linear to 1 over the warm-up, then the inverse square root."""
        warm = max(1, self.warmup_steps)
        return min((step + 1) / warm, (warm / (step + 1)) ** 0.5)


def batches(pairs: Sequence[Pair], size: int, seed: int) -> list[list[Pair]]:
    """Batches of pairs of similar length, in a seeded random order."""
    ordered = sorted(pairs, key=lambda p: (p.length, p.id))
    cut = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    order = torch.randperm(len(cut), generator=torch.Generator().manual_seed(seed)).tolist()
    return [cut[i] for i in order]


@torch.no_grad()
def reference_scores(
    adapter: Adapter, pairs: Sequence[Pair], size: int, progress: str | None = None
) -> dict[str, tuple[float, float]]:
    """log p_ref of chosen and rejected of every pair, computed once before the policy moves."""
    adapter.model.eval()
    scores: dict[str, tuple[float, float]] = {}
    for batch in tqdm(batches(pairs, size, 0), desc=progress, disable=progress is None):
        examples = [p.chosen for p in batch] + [p.rejected for p in batch]
        chosen, rejected = adapter.score(adapter.model, adapter.batch(examples)).chunk(2)
        for pair, w, l in zip(batch, chosen.tolist(), rejected.tolist(), strict=True):
            scores[pair.id] = (w, l)
    return scores


def step_loss(
    adapter: Adapter,
    model: nn.Module,
    batch: list[Pair],
    reference: dict[str, tuple[float, float]],
    recipe: Recipe,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch of pairs and what to log of it."""
    if recipe.method == "sft":
        inputs = adapter.batch([p.chosen for p in batch])
        loss = -adapter.score(model, inputs, reduction="mean").mean()
        return loss, {"loss": loss.item()}
    examples = [p.chosen for p in batch] + [p.rejected for p in batch]
    chosen, rejected = adapter.score(model, adapter.batch(examples)).chunk(2)
    known = torch.tensor([reference[p.id] for p in batch], dtype=chosen.dtype)
    out = preference_loss(
        chosen - known[:, 0], rejected - known[:, 1], beta=recipe.beta, kind=recipe.kind
    )
    parts = {
        "loss": out.loss.item(),
        "chosen_reward": out.chosen_reward.mean().item(),
        "rejected_reward": out.rejected_reward.mean().item(),
        "margin": out.margin.mean().item(),
        "accuracy": out.accuracy.mean().item(),
    }
    return out.loss, parts


def train(
    adapter: Adapter,
    pairs: Sequence[Pair],
    recipe: Recipe,
    work: Path,
    progress: str | None = None,
) -> list[dict[str, float]]:
    """Align `adapter.model` in place; returns the log, one row a step.

    Runs from `work/last.pt` if it was killed before; the finished run is the same either way.
    Raises ValueError when there is nothing to learn from.
    """
    if not pairs:
        raise ValueError("no pairs to train on: mine with a lower threshold or more prompts")
    torch.set_flush_denormal(True)
    set_seed(recipe.seed)
    work.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    reference: dict[str, tuple[float, float]] = {}
    if recipe.method == "dpo":
        reference = cached_scores(adapter, pairs, recipe.batch_pairs, work / "reference.json")
    optimizer = torch.optim.AdamW(
        adapter.model.parameters(), recipe.lr, betas=(0.9, 0.999), weight_decay=recipe.weight_decay
    )
    model, optimizer = accelerator.prepare(adapter.model, optimizer)
    plan = [
        batch
        for epoch in range(recipe.epochs)
        for batch in batches(pairs, recipe.batch_pairs, recipe.seed + epoch)
    ]
    start, log = resume(work / "last.pt", model, optimizer)
    model.eval()  # dropout off, as in the reference: a margin must not hang on chance
    for step in tqdm(range(start, len(plan)), desc=progress, disable=progress is None):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.rate(step)
        loss, parts = step_loss(adapter, model, plan[step], reference, recipe)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        log.append({"step": step + 1} | parts | {"grad_norm": float(norm)})
        if (step + 1) % recipe.save_every == 0:
            save_state(work / "last.pt", model, optimizer, log)
    save_state(work / "last.pt", model, optimizer, log)
    return log


def cached_scores(
    adapter: Adapter, pairs: Sequence[Pair], size: int, path: Path
) -> dict[str, tuple[float, float]]:
    """`reference_scores`, kept beside the run: a resumed policy is no longer the reference."""
    if path.is_file():
        return {k: tuple(v) for k, v in json.loads(path.read_text()).items()}
    scores = reference_scores(adapter, pairs, size)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(scores))
    partial.replace(path)
    return scores


def save_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, log: list) -> None:
    """Write the state of a run whole."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": log}
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list]:
    """The step to go on from and the log so far; a fresh start if there is no state."""
    if not path.is_file():
        return 0, []
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return len(state["log"]), state["log"]
