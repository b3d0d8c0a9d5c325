"""N processes train as one does, and every launch configuration can be read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from intp.paths import ROOT

CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]


def run(out: Path, *launcher: str) -> dict:
    """Log and weights of one training run by `tests/processes.py`."""
    out.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*(launcher or [sys.executable]), str(ROOT / "tests" / "processes.py"), str(out)],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "run.json").read_text())


def test_two_processes_train_as_one(tmp_path):
    alone = run(tmp_path / "one")
    config = ROOT / "configs" / "accelerate" / "two_cpu.yaml"
    both = run(tmp_path / "two", *LAUNCH, str(config))
    assert len(alone["log"]) == len(both["log"]) > 4
    for one, two in zip(alone["log"], both["log"], strict=True):
        assert two == pytest.approx(one, abs=1e-3, rel=1e-3)
    assert both["weights"] == pytest.approx(alone["weights"], abs=1e-2, rel=1e-3)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_launch_configuration_is_one(path: Path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= 2
