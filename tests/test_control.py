"""The negative control, LoRA, and training from a notebook."""

import copy
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.utils.other import get_free_port
from conftest import make_prompt
from peft import LoraConfig, get_peft_model
from test_trainer import QUICK, held_out_accuracy, preferences

from intp.adapters.ar import ARAdapter
from intp.adapters.base import Example
from intp.device import precision
from intp.paths import ROOT
from intp.trainer import Pair, Recipe, live_reference, pair_inputs, train

LONGER = replace(QUICK, epochs=3)


def ruled(count: int, shuffle: int | None = None) -> list[Pair]:
    """The prompt decides whether low or high codes are chosen; with `shuffle`, a seed, a random half
    of the pairs, exactly, has its roles exchanged."""
    half = set() if shuffle is None else {*random.Random(shuffle).sample(range(count), count // 2)}
    pairs = []
    for i in range(count):
        draw = torch.Generator().manual_seed(i)
        prompt = make_prompt(f"p{i}", "ab" if i % 2 else "cd", 0.3)
        low = torch.randint(0, 20, (6 + i % 3,), generator=draw)
        high = torch.randint(20, 40, (6 + (i + 1) % 3,), generator=draw)
        chosen, rejected = (low, high) if i % 2 else (high, low)
        if i in half:
            chosen, rejected = rejected, chosen
        pairs.append(Pair(f"pair{i}", Example(prompt, chosen), Example(prompt, rejected)))
    return pairs


@pytest.mark.parametrize("shuffle", [None, 0, 1])
def test_held_out_pairs_tell_a_preference_from_a_coin(
    adapter: ARAdapter, tmp_path: Path, shuffle: int | None
):
    """40 tosses of a coin lie within 3 standard deviations (0.24) of one half."""
    policy = copy.deepcopy(adapter)
    train(policy, ruled(80, shuffle), LONGER, tmp_path)
    accuracy = held_out_accuracy(policy, adapter, ruled(120)[80:])
    if shuffle is None:
        assert accuracy >= 0.9
    else:
        assert abs(accuracy - 0.5) < 3 * math.sqrt(0.25 / 40)


def test_lora_has_its_reference_in_the_same_weights(adapter: ARAdapter, tmp_path: Path):
    pairs = preferences(12)
    rule = replace(QUICK, reference="live")
    inputs = pair_inputs(adapter, pairs[:4], rule, 0)
    with torch.no_grad():
        before = adapter.score(adapter.model, inputs)
    base = {name: weight.clone() for name, weight in adapter.model.state_dict().items()}
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
    adapter.model = get_peft_model(adapter.model, lora)
    shared = {p.data_ptr() for p in adapter.model.parameters()}
    score = live_reference(adapter, rule)
    assert torch.equal(score(inputs, []), before)
    log = train(adapter, pairs, rule, tmp_path).log
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and log[0]["margin"] == 0
    assert log[-1]["margin"] > 0
    assert {p.data_ptr() for p in adapter.model.parameters()} == shared
    assert torch.equal(score(inputs, []), before)
    assert not torch.equal(adapter.score(adapter.model, inputs), before)
    after = adapter.model.unload().state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in base.items())


LAUNCH = """
import json, sys
from pathlib import Path
sys.path[:0] = ["tests", "src"]
from accelerate import PartialState, notebook_launcher
from conftest import tiny_ars, tiny_tokenizer
from test_trainer import QUICK, preferences
from intp.trainer import train

def cell(folder):
    log = train(tiny_ars(tiny_tokenizer()), preferences(8), QUICK, Path(folder)).log
    if PartialState().is_main_process:
        found = {"processes": PartialState().num_processes, "log": log}
        Path(folder, "cell.json").write_text(json.dumps(found))

notebook_launcher(cell, (sys.argv[1],), num_processes=int(sys.argv[2]), use_port=sys.argv[3])
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_notebook_launches_the_same_run(adapter: ARAdapter, tmp_path: Path, processes: int):
    command = [sys.executable, "-c", LAUNCH, str(tmp_path / "cell")]
    command += [str(processes), str(get_free_port())]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    launched = json.loads((tmp_path / "cell" / "cell.json").read_text())
    assert launched["processes"] == processes
    here = train(adapter, preferences(8), QUICK, tmp_path / "here").log
    assert len(launched["log"]) == len(here)
    for mine, theirs in zip(here, launched["log"], strict=True):
        assert theirs == pytest.approx(mine, abs=2e-5 if precision() == "no" else 2e-2)


def test_the_recipe_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="reference: expected 'cached' or 'live', got 'none'"):
        Recipe(reference="none")
