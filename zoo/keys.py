"""Short hashes of what something is made from: they name its place under .work/, so that whatever
is found there was made from the same."""

import hashlib
import json
from dataclasses import asdict
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from torch import Tensor

from intp.params import Params
from intp.paths import ROOT


def key(*parts: Any) -> str:
    """A short hash of values that JSON knows, of dataclasses, tensors and what paths hold.

    Raises TypeError for values of any other kind.
    """
    text = json.dumps(parts, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):  # a file, or all files of a folder; one that is missing holds none
        files = sorted(p for p in (value, *value.rglob("*")) if p.is_file())
        return {
            str(p.relative_to(value)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
        }
    if isinstance(value, Tensor):
        return hashlib.sha256(value.contiguous().numpy()).hexdigest()
    return asdict(value)


def recipe(params: Params, stage: str) -> str:
    """A short hash of what dvc.yaml says a stage depends on: parameters, data, weights and code.

    Raises KeyError for a stage that dvc.yaml does not have, or a parameter that `params` lacks.
    """
    listed = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    values = [reduce(getitem, name.split("."), asdict(params)) for name in listed["params"]]
    return key(values, [ROOT / name for name in listed["deps"]])
