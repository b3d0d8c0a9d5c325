"""What must hold of every file: notebooks, sizes, style, records and what must not be in git."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from intp.paths import NOTEBOOKS, ROOT
from report import clean

# Lines that each package may have.
ROOM = {
    "intp": 3600, "networks": 1800, "report": 2200, "judges": 1400, "texts": 1600, "listening": 1400,
    "readers": 1100, "experiments": 300,
}  # fmt: skip
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def kept_by_git() -> list[Path]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git working tree")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_clean_and_has_one_parameters_cell(path: Path):
    assert path.read_text("utf-8") == clean.text(clean.source(path)), (
        "run `python -m intp.nb clean`"
    )
    content = json.loads(path.read_text("utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    tags = [tag for cell in content["cells"] for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1


def test_the_packages_stay_thin():
    """No room is left to move code into: who needs more says here where it is needed."""
    lines = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert max(lines.values()) <= 400
    found = Counter()
    for path, count in lines.items():
        found[path.parts[1]] += count
    assert found.keys() == ROOM.keys()
    assert all(0 < found[name] <= room for name, room in ROOM.items()), found


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda c: c[0])
def test_style(command: list[str]):
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_nothing_in_git_leans_on_the_machine_it_was_made_on():
    # Written in pieces, or this file would find itself.
    forbidden = ["../" + "shared", "/" + "work/"]
    for path in kept_by_git():
        if path.is_relative_to(ROOT / "store"):
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        assert not [word for word in forbidden if word in text], path


def test_every_yaml_and_json_file_of_ours_loads():
    for path in kept_by_git():
        if path.suffix in {".yaml", ".yml", ".dvc", ".cff"}:
            assert YAML(typ="safe").load(path), path
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))


def test_timings_lie_outside_every_output():
    path = ROOT / "dvc.yaml"
    stages = YAML(typ="safe").load(path)["stages"] if path.is_file() else {}
    for name, stage in stages.items():
        for out in stage.get("outs", []):
            where = next(iter(out)) if isinstance(out, dict) else out
            assert "timings" not in where, name
            assert where.rstrip("/") not in ("results", "results/${scale}"), name


def test_dvc_calls_nobody_and_its_remote_travels_with_the_repository():
    config = (ROOT / ".dvc" / "config").read_text()
    for line in ("analytics = false", "check_update = false", "url = ../store"):
        assert line in config
