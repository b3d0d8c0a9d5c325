"""One pinned list serves pip and conda, names what the code imports, and imports together."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import nbformat
import pytest
from ruamel.yaml import YAML

from intp.paths import ROOT

LOCAL = "./configs/webrtcvad"
LINES = [
    line
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
PINS = {re.split(r"[\[=]", line)[0]: line.split("==")[-1] for line in LINES if line != LOCAL}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned_and_sorted():
    assert LINES[-1] == LOCAL and (ROOT / LOCAL / "pyproject.toml").is_file()
    assert all(re.fullmatch(r"[a-z0-9.\-]+(\[[a-z,]+\])?==[0-9][\w.]*", p) for p in LINES[:-1])
    assert LINES[:-1] == sorted(LINES[:-1])


def test_conda_and_pip_install_the_same():
    dependencies = YAML(typ="safe").load(ROOT / "environment.yml")["dependencies"]
    assert "python=3.11" in dependencies
    assert dependencies[-1]["pip"] == [*LINES, "-e ."]


@pytest.mark.parametrize("name", PINS)
def test_the_pinned_version_is_the_one_in_use(name: str):
    assert version(name) == PINS[name]


def test_dvc_reads_its_files_with_the_parser_in_c():
    """Four times as fast; `dvc repro` without anything to do spends most of its time there."""
    assert YAML(typ="safe").Parser.__module__.endswith("_ruamel_yaml")


def imported() -> set[str]:
    """Top-level modules that our code imports."""
    texts = [
        path.read_text("utf-8")
        for folder in ("src", "tests", "tools", "zoo")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts.append("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    names: set[str] = set()
    for node in (node for text in texts for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


# jupyter_server and traitlets come with JupyterLab. The others are imported where they are used, by code that
# says what to install: upstream's own packages (requirements-parity.txt), TRL for its benchmark,
# hibari for growing the corpus, Vocos for the published F5-TTS. The stand-ins' sound is beside them.
ELSEWHERE = {"jupyter_server", "f5_tts", "ema_pytorch", "models", "ttsdb_core", "ttsdb_maskgct"}
ELSEWHERE |= {
    "traitlets",
    "cosyvoice",
    "utils",
    "trl",
    "datasets",
    "hibari",
    "vocos",
    "stand_in_sound",
}


def test_what_the_code_imports_is_pinned():
    pinned = {canonical(name) for name in PINS}
    owners = packages_distributions()
    local = {"conftest", *(p.stem for f in (ROOT, ROOT / "src") for p in f.iterdir() if p.is_dir())}
    local |= {
        path.stem
        for folder in ("tools", "zoo", "tests")
        for path in Path(ROOT, folder).glob("*.py")
    }
    unpinned = {
        name
        for name in imported() - local
        if not pinned & {canonical(owner) for owner in owners.get(name, [])}
    }
    assert unpinned <= ELSEWHERE


def test_torch_torchaudio_transformers_and_accelerate_import_together():
    code = "import torch, torchaudio, transformers, accelerate; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "ok", done.stderr


def test_jsonschema_builds_no_grammar_at_every_start():
    code = "import sys, jsonschema; print('rfc3987_syntax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
