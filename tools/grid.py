"""The combinations that a tuning tool is asked to try."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from ruamel.yaml import YAML


def combinations(entries: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every combination of "name=value,value" entries, values read as YAML."""
    read = YAML(typ="safe").load
    names = [entry.partition("=")[0] for entry in entries]
    values = [[read(v) for v in entry.partition("=")[2].split(",")] for entry in entries]
    for chosen in itertools.product(*values):
        yield dict(zip(names, chosen, strict=True))
