"""Where things are: every path of the project, from the repository's root."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
CHECKPOINTS = ROOT / "checkpoints"
PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"
WORK = ROOT / ".work"


def runs(scale: str) -> Path:
    """Speech, judgements, pairs and aligned weights of one scale."""
    return ROOT / "runs" / scale


def results(scale: str) -> Path:
    """Tables, claims and timings of one scale."""
    return ROOT / "results" / scale


def reports(scale: str) -> Path:
    """Executed notebooks of one scale."""
    return ROOT / "reports" / scale
