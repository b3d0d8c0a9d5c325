"""The benchmark beside TRL counts lines of code and knows its memory; tuning keeps what it tried."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from intp.paths import ROOT
from tools import grid, tune_dpo, tune_sampling
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


def test_what_was_tried_before_survives_a_row_that_cannot_be_written(tmp_path: Path):
    class Broken:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    path = tmp_path / "development" / "x.csv"
    for number in range(3):
        grid.keep({"steps": number, f"only {number}": 0.123456}, path, "%.3g")
    before = path.read_text()
    assert before.splitlines()[3] == "2,,,0.123"
    with pytest.raises(KeyboardInterrupt):
        grid.keep({"a new column": Broken()}, path)
    assert path.read_text() == before


def test_an_order_of_held_out_pairs_alone_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "dpo.csv"
    path.write_text("scale,dpo.ars.lr,error,held_out\nmini,0.1,3.5,0.5\n")
    monkeypatch.setattr(tune_dpo, "OUT", path)
    monkeypatch.setattr(tune_dpo, "trained", lambda *_: (None, {"scale": "mini", "held_out": 0.75}))
    grid = ["--items", "0", "--held-out", "8", "dpo.ars.lr=5e-5,1e-4"]
    monkeypatch.setattr(sys, "argv", ["tune_dpo", *grid])
    tune_dpo.main()
    kept = pd.read_csv(path)
    assert kept["dpo.ars.lr"].tolist() == [0.1, 5e-5, 1e-4]
    assert kept["held_out"].tolist() == [0.5, 0.75, 0.75]
    assert kept["error"].isna().tolist() == [False, True, True]


def test_a_sampling_grid_that_is_stopped_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def speak(_: object, prompts: pd.DataFrame, sampling: dict, *__: object) -> dict:
        if sampling["temperature"] > 0.5:
            raise KeyboardInterrupt
        return {name: np.zeros(16_000, np.float32) for name in prompts["id"]}

    def judge(_: dict, prompts: pd.DataFrame, *__: object, **___: object) -> pd.DataFrame:
        return prompts[["id", "set", "direction", "voice"]].assign(error=12.5)

    monkeypatch.setattr(tune_sampling, "load_adapter", lambda *_: None)
    monkeypatch.setattr(tune_sampling, "speak", speak)
    monkeypatch.setattr(tune_sampling, "judge", judge)
    monkeypatch.setattr(tune_sampling, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["tune_sampling", "--items", "1", "temperature=0.3,0.5,0.7"])
    with pytest.raises(KeyboardInterrupt):
        tune_sampling.main()
    kept = pd.read_csv(tmp_path / "results" / "development" / "ars_sampling.csv")
    assert kept["temperature"].tolist() == [0.3, 0.5] and (kept["error"] == 12.5).all()
