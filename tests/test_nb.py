"""The runner and the canonical form of notebooks, on throw-away notebooks in a folder with a space."""

import asyncio
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from intp import nb
from intp.paths import PARAMS, ROOT
from report import clean

PARAMETERS = 'scale: str | None = None\ntext = "x"  # what to say\noverrides: dict = {}'
BUSY = """\
import os, sys, warnings
from tqdm import tqdm
for _ in tqdm(range(3), desc="bar", disable=False): pass
warnings.warn("careful")
print(text, os.getcwd(), sys.executable, {"a", "b", "c"})
object()"""


def notebook(path: Path, *sources: str, parameters: str | None = PARAMETERS) -> Path:
    cells = [new_markdown_cell("# A notebook")]
    if parameters is not None:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "a project"
    shutil.copytree(PARAMS, root / "params")
    shutil.copy(PARAMS / "smoke.yaml", root / "params.yaml")
    for name in (
        "intp/__init__",
        "intp/files",
        "intp/paths",
        "intp/params",
        "intp/nb",
        "report/__init__",
        "report/clean",
    ):
        copy = root / "src" / f"{name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "src" / f"{name}.py", copy)
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "DVC_STAGE"}
    return subprocess.run(
        [sys.executable, "-m", "intp.nb", *arguments],
        cwd=root,
        env=environment | {"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
    )


def timings(root: Path) -> dict[str, dict[str, str]]:
    path = root / "results" / "smoke" / "timings.csv"
    return {row["stage"]: row for row in csv.DictReader(path.read_text().splitlines())}


def test_the_executed_copy_is_the_same_byte_for_byte(project: Path):
    notebook(project / "notebooks" / "n.ipynb", BUSY)
    copies = []
    for _ in range(2):
        done = run(project, "notebooks/n.ipynb", "--name", "n_hi", "-p", "text=hi there")
        assert done.returncode == 0, done.stderr
        copies.append((project / "reports" / "smoke" / "n_hi.ipynb").read_text("utf-8"))
    assert copies[0] == copies[1]
    assert f"hi there . {sys.executable.replace(sys.prefix, '…')}" in copies[0]
    assert "careful" in copies[0] and "object at …" in copies[0]
    for churn in ("0x", "ipykernel_", "papermill", "bar:", str(project), 'execution_count": 1'):
        assert churn not in copies[0]
    assert done.stderr.count("[n_hi 4/4]") == 1, "one line a cell"
    row = timings(project)["n_hi"]
    assert float(row["seconds"]) > 0 and row["device"]


def test_a_failing_cell_is_printed_and_the_notebook_kept(project: Path):
    notebook(project / "notebooks" / "n.ipynb", "x = 1", "raise ValueError('it ' + 'broke')")
    done = run(project, "notebooks/n.ipynb")
    assert done.returncode == 1
    for part in ("CellError: n.ipynb", "raise ValueError('it ' + 'broke')", "ValueError: it broke"):
        assert part in done.stderr
    assert "it broke" in (project / ".work" / "failed" / "n.ipynb").read_text("utf-8")
    assert not (project / "reports").exists() and not (project / "results").exists()


def test_code_that_changed_meanwhile_fails_the_stage(project: Path):
    edit = "from pathlib import Path\nPath('src/intp/later.py').write_text('x = 1')"
    notebook(project / "notebooks" / "n.ipynb", edit)
    done = run(project, "notebooks/n.ipynb")
    assert done.returncode == 1
    assert "SourceMovedError" in done.stderr and "later.py changed while n ran" in done.stderr
    assert not (project / "reports").exists() and not (project / "results").exists()


def test_stages_that_are_no_notebook_are_timed_and_guarded(project: Path):
    assert run(project, "time", "train@x", "--", "true").returncode == 0
    assert run(project, "time", "other", "--", "sh", "-c", "exit 3").returncode == 3
    moved = run(project, "time", "other", "--", "sh", "-c", "echo '#' >> src/intp/paths.py")
    assert moved.returncode == 1 and "paths.py changed while other ran" in moved.stderr
    assert list(timings(project)) == ["train@x"]


def test_bad_parameters_stop_before_anything_runs(project: Path):
    notebook(project / "notebooks" / "n.ipynb")
    (project / "params.yaml").write_text("scale: smoke\n")
    done = run(project, "notebooks/n.ipynb")
    assert done.returncode == 1 and "ParamsError: params.yaml: seed: missing name" in done.stderr


def test_parameters_must_be_declared_and_no_secrets(tmp_path: Path):
    source = clean.source(notebook(tmp_path / "n.ipynb"))
    nb.check_parameters(source, {"scale": None, "text": "", "overrides": {}})
    with pytest.raises(
        nb.ParameterError, match=r"texts: unknown .* \['overrides', 'scale', 'text'"
    ):
        nb.check_parameters(source, {"texts": 1})
    for name in ("api_key", "HF_TOKEN", "secret", "Password"):
        with pytest.raises(nb.ParameterError, match=f"{name}: would be kept in clear"):
            nb.check_parameters(source, {name: 1})
    bare = clean.source(notebook(tmp_path / "bare.ipynb", "x = 1", parameters=None))
    with pytest.raises(nb.ParameterError, match="no cell is tagged `parameters`"):
        nb.check_parameters(bare, {})


def used(path: Path) -> nbformat.NotebookNode:
    """A notebook after somebody ran it in an editor."""
    content = nbformat.read(notebook(path, "1 + 1"), as_version=4)
    content.metadata = {"kernelspec": {"name": "x", "display_name": "Conda"}, "widgets": {"a": 1}}
    cell = content.cells[-1]
    cell.execution_count, cell.metadata = 7, nbformat.from_dict({"collapsed": True})
    cell.outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=7)]
    return content


def test_cleaning_strips_in_place_once(tmp_path: Path):
    path = tmp_path / "n.ipynb"
    nbformat.write(used(path), path)
    assert clean.clean(path) is True
    assert clean.clean(path) is False
    cell = clean.source(path).cells[-1]
    assert (cell.outputs, cell.execution_count, cell.metadata) == ([], None, {})
    assert "Conda" not in path.read_text() and "widgets" not in path.read_text()


def test_a_notebook_survives_a_clean_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "n.ipynb"
    nbformat.write(used(path), path)
    before, write = path.read_text("utf-8"), Path.write_text

    def half(self: Path, text: str, *rest: str) -> None:
        write(self, text[: len(text) // 2], *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        clean.clean(path)
    assert path.read_text("utf-8") == before


@pytest.mark.parametrize("prefix", [ROOT / ".venv", ROOT.parent, Path("/opt/venv")])
def test_an_executed_copy_does_not_tell_where_the_environment_lies(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "prefix", str(prefix))
    shown = new_output("stream", text=f"{ROOT}/src/intp {prefix}/lib/python3/site.py")
    executed = new_notebook(cells=[new_code_cell("1", outputs=[shown])])
    assert clean.normalise(executed).cells[0].outputs[0].text == "./src/intp …/lib/python3/site.py"


def test_cell_ids_are_made_the_same_way_and_kept(tmp_path: Path):
    old = new_notebook(cells=[new_code_cell("x"), new_code_cell("x", id="mine")])
    del old.cells[0]["id"]
    ids = [[cell.id for cell in clean.strip(nbformat.from_dict(old)).cells] for _ in range(2)]
    assert ids[0] == ids[1] and ids[0][1] == "mine" and ids[0][0] != "mine"


@pytest.mark.parametrize("kind", ["LargeFileManager", "AsyncLargeFileManager"])
def test_saving_in_jupyterlab_without_a_change_leaves_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    from jupyter_server.services.contents import largefilemanager

    monkeypatch.setattr(clean, "NOTEBOOKS", tmp_path / "notebooks")
    path = notebook(tmp_path / "notebooks" / "n.ipynb", "1 + 1")
    clean.clean(path)
    before = path.read_bytes()
    manager = getattr(largefilemanager, kind)(root_dir=str(tmp_path))

    class Server:
        contents_manager = manager

    clean._load_jupyter_server_extension(Server)

    def save(content: dict, where: str) -> None:
        model = {"type": "notebook", "format": "json", "content": content}
        result = manager.save(model, where)
        if asyncio.iscoroutine(result):
            asyncio.run(result)

    opened = manager.get("notebooks/n.ipynb")
    opened = asyncio.run(opened) if asyncio.iscoroutine(opened) else opened
    save(opened["content"], "notebooks/n.ipynb")
    assert path.read_bytes() == before, "opened and saved"
    ran = used(tmp_path / "used.ipynb")
    ran.cells = [*opened["content"]["cells"][:-1], ran.cells[-1]]
    ran.cells[-1].id = opened["content"]["cells"][-1]["id"]
    save(ran, "notebooks/n.ipynb")
    assert path.read_bytes() == before, "run, then saved"
    save(ran, "report.ipynb")
    assert "execute_result" in (tmp_path / "report.ipynb").read_text(), "others keep their outputs"
