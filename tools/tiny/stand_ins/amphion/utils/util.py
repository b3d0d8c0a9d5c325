"""A stand-in for Amphion's reader of configurations."""

import json
from pathlib import Path


def load_config(path: str) -> dict:
    """The JSON file at `path`."""
    return json.loads(Path(path).read_text("utf-8"))
