"""Switching scales, in a throw-away repository whose name has a space."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from intp.paths import PARAMS, ROOT

DVC_YAML = """\
stages:
  pretrain:
    frozen: true
    matrix: {model: [ars]}
    cmd: "true"
    outs: ["${item.model}.bin"]
  speech: {cmd: "true", outs: ["runs/${scale}/speech"]}
"""
LOCK = """\
schema: '2.0'
stages:
  pretrain@ars:
    cmd: 'true'
    outs:
    - path: ars.bin
      md5: aaaa
  speech:
    cmd: 'true'
    outs:
    - path: runs/mini/speech
      md5: bbbb
"""
OTHER = "schema: '2.0'\nstages:\n  speech:\n    cmd: 'true'\n    outs:\n    - md5: cccc\n"

Scale = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "a project"
    (root / "src" / "intp").mkdir(parents=True)
    (root / "tools").mkdir()
    for name in ("src/intp/__init__", "src/intp/paths", "src/intp/params", "tools/scale"):
        shutil.copy(ROOT / f"{name}.py", root / f"{name}.py")
    shutil.copytree(PARAMS, root / "params")
    shutil.copy(PARAMS / "mini.yaml", root / "params.yaml")
    shutil.copy(ROOT / ".gitignore", root)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "dvc.lock").write_text(LOCK)
    identity = ["-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


@pytest.fixture
def scale(repository: Path) -> Scale:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tools.scale", *arguments],
            cwd=repository,
            env=os.environ | {"PYTHONPATH": str(repository / "src")},
            capture_output=True,
            text=True,
        )

    return call


def status(root: Path) -> str:
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_run_swaps_in_and_leaves_no_trace(repository: Path, scale: Scale):
    done = scale("run", "smoke", "--", "sh", "-c", "head -2 params.yaml; cat dvc.lock")
    assert done.returncode == 0, done.stderr
    assert "scale: smoke" in done.stdout and "differ" not in done.stderr
    assert "aaaa" in done.stdout and "bbbb" not in done.stdout, "frozen stages move along alone"
    assert status(repository) == ""


def test_each_scale_keeps_its_own_record(repository: Path, scale: Scale):
    (repository / "other.lock").write_text(OTHER)
    scale("run", "smoke", "--", "cp", "other.lock", "dvc.lock")
    (repository / "other.lock").unlink()
    done = scale("run", "smoke", "--", "cat", "dvc.lock")
    assert "cccc" in done.stdout and "aaaa" in done.stdout
    assert (repository / "dvc.lock").read_text() == LOCK
    assert status(repository) == ""


def test_the_scale_in_force_runs_in_place(repository: Path, scale: Scale):
    with (repository / "params.yaml").open("a") as file:
        file.write("# an edit of mine\n")
    done = scale("run", "mini", "--", "sh", "-c", "tail -1 params.yaml; cat dvc.lock")
    assert "an edit of mine" in done.stdout and "bbbb" in done.stdout
    assert "this run reads params.yaml" in done.stderr, "an edit of params/mini.yaml would be idle"
    assert scale("run", "smoke", "--", "true").returncode == 0
    assert (repository / "params.yaml").read_text().endswith("# an edit of mine\n")


def test_a_failing_command_is_swapped_back_and_reported(repository: Path, scale: Scale):
    assert scale("run", "study", "--", "sh", "-c", "exit 7").returncode == 7
    assert scale("run", "study", "--", "no such command").returncode != 0
    assert status(repository) == "?? locks/\n"
    assert (repository / "locks" / "study.lock").read_text().count("aaaa") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_command_and_swaps_back(repository: Path, number: int, code: int):
    process = started(repository)
    process.send_signal(number)
    assert process.wait(300) == code
    assert status(repository) == ""


def test_what_a_killed_run_left_is_healed_by_the_next(repository: Path, scale: Scale):
    process = started(repository)
    process.kill()
    process.wait()
    child = int((repository / ".work" / "pid").read_text())
    refused = scale("use", "study")
    assert refused.returncode == 2 and "another command" in refused.stderr, "its child goes on"
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 300
    while scale("run", "mini", "--", "true").returncode == 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(repository) == ""


def started(repository: Path) -> subprocess.Popen[bytes]:
    """A run at `smoke` that sleeps, once it is under way."""
    command = [sys.executable, "-m", "tools.scale", "run", "smoke", "--"]
    process = subprocess.Popen(
        [*command, "sh", "-c", "echo $$ > .work/pid; exec sleep 300"],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository / "src")},
    )
    deadline = time.monotonic() + 300
    while not (repository / ".work" / "pid").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "scale: smoke" in (repository / "params.yaml").read_text()
    return process


def test_use_switches_for_good_and_back(repository: Path, scale: Scale):
    assert scale("use", "study").returncode == 0
    assert "scale: study" in (repository / "params.yaml").read_text()
    assert "bbbb" not in (repository / "dvc.lock").read_text()
    assert scale("use", "mini").returncode == 0
    assert "bbbb" in (repository / "dvc.lock").read_text()
    assert (repository / "params.yaml").read_bytes() == (PARAMS / "mini.yaml").read_bytes()


def test_use_refuses_to_lose_an_edit_and_bad_names(repository: Path, scale: Scale):
    (repository / "params.yaml").write_text((PARAMS / "mini.yaml").read_text() + "# mine\n")
    done = scale("use", "study")
    assert done.returncode == 2 and "params.yaml differs from params/mini.yaml" in done.stderr
    assert scale("use", "huge").returncode == 2
    (repository / "params" / "smoke.yaml").write_text("scale: smoke\nsead: 1\n")
    done = scale("run", "smoke", "--", "true")
    assert done.returncode == 2 and "params/smoke.yaml: sead: unknown name" in done.stderr


def test_frozen_prints_the_names_that_dvc_pull_takes(scale: Scale):
    assert scale("frozen").stdout == "pretrain\n"
