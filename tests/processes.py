"""Aligns a tiny ARS in several ways: `accelerate launch … tests/processes.py OUT`, or alone."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin
from conftest import tiny_ars, tiny_tokenizer
from safetensors.torch import save_file
from test_trainer import QUICK, preferences

from intp import align, trainer

ERRORS = (0.3, 0.1, 0.2, 0.2)
WAYS = {
    "plain": QUICK,
    "micro": replace(QUICK, micro_pairs=1),
    "killed": QUICK,
    "best": replace(QUICK, evaluate_every=2),
}


def shard_on_the_cpu() -> None:
    """Switch on the FSDP that `accelerate launch` asked for: accelerate does so on GPUs and other
    accelerators only, though torch's `fully_shard` runs on the CPU with gloo."""
    Accelerator(cpu=True, mixed_precision="no")
    for state in (PartialState, AcceleratorState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin()


def train(way: str, work: Path) -> dict:
    """One run; the main process leaves its weights beside `work` and gets what to report."""
    adapter, errors = tiny_ars(tiny_tokenizer()), iter(ERRORS)
    evaluate = (lambda: next(errors)) if way == "best" else None
    run = trainer.train(adapter, preferences(13), WAYS[way], work, evaluate=evaluate)
    if not PartialState().is_main_process:
        return {}
    save_file({k: v.contiguous() for k, v in run.weights.items()}, f"{work}.weights")
    adapter.save(Path(f"{work}.saved"))
    kind = type(next(adapter.model.parameters())).__name__
    return {"log": run.log, "parameters": kind, "shared by": PartialState().distributed_type.value}


def stop_at(step: int) -> None:
    """Have the next run killed before it updates at `step`."""
    update, seen = trainer.update, []

    def dying(*arguments, **named):
        seen.append(1)
        if len(seen) > step:
            trainer.update = update
            raise KeyboardInterrupt
        return update(*arguments, **named)

    trainer.update = dying


def main() -> None:
    """Train in every way, then by `align`; one JSON file tells of the ways."""
    torch.set_num_threads(1)
    trainer.precision = lambda: "no"  # what is compared is the sharing out, not the rounding
    out = align.WORK = Path(sys.argv[1])
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shard_on_the_cpu()
    stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        train("killed", out / "killed")
    found = {way: train(way, out / way) for way in WAYS}
    align.align(tiny_ars(tiny_tokenizer()), preferences(13), QUICK, out / "align.saved")
    if PartialState().is_main_process:
        (out / "run.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
