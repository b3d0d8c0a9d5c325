"""From a pair table to an aligned checkpoint: what the notebooks of Section 4 call."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
import torch
from accelerate import PartialState
from torch import Tensor

from intp.adapters.base import Adapter, Example
from intp.mining import known_variant
from intp.params import Params
from intp.paths import WORK
from intp.prompts import load_prompts
from intp.speech import read_speech, read_targets
from intp.trainer import Pair, Recipe, train


def load_pairs(
    pairs: pd.DataFrame,
    prompts: pd.DataFrame,
    speech: Mapping[str, Path],
    adapter: Adapter,
    native: str | None = None,
) -> list[Pair]:
    """The rows of a pair table as `Pair`s for `adapter`.

    `speech` maps a model to the folder of its speech. Answers of the model named `native` keep the
    representation they were sampled in; all others are encoded from their audio, as the paper's
    data set of recordings must be. Raises ValueError naming an answer or a prompt that is missing.
    """
    wanted = {name: set() for name in speech}
    for role in ("chosen", "rejected"):
        for model, name in zip(pairs[f"{role}_model"], pairs[role], strict=True):
            if model not in wanted:
                raise ValueError(f"{name}: no speech folder for model {model!r}")
            wanted[model].add(name)
    targets: dict[str, Tensor] = {}
    for model, names in wanted.items():
        if model == native:
            targets |= {k: v for k, v in read_targets(speech[model]).items() if k in names}
        else:
            targets |= {k: adapter.encode(x) for k, x in read_speech(speech[model], names)}
    known = {p.id: p for p in load_prompts(prompts[prompts["id"].isin(pairs["prompt"])])}
    made = []
    for row in pairs.itertuples():
        for name in (row.chosen, row.rejected):
            if name not in targets:
                raise ValueError(f"{row.pair}: speech {name} is missing")
        if row.prompt not in known:
            raise ValueError(f"{row.pair}: prompt {row.prompt} is missing")
        prompt = known[row.prompt]
        answers = [Example(prompt, targets[name]) for name in (row.chosen, row.rejected)]
        made.append(Pair(row.pair, *answers))
    return made


def recipe(params: Params, model: str, variant: str) -> Recipe:
    """The training recipe of `dpo.<model>`; supervised runs share it but for the loss."""
    spec, run = params.dpo[model], known_variant(params, variant)
    return Recipe(
        method=run.method, kind=run.loss, beta=spec.beta, lr=spec.lr,
        warmup_steps=spec.warmup_steps, epochs=spec.epochs, batch_pairs=spec.batch_pairs,
        weight_decay=spec.weight_decay, clip=spec.clip, seed=params.seed,
    )  # fmt: skip


def align(
    adapter: Adapter,
    pairs: list[Pair],
    rule: Recipe,
    out: Path,
    progress: str | None = None,
) -> pd.DataFrame:
    """Train `adapter` on `pairs`, write its weights to `out` whole, return the log by step.

    Of several processes the main one writes; all return when the file is there. The work directory
    is keyed by recipe and pairs, so a killed run resumes and another recipe never meets its state.
    """
    work = WORK / "align" / out.stem / fingerprint(adapter, pairs, rule)
    run = train(adapter, pairs, rule, work, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    processes = PartialState()
    if processes.is_main_process:
        adapter.save(out.with_suffix(".partial"))
        out.with_suffix(".partial").replace(out)
    processes.wait_for_everyone()
    return pd.DataFrame(run.log)


def fingerprint(adapter: Adapter, pairs: list[Pair], rule: Recipe) -> str:
    """A short hash of what a run depends on."""
    digest = hashlib.sha256(json.dumps(vars(rule), sort_keys=True).encode())
    if ":" in rule.kind:
        digest.update(inspect.getsource(resolve_name(rule.kind)).encode())
    for pair in pairs:
        digest.update(pair.id.encode())
        for example in (pair.chosen, pair.rejected):
            digest.update(example.target.numpy().tobytes())
    for name, weight in sorted(adapter.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().to(torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
