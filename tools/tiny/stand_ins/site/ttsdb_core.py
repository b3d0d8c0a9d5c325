"""A stand-in for `ttsdb-core`: what it vendors lies in `vendor`, beside this file."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def vendor_context(name: str, cwd: bool, env: Mapping[str, str]) -> Iterator[None]:
    """The vendored modules on the path while it lasts."""
    folder = str(Path(__file__).parent / "vendor")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
