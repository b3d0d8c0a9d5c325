"""Error of ARS against training and against data: which of the two would help most.

    python -m tools.learning_curve keep=1,4 steps=150,600

One model for each combination, pretrained from scratch on one in `keep` training utterances for so
many steps (recipe and schedule of `pretraining.ars-mini`), beside the committed checkpoint. What
is trained waits in `.work/curve`: a killed run of the same recipe goes on where it stopped, and what
is finished is not trained again. Measured on development
prompts; writes results/development/learning_curve.csv.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from intp.adapters.base import Adapter
from intp.corpus import read_manifest
from intp.evaluate import judge, speak
from intp.files import whole
from intp.models import load_adapter
from intp.params import Params, load_params
from intp.paths import DATA, ROOT, WORK
from intp.prompts import held_out_prompts
from report.tables import estimated, with_clamped
from tools.grid import combinations
from zoo.__main__ import CORPORA, HELD_OUT, train_ars
from zoo.keys import recipe

NAME = "ars-mini"
OUT = ROOT / "results" / "development" / "learning_curve.csv"


def trained(keep: int, steps: int, params: Params) -> tuple[Adapter, Path]:
    """The model of one combination, pretrained unless it has been, and its log."""
    spec = replace(params.pretraining[NAME], steps=steps)
    here = replace(params, pretraining=params.pretraining | {NAME: spec})
    work = WORK / "curve" / f"keep-{keep}-steps-{steps}" / recipe(here, NAME)
    checkpoint = work / f"{NAME}.safetensors"
    if not checkpoint.is_file():
        train_ars(here, work, keep)
    return load_adapter("ars", params, checkpoint), work / "log.jsonl"


def measured(adapter: Adapter, prompts: pd.DataFrame, params: Params, label: str) -> dict:
    """Clamped error on `prompts` with its interval, in per cent, and a direction's."""
    audio = speak(adapter, prompts, params.sampling["ars"].evaluation, params.seed)
    scores = with_clamped(judge(audio, prompts, params, label, quality=False), params)
    parts = scores.groupby(["set", "direction"], sort=False)["clamped"].mean().round(2)
    found = estimated(scores, "clamped", params)
    row = {f"{name} {direction}": error for (name, direction), error in parts.items()}
    return row | {"error": round(found.value, 2), "low": round(found.low, 2),
                  "high": round(found.high, 2), "n": found.n}  # fmt: skip


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("grid", nargs="+", metavar="name=value,value", help="keep and steps")
    parser.add_argument("--items", type=int, default=16, help="prompts a direction")
    options = parser.parse_args()
    grid = list(combinations(options.grid))
    if grid[0].keys() != {"keep", "steps"}:
        parser.error("expected keep=… and steps=…, as in keep=1,4 steps=150,600")
    params = load_params()
    training = [row for name in CORPORA for row in read_manifest(DATA / name)][:-HELD_OUT]
    prompts = held_out_prompts("development", options.items, ["regular"])
    full = params.pretraining[NAME].steps
    rows = []
    for point in [*grid, {"keep": 1, "steps": full}]:
        keep, steps = point["keep"], point["steps"]
        if (keep, steps) == (1, full):
            adapter = load_adapter("ars", params)
            log = ROOT / "results" / "pretraining" / f"{NAME}.jsonl"
        else:
            adapter, log = trained(keep, steps, params)
        last = pd.read_json(log, lines=True).iloc[-1]
        hours = sum(row.duration for row in training[::keep]) / 3600
        row = {"hours_of_speech": round(hours, 2), "steps": steps}
        row |= {name: last[name] for name in ("held_out_en", "held_out_zh")}
        rows.append(row | measured(adapter, prompts, params, f"keep {keep}, {steps} steps"))
        print(rows[-1], flush=True)
        with whole(OUT) as partial:
            pd.DataFrame(rows).to_csv(partial, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
