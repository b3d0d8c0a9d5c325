"""Run a notebook as a stage: `python -m intp.nb notebooks/X.ipynb [--name NAME] [-p name=value …]`.

Also `python -m intp.nb time STAGE -- COMMAND …`, for a stage that is no notebook, and
`python -m intp.nb clean NOTEBOOK …`, which strips outputs in place.
"""

import argparse
import ast
import csv
import fcntl
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from ruamel.yaml import YAML

from intp.files import whole
from intp.params import ParamsError, load_params
from intp.paths import ROOT, WORK, reports, results
from report import clean

SECRET = re.compile(r"key|secret|password|token(?!s|i)", re.IGNORECASE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CLEAR = "\r\x1b[K"
BAR = re.compile(r"\r[^\r\n]*")


class StageError(RuntimeError):
    """A stage that must not count; the subclasses say why."""


class ParameterError(StageError):
    """A parameter that the notebook does not declare, or that looks like a secret."""


class SourceMovedError(StageError):
    """The notebook or src/ changed while the stage ran: its outputs belong to neither version."""


class CellError(StageError):
    """A cell failed, or its kernel died."""


class _Kernel(AsyncKernelManager):
    """The kernel of this interpreter, whatever kernelspecs are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict(["--log-level=ERROR"]))


class _Client(PapermillNotebookClient):
    """One line a cell on the terminal; progress bars go there too, never into the notebook."""

    def execute_cell(self, cell: NotebookNode, cell_index: int, **settings: Any) -> NotebookNode:
        if cell.cell_type != "code" or not cell.source.strip():
            return super().execute_cell(cell, cell_index, **settings)
        first = next(line for line in cell.source.splitlines() if line.strip())
        name = Path(self.nb_man.output_path).stem
        label = f"[{name} {cell_index + 1}/{len(self.nb.cells)}] {first[:60]}"
        print(label, end="", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            return super().execute_cell(cell, cell_index, **settings)
        finally:
            again = f"{CLEAR}{label}" if sys.stderr.isatty() else ""
            print(f"{again}  {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        content = msg["content"]
        if msg["msg_type"] == "stream" and content["name"] == "stderr":
            bars = BAR.findall(content["text"])
            content["text"] = BAR.sub("", content["text"])
            if bars and sys.stderr.isatty():
                print(f"{CLEAR}{bars[-1][1:]}", end="", file=sys.stderr, flush=True)
            if not content["text"].strip():
                return None
        return super().process_message(msg, cell, cell_index)


class _Engine(NBClientEngine):
    """Papermill's engine with the kernel and the client above."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **_: Any) -> None:
        settings = {"kernel_manager_class": _Kernel, "coalesce_streams": True, "timeout": None}
        _Client(nb_man, kernel_name=kernel_name, startup_timeout=120, **settings).execute()


def check_parameters(source: NotebookNode, values: Mapping[str, object]) -> None:
    """Raises ParameterError unless the `parameters` cell declares every name."""
    cells = [cell for cell in source.cells if "parameters" in cell.metadata.get("tags", [])]
    if not cells:
        raise ParameterError("no cell is tagged `parameters`")
    # Not by papermill.inspect_notebook, to which `scale: str | None = None` is no parameter.
    statements = ast.parse(cells[0].source).body
    targets = [t for s in statements for t in getattr(s, "targets", [getattr(s, "target", None)])]
    known = {target.id for target in targets if isinstance(target, ast.Name)}
    for name in values:
        if SECRET.search(name):
            raise ParameterError(f"{name}: would be kept in clear; put secrets in the environment")
        if name not in known:
            raise ParameterError(f"{name}: unknown to the notebook, which has {sorted(known)}")


def fingerprint(notebook: Path | None) -> dict[str, str]:
    """Hashes of every module under src/ and of the notebook's cleaned view."""
    contents = {path: path.read_bytes() for path in sorted((ROOT / "src").rglob("*.py"))}
    if notebook is not None:
        contents[notebook] = clean.text(clean.source(notebook)).encode()
    return {str(path): hashlib.sha256(content).hexdigest() for path, content in contents.items()}


@contextmanager
def stage(name: str, scale: str, notebook: Path | None = None) -> Iterator[None]:
    """Time what runs inside; raises SourceMovedError if the code did not stand still."""
    before, began = fingerprint(notebook), time.monotonic()
    yield
    seconds, after = time.monotonic() - began, fingerprint(notebook)
    if moved := sorted(f for f in before | after if before.get(f) != after.get(f)):
        raise SourceMovedError(f"{', '.join(moved)} changed while {name} ran: run it again")
    record(name, seconds, results(scale) / "timings.csv")


def record(name: str, seconds: float, path: Path) -> None:
    """Replace the row of stage `name` in a table of timings, in one step."""
    WORK.mkdir(exist_ok=True)
    with (WORK / "timings.lock").open("w") as lock:  # two stages may end at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        _replace_row(name, seconds, path)


def _replace_row(name: str, seconds: float, path: Path) -> None:
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines())) if path.is_file() else []
    row = {"stage": name, "seconds": f"{seconds:.1f}", "device": device()}
    table = {r["stage"]: r for r in rows} | {name: row}
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())


def device() -> str:
    """The first GPU's name, else the processor's with the number of cores."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        if names := subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0]:
            return names
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return f"{os.cpu_count()} x {found[1] if found else 'CPU'}"


def execute(notebook: Path, name: str, values: dict[str, object]) -> Path:
    """Execute `notebook` from the repository's root; returns the normalised copy's path.

    Raises ParamsError or ParameterError before anything runs, CellError for a failing cell (the
    notebook is then in .work/failed/), SourceMovedError if the code changed meanwhile.
    """
    notebook = notebook.resolve(strict=True)
    scale = str(values.get("scale") or load_params().scale)
    source = clean.source(notebook)
    check_parameters(source, values)
    failed, report = WORK / "failed" / f"{name}.ipynb", reports(scale) / f"{name}.ipynb"
    failed.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    settings = {"engine_name": "intp", "kernel_name": "python3", "progress_bar": False}
    papermill_engines.register("intp", _Engine)
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it knows less of parameters than we do
    os.environ.update(PYTHONHASHSEED="0", PYDEVD_DISABLE_FILE_VALIDATION="1")
    with (
        stage(os.environ.get("DVC_STAGE", name), scale, notebook),
        TemporaryDirectory(dir=WORK) as folder,
    ):
        draft = Path(folder) / f"{name}.ipynb"
        try:
            executed = papermill.execute_notebook(source, draft, values, cwd=ROOT, **settings)
        except PapermillExecutionError as error:
            draft.replace(failed)
            trace = COLOUR.sub("", "\n".join(error.traceback))
            raise CellError(f"{notebook.name}, kept in {failed}\n{error.source}\n{trace}") from None
        except Exception as error:
            if draft.is_file():
                draft.replace(failed)
            raise CellError(f"{notebook.name}, kept in {failed}: {error}") from error
    with whole(report) as partial:
        partial.write_text(clean.text(clean.normalise(executed)), "utf-8")
    return report


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["clean"]:
        for path in map(Path, arguments[1:]):
            if clean.clean(path):
                print(f"cleaned {path}", file=sys.stderr)
        return 0
    if arguments[:1] == ["time"]:
        name, command = arguments[1], arguments[2:][arguments[2:3] == ["--"] :]
        with stage(name, load_params().scale):
            subprocess.run(command, cwd=ROOT, check=True)
        return 0
    parser = argparse.ArgumentParser(prog="python -m intp.nb", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--name", help="of the executed copy; the notebook's own by default")
    parser.add_argument("-p", dest="values", action="append", default=[], metavar="name=value")
    options = parser.parse_args(arguments)
    pairs = (value.partition("=") for value in options.values)
    values = {name: YAML(typ="safe").load(value) for name, _, value in pairs}
    execute(options.notebook, options.name or options.notebook.stem, values)
    return 0


def main() -> int:
    """The command line; any failure is named on stderr and exits 1."""
    # Several threads round differently from one: tables would hang on the number of cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        return _run(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    except (ParamsError, StageError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
