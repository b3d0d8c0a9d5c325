"""Which files under src/ a notebook or module imports, so that `dvc.yaml` depends on those alone.

`python -m tools.deps` prints what every stage of `dvc.yaml` should list.
"""

import ast
import re
import shlex
from itertools import pairwise
from pathlib import Path

import nbformat
from ruamel.yaml import YAML

from intp.paths import ROOT

SRC = ROOT / "src"
PACKAGES = {path.name for path in SRC.iterdir() if (path / "__init__.py").is_file()}


def source(path: Path) -> str:
    """The Python of a module or of a notebook's code cells."""
    if path.suffix != ".ipynb":
        return path.read_text("utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(c.source for c in cells if c.cell_type == "code")


def module_file(name: str) -> Path | None:
    """The file of a module of ours, or None if it is not ours."""
    stem = SRC / Path(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported(path: Path) -> set[Path]:
    """Our files that `path` imports itself, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {module_file(n) for n in names if n.split(".")[0] in PACKAGES}
    return {f for f in files if f is not None and f.stat().st_size > 0}


def closure(path: Path) -> set[Path]:
    """Everything of ours that running `path` can load; what the parameters name too."""
    seen: set[Path] = set()
    stack = [path]
    while stack:
        for found in imported(stack.pop()) - seen:
            seen.add(found)
            stack.append(found)
            if found.name == "models.py":
                adapters = named_adapters()
                seen.update(adapters)
                stack.extend(adapters)
    return seen


def named_adapters() -> list[Path]:
    """The files of the adapters and front ends that the scales' parameters name."""
    found = set()
    for path in sorted((ROOT / "params").glob("*.yaml")):
        for model in YAML(typ="safe").load(path.read_text("utf-8"))["models"].values():
            settings = [model["adapter"], *(model.get("published") or {}).values()]
            names = [s.partition(":")[0] for s in settings if isinstance(s, str) and ":" in s]
            found |= {module_file(name) for name in names}
    return sorted(f for f in found if f is not None)


def entry_points(cmd: str) -> list[Path]:
    """The notebooks and modules that a stage's command runs (the runner itself is none)."""
    words = shlex.split(re.sub(r"\$\{[^}]*\}", "x", cmd))
    found = [ROOT / w for w in words if w.endswith(".ipynb") and w.startswith("notebooks/")]
    for flag, name in pairwise(words):
        if flag == "-m" and name not in ("intp.nb",):
            path = module_file(name)
            main = SRC / Path(*name.split(".")) / "__main__.py"
            found += [p for p in (main if main.is_file() else path,) if p]
    return found


def expected(cmd: str) -> list[str]:
    """The dependencies on code that a stage with this command should list, sorted."""
    files: set[Path] = set()
    for entry in entry_points(cmd):
        files |= {entry} | closure(entry)
    return sorted(str(f.relative_to(ROOT)) for f in files)


def stages() -> dict[str, dict]:
    """The stages of dvc.yaml, not expanded."""
    return YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]


def main() -> None:
    """Print the code dependencies of every stage."""
    for name, stage in stages().items():
        print(f"{name}:")
        for path in expected(stage["cmd"]):
            print(f"      - {path}")


if __name__ == "__main__":
    main()
