"""One loop on accelerate that aligns any adapter: DPO on pairs, or SFT on the chosen only."""

import copy
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from intp.adapters.base import Adapter, Draw, Example, draw
from intp.device import precision
from intp.files import whole
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
    """How to train (Appendix D): AdamW (0.9, 0.999), warm-up, then inverse square root.

    `kind` and `label_smoothing` as in `preference_loss`; `length_normalised` divides each score by
    its positions; `sft_weight` adds that much of the chosen's mean loss (0 in the paper's runs).
    `reference="cached"` scores every pair once before the policy moves, "live" in every step, by a
    frozen copy or, where the model is a PEFT one, by the model without its adapters.
    `batch_pairs` counts over all processes; `micro_pairs` at a time fit into memory.
    """

    method: str = "dpo"
    beta: float = 0.1
    kind: str = "sigmoid"
    label_smoothing: float = 0.0
    length_normalised: bool = False
    sft_weight: float = 0.0
    reference: str = "cached"
    share_noise: bool = False
    lr: float = 5e-6
    warmup_steps: int = 4000
    epochs: int = 1
    batch_pairs: int = 8
    micro_pairs: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    save_every: int = 50
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        if self.method not in ("dpo", "sft"):
            raise ValueError(f"method: expected 'dpo' or 'sft', got {self.method!r}")
        if self.reference not in ("cached", "live"):
            raise ValueError(f"reference: expected 'cached' or 'live', got {self.reference!r}")

    def rate(self, step: int) -> float:
        """Share of `lr` at `step`: linear to 1 over the warm-up, then the inverse square root."""
        warm = max(1, self.warmup_steps)
        return min((step + 1) / warm, (warm / (step + 1)) ** 0.5)

    @property
    def scoring(self) -> dict[str, str]:
        """The reduction to score with: the adapter's own, unless scores are length-normalised."""
        return {"reduction": "mean"} if self.length_normalised else {}


Scores = dict[str, tuple[float, float]]
Reference = Callable[[dict[str, Tensor], list[str]], Tensor]


def batches(pairs: Sequence[Pair], size: int, seed: int) -> list[list[Pair]]:
    """Batches of pairs of similar length, in a seeded random order."""
    ordered = sorted(pairs, key=lambda p: (p.length, p.id))
    cut = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    order = torch.randperm(len(cut), generator=torch.Generator().manual_seed(seed)).tolist()
    return [cut[i] for i in order]


def chance(pair: Pair, example: Example, recipe: Recipe, epoch: int) -> Draw:
    """What is drawn for one answer of a pair in this epoch."""
    return draw(pair.id, example, recipe.seed * 1_000 + epoch, share_noise=recipe.share_noise)


def pair_inputs(
    adapter: Adapter, pairs: Sequence[Pair], recipe: Recipe, epoch: int
) -> dict[str, Tensor]:
    """The batch of all chosen, then all rejected answers, with the draws of this epoch."""
    answers = [(p, p.chosen) for p in pairs] + [(p, p.rejected) for p in pairs]
    draws = [chance(pair, example, recipe, epoch) for pair, example in answers]
    return adapter.batch([example for _, example in answers], draws)


@torch.no_grad()
def reference_scores(
    adapter: Adapter,
    pairs: Sequence[Pair],
    recipe: Recipe,
    epoch: int = 0,
    progress: str | None = None,
) -> Scores:
    """The reference's scores of chosen and rejected of every pair, before the policy moves."""
    adapter.model.eval()
    scores: Scores = {}
    size = recipe.micro_pairs or recipe.batch_pairs
    for batch in tqdm(batches(pairs, size, 0), desc=progress, disable=progress is None):
        inputs = pair_inputs(adapter, batch, recipe, epoch)
        chosen, rejected = adapter.score(adapter.model, inputs, **recipe.scoring).chunk(2)
        for pair, w, l in zip(batch, chosen.tolist(), rejected.tolist(), strict=True):
            scores[pair.id] = (w, l)
    return scores


def cached_scores(adapter: Adapter, pairs: Sequence[Pair], recipe: Recipe, work: Path) -> Scores:
    """`reference_scores` of all epochs by "epoch/pair", kept beside the run: a resumed policy is no
    longer the reference. Scores without chance are computed once for all epochs."""
    path, scores = work / "reference.json", {}
    if path.is_file():
        return {k: tuple(v) for k, v in json.loads(path.read_text()).items()}
    for epoch in range(recipe.epochs):
        if epoch == 0 or adapter.stochastic:
            found = reference_scores(adapter, pairs, recipe, epoch)
        scores |= {f"{epoch}/{name}": value for name, value in found.items()}
    with whole(path) as partial:
        partial.write_text(json.dumps(scores))
    return scores


def cached_reference(scores: Scores) -> Reference:
    """Looks up the scores [2 B] of pairs by their keys."""

    def look_up(inputs: dict[str, Tensor], keys: list[str]) -> Tensor:
        known = torch.tensor([scores[key] for key in keys], dtype=torch.float64)
        return known.T.flatten()

    return look_up


def live_reference(adapter: Adapter, recipe: Recipe) -> Reference:
    """Scores [2 B] by a frozen copy of the model as it is now, or by PEFT's base model."""
    model = adapter.model
    peft = hasattr(model, "disable_adapter")
    frozen = model if peft else copy.deepcopy(model).requires_grad_(False).eval()

    def score(inputs: dict[str, Tensor], keys: list[str]) -> Tensor:
        with torch.no_grad(), model.disable_adapter() if peft else nullcontext():
            return adapter.score(frozen, inputs, **recipe.scoring)

    return score


def step_loss(
    adapter: Adapter,
    model: nn.Module,
    batch: list[Pair],
    reference: Reference | None,
    recipe: Recipe,
    epoch: int = 0,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch of pairs and what to log of it."""
    if reference is None:
        loss = sft_loss(adapter, model, batch, recipe, epoch)
        return loss, {"loss": loss.item()}
    inputs = pair_inputs(adapter, batch, recipe, epoch)
    scores = adapter.score(model, inputs, **recipe.scoring)
    known = reference(inputs, [f"{epoch}/{p.id}" for p in batch]).to(scores)
    logratios = (scores - known).chunk(2)
    out = preference_loss(
        *logratios, beta=recipe.beta, kind=recipe.kind, label_smoothing=recipe.label_smoothing
    )
    logged = ("loss", "chosen_reward", "rejected_reward", "margin", "accuracy")
    parts = {name: getattr(out, name).mean().item() for name in logged}
    if not recipe.sft_weight:
        return out.loss, parts
    sft = sft_loss(adapter, model, batch, recipe, epoch)
    return out.loss + recipe.sft_weight * sft, parts | {"sft": sft.item()}


def sft_loss(
    adapter: Adapter, model: nn.Module, batch: list[Pair], recipe: Recipe, epoch: int
) -> Tensor:
    """The pretraining loss of the chosen answers, a mean over positions (Section 5.2)."""
    draws = [chance(p, p.chosen, recipe, epoch) for p in batch]
    inputs = adapter.batch([p.chosen for p in batch], draws)
    return -adapter.score(model, inputs, reduction="mean").mean()


@dataclass(frozen=True)
class Share:
    """Pairs that one process scores at once, and their weight in the mean of all processes."""

    pairs: list[Pair]
    weight: float


def shares(batch: list[Pair], rank: int, world: int, micro: int | None) -> list[Share]:
    """What process `rank` of `world` does of a batch, `micro` pairs at a time; every process gets
    equally many shares, the last ones perhaps without weight."""
    part, most = batch[rank::world], math.ceil(len(batch) / world)
    size = micro or most
    rounds = math.ceil(most / size)
    cuts = [part[i * size : (i + 1) * size] for i in range(rounds)]
    return [Share(cut or batch[:1], len(cut) * world / len(batch)) for cut in cuts]


@dataclass
class Run:
    """A finished (or resumed) run: one row of the log a step, and the weights it ended with (under
    FSDP whole on the main process, empty on the others)."""

    log: list[dict[str, float]]
    weights: dict[str, Tensor]


def train(
    adapter: Adapter,
    pairs: Sequence[Pair],
    recipe: Recipe,
    work: Path,
    progress: str | None = None,
    evaluate: Callable[[], float] | None = None,
) -> Run:
    """Align `adapter.model` in place, alone or under `accelerate launch`.

    Goes on from `work/last` if it was killed before; the finished run is the same either way. With
    `evaluate` (an error on the development set, asked every `evaluate_every` steps) the weights of
    the lowest error win, the earliest among equals. Under FSDP the main process's adapter ends with
    a whole model on the CPU, the others' with their shards. Raises ValueError without pairs.
    """
    if not pairs:
        raise ValueError("no pairs to train on: mine with a lower threshold or more prompts")
    torch.set_flush_denormal(True)
    set_seed(recipe.seed)
    work.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision())
    reference = make_reference(adapter, pairs, recipe, work, accelerator)
    optimizer = torch.optim.AdamW(
        adapter.model.parameters(), recipe.lr, betas=(0.9, 0.999), weight_decay=recipe.weight_decay
    )
    sharded = accelerator.distributed_type == DistributedType.FSDP
    shell = hollow(adapter.model) if sharded else None
    model, optimizer = accelerator.prepare(adapter.model, optimizer)
    plan = [
        (epoch, batch)
        for epoch in range(recipe.epochs)
        for batch in batches(pairs, recipe.batch_pairs, recipe.seed + epoch)
    ]
    log = resume(accelerator, work)
    model.eval()  # dropout off, as in the reference: a margin must not hang on chance
    quiet = progress is None or not accelerator.is_main_process
    for step in tqdm(range(len(log), len(plan)), progress, disable=quiet):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.rate(step)
        epoch, batch = plan[step]
        row = update(adapter, model, optimizer, accelerator, batch, reference, recipe, epoch)
        log.append({"step": step + 1} | row)
        due = recipe.evaluate_every and (step + 1) % recipe.evaluate_every == 0
        if evaluate is not None and (due or step + 1 == len(plan)):
            keep_best(accelerator, model, work, log, evaluate())
            model.eval()
        if (step + 1) % recipe.save_every == 0 or step + 1 == len(plan):
            save_state(accelerator, work, log)
    best = None if evaluate is None else load_file(work / "best.safetensors")
    return Run(log, finish(accelerator, adapter, model, shell, best))


def hollow(model: nn.Module) -> nn.Module:
    """The model as it is, but for its parameters, which have a shape and no data: FSDP shards a
    model in place, and no adapter can save or sample from shards."""
    empty = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, empty)


def finish(
    accelerator: Accelerator,
    adapter: Adapter,
    model: nn.Module,
    shell: nn.Module | None,
    best: dict[str, Tensor] | None,
) -> dict[str, Tensor]:
    """The weights a run ended with, the best ones if there are any, put into the adapter."""
    if shell is None:
        own = accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # as precise as before
        if best is not None:
            own.load_state_dict(best)
        return accelerator.get_state_dict(model)
    weights = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        weights = weights if best is None else best
        shell.load_state_dict(weights, assign=True)
        adapter.model = shell.cpu()
    return weights


def make_reference(
    adapter: Adapter, pairs: Sequence[Pair], recipe: Recipe, work: Path, accelerator: Accelerator
) -> Reference | None:
    """How the reference is scored; None for SFT, which has none."""
    if recipe.method == "sft":
        return None
    adapter.model.to(accelerator.device)
    scorer = copy.copy(adapter)  # in the policy's precision: else the first margin is rounding
    scorer.score = accelerator.autocast()(adapter.score)
    if recipe.reference == "live":
        return live_reference(scorer, recipe)
    with accelerator.main_process_first():
        return cached_reference(cached_scores(scorer, pairs, recipe, work))


def update(
    adapter: Adapter,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    batch: list[Pair],
    reference: Reference | None,
    recipe: Recipe,
    epoch: int,
) -> dict[str, float]:
    """One optimizer step on a batch, shared out over processes and memory; what to log of it."""
    mine = shares(batch, accelerator.process_index, accelerator.num_processes, recipe.micro_pairs)
    row: dict[str, Tensor] = {}
    optimizer.zero_grad(set_to_none=True)
    for number, share in enumerate(mine):
        last = number + 1 == len(mine)
        with nullcontext() if last else accelerator.no_sync(model):
            loss, parts = step_loss(adapter, model, share.pairs, reference, recipe, epoch)
            accelerator.backward(loss * share.weight)
        for key, value in parts.items():
            row[key] = row.get(key, 0.0) + torch.tensor(value * share.weight, dtype=torch.float32)
    norm = accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    values = accelerator.reduce(torch.stack(list(row.values())).to(accelerator.device), "mean")
    return dict(zip(row, values.tolist(), strict=True)) | {"grad_norm": float(norm)}


def keep_best(
    accelerator: Accelerator, model: nn.Module, work: Path, log: list[dict], error: float
) -> None:
    """Log a development error; keep the weights that it is the lowest of."""
    known = [row["development"] for row in log if "development" in row]
    log[-1]["development"] = error
    weights = accelerator.get_state_dict(model)
    if accelerator.is_main_process and error < min(known, default=float("inf")):
        # Copies, since safetensors takes no two names of one tensor, as tied embeddings have.
        with whole(work / "best.safetensors") as partial:
            save_file({k: v.clone().contiguous() for k, v in weights.items()}, partial)


def save_state(accelerator: Accelerator, work: Path, log: list[dict[str, float]]) -> None:
    """Write the state of a run whole: beside the last one, then in its place."""
    partial, last, old = work / "partial", work / "last", work / "old"
    partial.mkdir(exist_ok=True)  # whoever comes first: every process writes its share
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / "log.json").write_text(json.dumps(log))
        if last.exists():
            shutil.rmtree(old, ignore_errors=True)  # a run killed before the line below left it
            last.replace(old)
        partial.replace(last)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, work: Path) -> list[dict[str, float]]:
    """Load the last whole state; the log so far, empty for a fresh start."""
    for name in ("last", "old"):
        if (work / name / "log.json").is_file():
            accelerator.load_state(str(work / name))
            return json.loads((work / name / "log.json").read_text())
    return []
