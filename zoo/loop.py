"""The one loop that pretrains every mini model, and how it draws its batches."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from intp.device import precision
from intp.files import whole
from zoo.muon import optimizers

Optimizers = list[torch.optim.Optimizer]


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a pretraining run: linear warm-up, then linear to zero."""

    steps: int
    lr: float
    warmup: int = 100
    clip: float = 1.0
    weight_decay: float = 0.01
    save_every: int = 100
    seed: int = 0
    optimizer: str = "adamw"

    def rate(self, step: int) -> float:
        """Share of `lr` in force at `step`."""
        return min((step + 1) / self.warmup, max(0.0, 1 - step / self.steps))


def pretrain(
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    work: Path,
    name: str,
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Train `model` in place for `schedule.steps`; `loss(step)` draws its own batch from the step.

    Everything random is keyed to the step, so a killed run continues from `work/last.pt` as if it
    had never stopped: another recipe needs another `work` (zoo.keys). One line of JSON a save goes
    to `work/log.jsonl`.
    """
    torch.set_flush_denormal(True)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision())
    accelerator.prepare_model(model)  # in place: its forward computes in bf16 where that is faster
    work.mkdir(parents=True, exist_ok=True)
    steppers = optimizers(model, schedule.lr, schedule.weight_decay, schedule.optimizer)
    start, spent = resume(work, model, steppers)
    model.train()
    began, sums, count = time.monotonic(), {}, 0
    for step in tqdm(range(start, schedule.steps), initial=start, total=schedule.steps, desc=name):
        for group in [group for optimizer in steppers for group in optimizer.param_groups]:
            group["lr"] = schedule.lr * schedule.rate(step)
        torch.manual_seed(hash((schedule.seed, step)) % 2**31)
        value, parts = loss(step)
        model.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        for optimizer in steppers:
            optimizer.step()
        count += 1
        for key, part in parts.items():
            sums[key] = sums.get(key, 0.0) + part
        if (step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps:
            row = {key: round(total / count, 5) for key, total in sums.items()}
            if evaluate is not None:
                model.eval()
                row |= evaluate()
                model.train()
            save(work, model, steppers, step + 1, spent + time.monotonic() - began, row)
            sums, count = {}, 0
    accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()


def resume(work: Path, model: nn.Module, steppers: Optimizers) -> tuple[int, float]:
    """Put back what `save` kept, if anything: the steps that are done, and the seconds they took."""
    if not (work / "last.pt").is_file():
        return 0, 0.0
    state = torch.load(work / "last.pt", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(steppers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"], state["seconds"]


def save(
    work: Path,
    model: nn.Module,
    steppers: Optimizers,
    done: int,
    seconds: float,
    row: dict[str, float],
) -> None:
    """Keep what `resume` needs, whole, then add `row` to the log."""
    state = {"model": model.state_dict(), "step": done, "seconds": seconds}
    state["optimizers"] = [optimizer.state_dict() for optimizer in steppers]
    with whole(work / "last.pt") as partial:
        torch.save(state, partial)
    with (work / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": done, "seconds": round(seconds, 1)} | row) + "\n")


def bucket_batches(lengths: list[int], budget: int, seed: int) -> list[list[int]]:
    """Batches of indices of similar length whose padded total stays within `budget`, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(len(lengths), generator=generator).tolist()
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] * (1 + 0.1 * noise[i]))
    batches: list[list[int]] = [[]]
    for i in order:
        longest = max([lengths[j] for j in batches[-1]] + [lengths[i]])
        if batches[-1] and longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(i)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


class StepBatches:
    """The batch of a step: an endless, seeded sequence of epochs of `bucket_batches`."""

    def __init__(self, lengths: list[int], budget: int, seed: int):
        self.lengths, self.budget, self.seed = lengths, budget, seed
        self.epochs: list[list[list[int]]] = []

    def __call__(self, step: int) -> list[int]:
        """Indices of the rows of a step."""
        epoch = 0
        while True:
            if epoch == len(self.epochs):
                seed = self.seed * 1000 + epoch
                self.epochs.append(bucket_batches(self.lengths, self.budget, seed))
            if step < len(self.epochs[epoch]):
                return self.epochs[epoch][step]
            step -= len(self.epochs[epoch])
            epoch += 1
