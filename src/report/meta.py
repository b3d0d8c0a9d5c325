"""What a scale's results were made with: versions and hashes, beside the tables."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from intp.files import whole
from intp.paths import CHECKPOINTS, DATA, ROOT

PACKAGES = ("torch", "torchaudio", "transformers", "accelerate", "jiwer")


def digest(paths: Iterable[Path]) -> str:
    """sha256 of names and contents of files, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def write_meta(scores: Mapping[str, pd.DataFrame], path: Path) -> dict:
    """Write and return what `scores` (a frame of `judge` a checkpoint) were made with.

    Raises ValueError if they come from more than one judge or normaliser: such a table would
    compare instruments.
    """
    said = pd.concat(scores.values())
    for column in ("judge", "normaliser"):
        if said[column].nunique() != 1:
            raise ValueError(f"scores of more than one {column}: {sorted(said[column].unique())}")
    meta = {
        "evaluation": json.loads((DATA / "evaluation" / "VERSION.json").read_text()),
        "items": {name: len(frame) for name, frame in scores.items()},
        "normaliser": str(said["normaliser"].iloc[0]),
        "judges": said["judge"].iloc[0].split(" | "),
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "requirements_sha256": digest([ROOT / "requirements.txt"]),
        }
        | {name: version(name) for name in PACKAGES},
        "inputs": {"data.dvc_sha256": digest([ROOT / "data.dvc"])}
        | {p.name: digest([p]) for p in sorted(CHECKPOINTS.glob("*.safetensors"))},
        "src_sha256": digest((ROOT / "src").rglob("*.py")),
    }
    with whole(path) as partial:
        partial.write_text(json.dumps(meta, indent=2) + "\n")
    return meta
