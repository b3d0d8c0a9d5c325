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

from intp.adapters.base import Adapter, Example, weights_key
from intp.files import whole
from intp.mining import known_variant
from intp.params import Params
from intp.paths import WORK
from intp.prompts import load_prompts
from intp.speech import read_speech, read_targets
from intp.trainer import Pair, Recipe, train

# At a time, on a CPU: so few stay in a core's cache that a step takes two thirds of the time.
MICRO_PAIRS = 2


def load_pairs(
    pairs: pd.DataFrame,
    prompts: pd.DataFrame,
    speech: Mapping[str, Path],
    adapter: Adapter,
) -> list[Pair]:
    """The rows of a pair table as `Pair`s for `adapter`.

    `speech` maps a model to the folder of its speech. A pair both of whose answers were sampled in
    the representation that `adapter` reads is learned from that; of every other pair both answers
    are encoded from their audio, as the paper's data set of recordings must be: with only one of
    them encoded, the easiest thing to prefer is what encoding does to speech. Raises ValueError
    naming an answer or a prompt that is missing.
    """
    if unknown := {*pairs["chosen_model"], *pairs["rejected_model"]} - speech.keys():
        raise ValueError(f"no speech folder for the models {sorted(unknown)} of the pairs")
    names = pairs[["chosen", "rejected"]]
    asked = set(names.to_numpy().ravel())
    sampled: dict[str, Tensor] = {}
    for folder in speech.values():
        sampled |= read_targets(folder, adapter.representation, asked)
    native = names.isin(list(sampled)).all(axis=1)
    heard = set(names[~native].to_numpy().ravel())
    encoded: dict[str, Tensor] = {}
    for folder in speech.values():
        encoded |= {name: adapter.encode(x) for name, x in read_speech(folder, heard)}
    known = {p.id: p for p in load_prompts(prompts[prompts["id"].isin(pairs["prompt"])])}
    made = []
    for row, as_sampled in zip(pairs.itertuples(), native, strict=True):
        targets = sampled if as_sampled else encoded
        for name in (row.chosen, row.rejected):
            if name not in targets:
                raise ValueError(f"{row.pair}: speech {name} is missing")
        if row.prompt not in known:
            raise ValueError(f"{row.pair}: prompt {row.prompt} is missing")
        chosen, rejected = (
            Example(known[row.prompt], targets[n]) for n in (row.chosen, row.rejected)
        )
        made.append(Pair(row.pair, chosen, rejected))
    return made


def recipe(params: Params, model: str, variant: str) -> Recipe:
    """The training recipe of `dpo.<model>`; supervised runs share it but for the loss."""
    spec, run = params.dpo[model], known_variant(params, variant)
    return Recipe(
        method=run.method, kind=run.loss, beta=spec.beta, lr=spec.lr,
        warmup_steps=spec.warmup_steps, epochs=spec.epochs, batch_pairs=spec.batch_pairs,
        micro_pairs=None if torch.cuda.is_available() else MICRO_PAIRS,
        weight_decay=spec.weight_decay, clip=spec.clip, seed=params.seed,
    )  # fmt: skip


def align(
    adapter: Adapter, pairs: list[Pair], rule: Recipe, out: Path, progress: str | None = None
) -> pd.DataFrame:
    """Train `adapter` on `pairs`, write its weights to `out` whole, return the log by step.

    Of several processes the main one writes; all return when the file is there. The work directory
    is keyed by recipe and pairs, so a killed run resumes and another recipe never meets its state.
    """
    work = WORK / "align" / out.stem / fingerprint(adapter, pairs, rule)
    run = train(adapter, pairs, rule, work, progress)
    processes = PartialState()
    if processes.is_main_process:
        with whole(out) as partial:
            adapter.save(partial)
    processes.wait_for_everyone()
    return pd.DataFrame(run.log)


def fingerprint(adapter: Adapter, pairs: list[Pair], rule: Recipe) -> str:
    """A short hash of what a run depends on: recipe, pairs with their prompts, model."""
    digest = hashlib.sha256(json.dumps(vars(rule), sort_keys=True).encode())
    if ":" in rule.kind:
        digest.update(inspect.getsource(resolve_name(rule.kind)).encode())
    digest.update(f"{adapter.representation} {getattr(adapter, 'config', '')}".encode())
    for pair in pairs:
        digest.update(f"{pair.id} {pair.chosen.prompt}".encode())
        digest.update(pair.chosen.prompt.reference_speech.tobytes())
        for example in (pair.chosen, pair.rejected):
            digest.update(example.target.numpy().tobytes())
    digest.update(weights_key(adapter.model).encode())
    return digest.hexdigest()[:16]
