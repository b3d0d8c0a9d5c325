"""One canonical form for notebooks: sources without outputs, executed copies without churn.

`python -m intp.nb clean` and every save in JupyterLab write the same bytes, so that DVC, which
hashes the file, reruns nothing after a notebook was only looked at.
"""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from intp.files import whole
from intp.paths import NOTEBOOKS, ROOT

METADATA = {
    "kernelspec": {"display_name": "python3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# The folder's length is bounded: an embedded recording is megabytes without a blank.
CHURN = re.compile(r"\b0x[0-9a-f]{8,16}\b|(?:/[\w.-]{1,64}){0,6}/ipykernel_\d+/(?=\d+\.py)")
WIDGET = "application/vnd.jupyter.widget-view+json"


def strip(notebook: NotebookNode) -> NotebookNode:
    """Drop, in place, what a run or an editor adds; tags and cell ids stay."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(METADATA)
    seen: set[str] = set()
    for index, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        if not cell.get("id") or cell.id in seen:
            cell.id = hashlib.sha256(f"{index} {cell.source}".encode()).hexdigest()[:8]
        seen.add(cell.id)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Make an executed copy depend on what ran alone: no times, counts, addresses or widgets."""
    outputs = [[_stable(output) for output in cell.get("outputs", [])] for cell in notebook.cells]
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
    strip(notebook)
    for cell, kept in zip(notebook.cells, outputs, strict=True):
        if cell.cell_type == "code":
            cell.outputs = kept
    return notebook


def _stable(output: NotebookNode) -> NotebookNode:
    words = CHURN.sub("…", json.dumps(output, ensure_ascii=False))
    places = {str(ROOT): ".", sys.prefix: "…"}
    for place in sorted(places, key=len, reverse=True):  # one may lie in the other
        words = words.replace(place, places[place])
    stable: dict[str, Any] = json.loads(words)
    stable.get("data", {}).pop(WIDGET, None)
    if "execution_count" in stable:
        stable["execution_count"] = None
    return nbformat.from_dict(stable)


def source(path: Path) -> NotebookNode:
    """The stripped view of a notebook file. Raises FileNotFoundError and nbformat's NotJSONError."""
    return strip(nbformat.read(path, as_version=4))


def text(notebook: NotebookNode) -> str:
    """The bytes that nbformat, and so JupyterLab, would write."""
    return nbformat.writes(notebook, version=4) + "\n"


def clean(path: Path) -> bool:
    """Strip a file in place, whole or not at all; whether that changed it."""
    before, after = path.read_text("utf-8"), text(source(path))
    if before != after:
        with whole(path) as partial:
            partial.write_text(after, "utf-8")
            shutil.copymode(path, partial)
    return before != after


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "report.clean"}]


def _load_jupyter_server_extension(app: Any) -> None:
    app.contents_manager.register_pre_save_hook(clean_on_save)


def clean_on_save(model: dict[str, Any], path: str, contents_manager: Any, **_: object) -> None:
    """JupyterLab's hook: sources in notebooks/ are saved without outputs."""
    file = Path(contents_manager.root_dir, path.lstrip("/")).resolve()
    if model["type"] == "notebook" and model.get("content") and file.is_relative_to(NOTEBOOKS):
        model["content"] = strip(nbformat.from_dict(model["content"]))
