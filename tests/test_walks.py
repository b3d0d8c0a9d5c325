"""The walked examples of docs/ run as they are written, in a copy of the tree with tiny models."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from intp.corpus import read_manifest
from intp.paths import DATA, ROOT
from tools.dry_paper import copy_tree
from tools.tiny import models

BLOCK = re.compile(r"^```(python|sh|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "docs" / page).read_text("utf-8"))


def merged(old: dict, new: dict) -> dict:
    """`new` over `old`, block by block, as somebody edits params.yaml."""
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        old[key] = merged(old[key], value) if both else value
    return old


def run(tree: Path, language: str, block: str) -> str:
    """Do with a block what its page says; returns what it printed."""
    if language == "yaml":
        yaml = YAML()
        path = tree / "params.yaml"
        yaml.dump(merged(yaml.load(path), YAML(typ="safe").load(block)), path)
        return ""
    if named := re.match(r"# (\w+\.py)\n", block):
        (tree / named[1]).write_text(block, "utf-8")
        return ""
    command = [sys.executable, "-c", block] if language == "python" else ["sh", "-ec", block]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(tree / "src")}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with tiny checkpoints and, from the first steps of your-own-pairs.md, `my-pairs`."""
    made = tmp_path_factory.mktemp("walks") / "tree"
    copy_tree(made)
    (made / "checkpoints").mkdir(exist_ok=True)
    phonemes = sorted({c for row in read_manifest(DATA / "corpus") for c in row.phonemes})
    speech = models.tokenizer(made / "checkpoints" / "tokenizer.safetensors", phonemes)
    models.ars(made / "checkpoints" / "ars-mini.safetensors", speech)
    for language, block in blocks("your-own-pairs.md")[:2]:
        run(made, language, block)
    return made


def test_your_own_model(tree: Path):
    said = [run(tree, *block) for block in blocks("your-own-model.md")]
    conformance = next(out for out in said if "log 2 at the start" in out)
    assert conformance.count("True") == 12
    assert (tree / "my-speech" / "mine" / "manifest.parquet").is_file()
    losses = [float(line.split()[1]) for line in said[-1].splitlines()[1:]]
    assert losses[0] == 0.693 and losses[-1] < losses[0]


def test_your_own_loss(tree: Path):
    said = [run(tree, *block) for block in blocks("your-own-loss.md")]
    rows = [list(map(float, line.split())) for line in said[-1].splitlines()[3:]]
    assert len(rows) == 4
    # A tiny model's log-probabilities round coarsely where the policy is scored in bf16.
    assert [rows[0][1], rows[0][4]] == pytest.approx([0.6931, 0.6931], abs=0.01)
    assert rows[-1][1] != rows[-1][4], "the run's loss is the page's"
    assert rows[-1][4] < rows[0][4]
