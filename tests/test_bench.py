"""The benchmark beside TRL counts lines of code, and no others, and knows its own memory."""

import os
import subprocess
import sys

import pytest
import torch

from intp.paths import ROOT
from tools.bench_trainer import code_lines, peak_mib

TEXT = '''"""A module,
in two lines."""

# A comment.
import os


class Thing:
    """A class."""

    text = """a value,

    not a docstring"""


def call(
    a: int,
) -> int:
    """A function."""
    return (
        a
        + 1  # a comment behind code
    )
'''


def test_lines_of_code_are_neither_blank_nor_comments_nor_docstrings():
    assert code_lines(TEXT) == 12


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    held = bytearray(300 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    code = "from tools.bench_trainer import peak_mib; print(peak_mib())"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert float(done.stdout) < peak_mib() - 200
