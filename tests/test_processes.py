"""N processes train as one does, by copies and by shards, and every launch configuration loads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from processes import ERRORS, WAYS
from safetensors.torch import load_file

from intp.paths import ROOT

CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
LAUNCH += ["--main_process_port", "0", "--mixed_precision", "no", "--config_file"]
SHARING = {"two_cpu": "MULTI_CPU", "fsdp": "FSDP"}


def run(out: Path, *launcher: str) -> dict:
    """What `tests/processes.py` reports of its runs, by way."""
    out.mkdir()
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | {
        "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    done = subprocess.run(
        [*(launcher or [sys.executable]), str(ROOT / "tests" / "processes.py"), str(out)],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "run.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Folder and report of one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    return out, run(out)


def furthest(a: Path, b: Path) -> float:
    """Largest difference of two files' weights, of the same names."""
    mine, theirs = load_file(a), load_file(b)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.mark.parametrize("name", SHARING)
def test_two_processes_train_as_one(alone: tuple[Path, dict], tmp_path: Path, name: str):
    """In one go, in micro-batches, killed and resumed, or with the best weights kept."""
    (out, one), config = alone, ROOT / "configs" / "accelerate" / f"{name}.yaml"
    two = run(tmp_path / "two", *LAUNCH, str(config))
    for way in WAYS:
        assert two[way]["shared by"] == SHARING[name]
        assert two[way]["parameters"] == "Parameter"
        assert len(one[way]["log"]) == len(two[way]["log"]) == 8
        for mine, theirs in zip(one[way]["log"], two[way]["log"], strict=True):
            assert theirs == pytest.approx(mine, abs=2e-5)
        assert furthest(out / f"{way}.weights", tmp_path / "two" / f"{way}.weights") < 1e-5
    for way in (*WAYS, "align"):
        assert furthest(out / f"{way}.saved", tmp_path / "two" / f"{way}.saved") < 1e-5
    assert furthest(tmp_path / "two" / "plain.weights", tmp_path / "two" / "killed.weights") == 0


def test_the_best_weights_are_not_the_last(alone: tuple[Path, dict]):
    out, found = alone
    assert furthest(out / "plain.weights", out / "best.weights") > 1e-3
    errors = [row["development"] for row in found["best"]["log"] if "development" in row]
    assert errors == list(ERRORS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_launch_configuration_is_one(path: Path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= 2
