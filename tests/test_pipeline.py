"""dvc.yaml lists what its stages really read, and nothing it should not."""

import json

import pytest
from ruamel.yaml import YAML

from intp.params import load_params
from intp.paths import NOTEBOOKS, ROOT
from tools.deps import expected, stages

LIVE = {name: stage for name, stage in stages().items() if not stage.get("frozen")}


@pytest.mark.parametrize("name", LIVE)
def test_a_stage_depends_on_the_code_it_imports(name: str):
    listed = {d for d in LIVE[name]["deps"] if d.startswith(("src/", "notebooks/"))}
    assert listed == set(expected(LIVE[name]["cmd"]))


def test_no_stage_writes_into_data_and_none_depends_on_a_report():
    for name, stage in stages().items():
        outs = [next(iter(o)) if isinstance(o, dict) else o for o in stage["outs"]]
        assert not [o for o in outs if o.startswith(("data", "reports"))], name
        assert not [d for d in stage["deps"] if d.startswith("reports")], name


def test_every_notebook_opens_with_its_section_and_ends_with_what_must_hold():
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        first = "".join(cells[0]["source"])
        assert first.startswith("# ") and ("Section" in first or "Appendix" in first), path.name
        assert "assert " in "".join(cells[-1]["source"]), path.name
        for cell in cells:
            assert "def " not in "".join(cell["source"]) or cell["cell_type"] == "markdown", (
                path.name
            )


EARS = {"recogniser-both", "recogniser-zh"}


def test_frozen_stages_are_pretraining_only():
    frozen = {n for n, s in stages().items() if s.get("frozen")}
    assert frozen == {"tokenizer", "text-mini"} | EARS | {
        f"{model}-mini" for model in load_params().models
    }
    assert (ROOT / "data.dvc").is_file()


def test_no_model_that_speaks_learns_from_speech_across_languages():
    assert {n for n, s in stages().items() if "data/corpus-mixed" in s["deps"]} == EARS


def test_the_store_holds_data_and_pretrained_checkpoints_and_nothing_else():
    read = YAML(typ="safe").load
    recorded = read(ROOT / "dvc.lock")["stages"]
    outs = read(ROOT / "data.dvc")["outs"]
    outs += [out for name, stage in stages().items() if stage.get("frozen")
             for out in recorded[name]["outs"]]  # fmt: skip
    wanted = {out["md5"] for out in outs if not out["path"].startswith("results/")}
    objects = ROOT / "store" / "files" / "md5"
    for folder in [name for name in wanted if name.endswith(".dir")]:
        members = json.loads((objects / folder[:2] / folder[2:]).read_text("utf-8"))
        wanted |= {member["md5"] for member in members}
    found = {path.parent.name + path.name for path in objects.glob("*/*")}
    assert found == wanted
