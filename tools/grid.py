"""The combinations that a tuning tool is asked to try, and the table of what was tried."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from intp.files import whole


def combinations(entries: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every combination of "name=value,value" entries, values read as YAML."""
    read = YAML(typ="safe").load
    names = [entry.partition("=")[0] for entry in entries]
    values = [[read(v) for v in entry.partition("=")[2].split(",")] for entry in entries]
    for chosen in itertools.product(*values):
        yield dict(zip(names, chosen, strict=True))


def keep(row: dict, path: Path, digits: str | None = None) -> None:
    """Append a row to a table (CSV) of what was tried; the table is replaced whole."""
    old = [pd.read_csv(path)] if path.is_file() else []
    table = pd.concat([*old, pd.DataFrame([row])])
    with whole(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n", float_format=digits)
