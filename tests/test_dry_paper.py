"""The cheap part of `make dry-paper`: tiny checkpoints in published layouts load, speak and score."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_prompt

import intp.models
from intp.adapters.base import Example
from intp.models import load_adapter
from intp.params import Params
from intp.paths import DATA, ROOT
from intp.prompts import Prompt
from networks import ar_upstream, f5, maskgct_upstream
from texts.glosses import read_lexicon
from texts.llm import Chat
from texts.transforms import Rules
from tools import dry_paper
from tools.tiny import endpoint, models

KEPT = (ar_upstream.cosyvoice, ar_upstream.ints, maskgct_upstream.upstream, f5.vocos_model)
CODES = {"ars": 1000, "maskgct": 8192, "cosyvoice2": 6561, "ints": 16_384}
MODELS = ["ars", "f5", "maskgct", "cosyvoice2", "ints"]


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """params/paper.yaml with the walk's changes, its paths into a folder with tiny checkpoints."""
    folder = tmp_path_factory.mktemp("published")
    written = folder / "params.yaml"
    params = dry_paper.write_params(written, dry_paper.overrides("http://127.0.0.1:1/v1"))
    models.write_all(folder / "checkpoints", params)
    text = written.read_text("utf-8").replace(" checkpoints/", f" {folder}/checkpoints/")
    written.write_text(text, "utf-8")
    return dry_paper.read_params(written)


@pytest.fixture
def upstream(monkeypatch, params: Params):
    """The stand-ins of upstream's packages, and the tiny tokenizer in the mini one's place."""
    forget()
    folder = Path(params.models["ars"].checkpoint).parent
    monkeypatch.setattr(intp.models, "TOKENIZER", folder / "tokenizer.safetensors")
    monkeypatch.setattr(sys, "path", [str(models.STAND_INS / "site"), *sys.path])
    yield
    forget()


def forget() -> None:
    """No module of a stand-in and no model made by one outlives a test."""
    for kept in KEPT:
        kept.cache_clear()
    for name in list(sys.modules):
        path = getattr(sys.modules[name], "__file__", None) or ""
        if path.startswith(str(models.STAND_INS)) or name.split(".")[0] in ("models", "cosyvoice"):
            del sys.modules[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_published_layout_loads_speaks_and_scores(name: str, params: Params, upstream):
    adapter = load_adapter(name, params)
    prompt = Prompt("x", "Had two.", "hæd tˈu.", "en", "He.", "hi.", "en",
                    make_prompt("x", seconds=2.0).reference_speech)  # fmt: skip
    sampling = params.sampling[name].evaluation | {"max_seconds": 1.0}
    first, again = (adapter.synthesise([prompt], sampling, [seed])[0] for seed in (3, 3))
    assert np.array_equal(first.samples, again.samples)
    assert np.isfinite(first.samples).all() and len(first.samples) <= 2 * 16_000
    target = adapter.encode(prompt.reference_speech)
    if name in CODES:
        assert int(target.min()) >= 0 and int(target.max()) < CODES[name]
    score = adapter.score(adapter.model, adapter.batch([Example(prompt, target)]))
    assert torch.isfinite(score).all() and score.item() < 0


def test_sizes_and_the_endpoint_are_all_that_differs_from_paper():
    changes = dry_paper.overrides("http://127.0.0.1:1/v1")
    configs = {f"models.{name}.config" for name in models.SIZES}
    assert changes.keys() - configs == {"prompts.endpoint", "runs.ars", *dry_paper.SMALL}
    every = dry_paper.overrides("http://127.0.0.1:1/v1", every=True)
    assert changes.keys() - every.keys() == {"runs.ars"}
    kinds = ["intp-equal", "ars-pairs", "negatives-sft", "en2en"]
    assert changes["runs.ars"] == ["intp", "shuffled", "sft", *kinds]


def test_every_run_of_paper_is_walked(params: Params):
    steps = dry_paper.needed(params)
    outs = [step.outs[0] for step in steps]
    runs = [f"{m}-{run}" for m, names in params.runs.items() for run in ("base", *names)]
    assert [Path(o).stem for o in outs if "scores" in o] == runs
    assert {step.name for step in steps if "speech" in step.name} == {
        "speech@ars", "speech@f5", "speech@maskgct",
    }  # fmt: skip


def test_the_copy_has_what_git_keeps_and_no_stage_of_it_makes(tmp_path: Path, params: Params):
    tree = tmp_path / "tree"
    dry_paper.copy_tree(tree)
    shutil.copy(Path(params.models["ars"].checkpoint).parents[1] / "params.yaml", tree)
    steps = [step for step in dry_paper.stages(tree) if not step.frozen]
    made = {out for step in steps for out in step.outs}
    read = {dep for step in steps for dep in step.deps}
    git = ["git", "ls-files", "-z", "--", *(read - made)]
    kept = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert any(name.startswith("results/pretraining") for name in kept.split("\0"))
    assert [name for name in kept.split("\0") if not (tree / name).exists()] == []


def test_the_endpoint_speaks_the_protocol(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("INTP_LLM_KEY", "any")
    monkeypatch.setenv("no_proxy", "*")
    rules = Rules(0, read_lexicon(DATA / "sentences.jsonl"))
    with endpoint.served(rules) as url:
        chat = Chat(url, "tiny", tmp_path, rules, tries=1)
        made = chat.transform("the boy reads his letter in the garden", "en", "regular")
        assert made.text == "The boy reads his letter in the garden."
        other = chat.transform(made.text, "en", "pronunciation-perturbed")
        assert other.changed > 0 and other.text != made.text
    assert len(list(tmp_path.iterdir())) == 2
