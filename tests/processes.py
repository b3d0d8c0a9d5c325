"""Aligns a tiny ARS and writes its log: `accelerate launch … tests/processes.py OUT`, or alone."""

import json
import os
import sys
from pathlib import Path

import torch
from conftest import tiny_ars, tiny_tokenizer
from test_trainer import QUICK, preferences

from intp.trainer import train


def main() -> None:
    """Train; the main process writes log and weights' digest to the folder given."""
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    run = train(tiny_ars(tiny_tokenizer()), preferences(14), QUICK, out / "work")
    if int(os.environ.get("RANK", "0")) == 0:
        weights = {name: weight.double().sum().item() for name, weight in run.weights.items()}
        (out / "run.json").write_text(json.dumps({"log": run.log, "weights": weights}))


if __name__ == "__main__":
    main()
