"""Choose a model's evaluation temperature on the development set, so that alignment is not a
temperature in disguise. Writes results/development/<model>_temperature.csv.

`python tools/tune_sampling.py --model ars --temperatures 0.1 0.3 0.5 0.7`
"""

import argparse

import pandas as pd

from intp.evaluate import judge, speak
from intp.models import load_adapter
from intp.params import load_params
from intp.paths import ROOT
from intp.prompts import held_out_prompts
from report.tables import estimated


def main() -> None:
    """Error on regular development prompts at each temperature."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="ars")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--items", type=int, default=16, help="a direction")
    parser.add_argument("--sets", nargs="+", default=["regular"])
    arguments = parser.parse_args()
    params = load_params()
    adapter = load_adapter(arguments.model, params)
    prompts = held_out_prompts("development", arguments.items, arguments.sets)
    rows = []
    for temperature in arguments.temperatures:
        sampling = params.sampling[arguments.model].evaluation | {"temperature": temperature}
        audio = speak(adapter, prompts, sampling, params.seed)
        scores = judge(audio, prompts, params, f"temperature {temperature}", quality=False)
        row = {"temperature": temperature}
        for (name, direction), part in scores.groupby(["set", "direction"], sort=False):
            row[f"{name} {direction} error"] = round(part["error"].mean(), 2)
        found = estimated(scores, "error", params)
        row |= {
            "error": round(found.value, 2),
            "low": round(found.low, 2),
            "high": round(found.high, 2),
        }
        rows.append(row | {"n": found.n})
        print(row, flush=True)
    out = ROOT / "results" / "development" / f"{arguments.model}_temperature.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
