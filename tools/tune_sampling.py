"""Choose a model's evaluation sampling on the development set, so that alignment is not a temperature
in disguise. Appends to results/development/<model>_sampling.csv, combination by combination.

    python -m tools.tune_sampling --model ars temperature=0.1,0.3,0.5,0.7
    python -m tools.tune_sampling --model f5 steps=7,16 cfg=1.0,2.0
"""

import argparse
import time

import numpy as np
import pandas as pd

from intp.audio import SAMPLE_RATE
from intp.evaluate import judge, speak
from intp.models import load_adapter
from intp.params import Params, load_params
from intp.paths import ROOT
from intp.prompts import held_out_prompts
from report.tables import estimated
from tools.grid import combinations, keep


def judged(audio: dict[str, np.ndarray], prompts: pd.DataFrame, params: Params, label: str) -> dict:
    """The error by set and direction, and over all prompts with its interval."""
    scores = judge(audio, prompts, params, label, quality=False)
    row = {}
    for (name, direction), part in scores.groupby(["set", "direction"], sort=False):
        row[f"{name} {direction} error"] = round(part["error"].mean(), 2)
    found = estimated(scores, "error", params)
    return row | {"error": found.value, "low": found.low, "high": found.high, "n": found.n}


def main() -> None:
    """Error on development prompts with every combination of the values given, and the time it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="ars")
    parser.add_argument("--items", type=int, default=16, help="a direction")
    parser.add_argument("--sets", nargs="+", default=["regular"])
    parser.add_argument("grid", nargs="+", metavar="name=value,value")
    options = parser.parse_args()
    grid = list(combinations(options.grid))
    params = load_params()
    adapter = load_adapter(options.model, params)
    prompts = held_out_prompts("development", options.items, options.sets)
    base = params.sampling[options.model].evaluation
    if unknown := sorted(grid[0].keys() - base.keys()):
        parser.error(f"sampling.{options.model}.evaluation has no {unknown}, but {sorted(base)}")
    out = ROOT / "results" / "development" / f"{options.model}_sampling.csv"
    for chosen in grid:
        begun = time.monotonic()
        audio = speak(adapter, prompts, base | chosen, params.seed)
        took = time.monotonic() - begun
        seconds = sum(map(len, audio.values())) / SAMPLE_RATE
        row = chosen | judged(audio, prompts, params, str(chosen))
        row["real_time_factor"] = took / seconds
        row = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        keep(row, out)
        print(row, flush=True)


if __name__ == "__main__":
    main()
