"""`tools.repro`: stages side by side, in order, and no more of them than DVC would run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from intp.paths import ROOT

STAGE = """
import sys, time
from pathlib import Path
name, *needs = sys.argv[1:]
began = time.monotonic()
given = Path(f"{name}.in").read_text()
if given == "bad":
    sys.exit("bad input")
time.sleep(2)
print(f"progress of {name}\\r", end="", flush=True)
time.sleep(0.3)
print(f"{name} is done")
Path(f"{name}.out").write_text(given.strip())
with open("ran.log", "a") as log:
    print(name, began, time.monotonic(), file=log)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """c waits for a and b, d for b; all read their own input."""
    needs = {"a": [], "b": [], "c": ["a", "b"], "d": ["b"]}
    stages = {}
    for name, before in needs.items():
        (tmp_path / f"{name}.in").write_text("good")
        deps = [f"{name}.in", *(f"{other}.out" for other in before)]
        stages[name] = {"cmd": f"{sys.executable} stage.py {name}", "deps": deps}
        stages[name]["outs"] = [{f"{name}.out": {"cache": False}}]
    (tmp_path / "stage.py").write_text(STAGE)
    YAML().dump({"stages": stages}, tmp_path / "dvc.yaml")
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True
    )
    return tmp_path


def repro(project: Path, *options: str) -> tuple[int, str, dict[str, tuple[float, float]]]:
    """Exit status, what was printed, and when each stage that ran began and ended."""
    (project / "ran.log").unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tools.repro", "--jobs", "2", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=project, env=environment, timeout=120, **pipes)
    log = project / "ran.log"
    rows = [line.split() for line in log.read_text().splitlines()] if log.is_file() else []
    return done.returncode, done.stdout, {n: (float(a), float(b)) for n, a, b in rows}


def test_stages_run_side_by_side_and_after_what_they_need(project: Path):
    status, said, ran = repro(project)
    assert status == 0, said
    assert ran.keys() == {"a", "b", "c", "d"}
    assert max(ran["a"][0], ran["b"][0]) < min(ran["a"][1], ran["b"][1])
    assert ran["c"][0] > max(ran["a"][1], ran["b"][1]) and ran["d"][0] > ran["b"][1]
    assert "a: a is done" in said and "progress" not in said.replace("\r", "\n").split("a: ")[1]
    assert repro(project)[::2] == (0, {})


def test_what_waits_for_a_stage_runs_if_its_outputs_changed(project: Path):
    repro(project)
    (project / "a.in").write_text("good ")
    assert repro(project)[2].keys() == {"a"}  # a.out is what it was
    (project / "a.in").write_text("other")
    assert repro(project)[2].keys() == {"a", "c"}


@pytest.mark.parametrize("options", [(), ("--keep-going",)])
def test_after_a_failure_it_goes_on_where_it_stopped(project: Path, options: tuple[str, ...]):
    (project / "a.in").write_text("bad")
    status, said, ran = repro(project, *options)
    assert status == 1 and "failed: a;" in said and "a: bad input" in said
    assert ran.keys() == ({"b", "d"} if options else {"b"})
    (project / "a.in").write_text("good")
    status, said, ran = repro(project, *options)
    assert status == 0 and ran.keys() == ({"a", "c"} if options else {"a", "c", "d"}), said
