"""Tune an alignment recipe on the development set, never on the evaluation sets.

    python -m tools.tune_dpo --model ars dpo.ars.lr=5e-5,1e-4 dpo.ars.epochs=1,2

Needs the pairs of the scale in force (`dvc repro pairs`). Every combination is trained and its error
on the development prompts printed beside the base model's, paired by item, as it is and with every
answer `clamped` (one loop of babble outweighs many sound answers); appended to
results/development/dpo.csv. With `--held-out` some pairs are kept out of training: how often the
aligned model orders them rightly (`held_out`) says in seconds what the error says in minutes, and
with `--items 0` is all that is measured.
"""

import argparse
import random
from dataclasses import replace

import pandas as pd

from intp.adapters.base import Adapter
from intp.align import align, load_pairs, recipe
from intp.evaluate import judge, speak
from intp.mining import variant_pairs
from intp.models import load_adapter
from intp.params import Params, load_params
from intp.paths import ROOT, WORK, runs
from intp.prompts import held_out_prompts, read_prompts
from intp.trainer import Scores, reference_scores
from report.statistics import paired
from report.tables import SETS, estimated, with_clamped
from tools.grid import combinations, keep

MEASURES = ["error", "clamped", "sim", "seconds"]
OUT = ROOT / "results" / "development" / "dpo.csv"


def rightly_ordered(before: Scores, after: Scores) -> float:
    """Share of pairs whose chosen answer gained more than the rejected one; NaN without pairs."""
    gains = [
        (after[name][0] - chosen) - (after[name][1] - rejected)
        for name, (chosen, rejected) in before.items()
    ]
    return sum(gain > 0 for gain in gains) / len(gains) if gains else float("nan")


def spoken(
    adapter: Adapter, frame: pd.DataFrame, params: Params, options: argparse.Namespace, label: str
) -> pd.DataFrame:
    """Scores of every prompt, means over `--seeds` answers to it."""
    sampling = params.sampling[options.model].evaluation
    seeds = [replace(params, seed=params.seed + n) for n in range(options.seeds)]
    scores = []
    for drawn in seeds:
        audio = speak(adapter, frame, sampling, drawn.seed, label)
        scores.append(judge(audio, frame, drawn, label, quality=not options.quick))
    known = [name for name in MEASURES if name == "clamped" or name in scores[0]]
    means = sum(with_clamped(part, params)[known] for part in scores) / len(scores)
    return scores[0].assign(**means)


def trained(params: Params, options: argparse.Namespace) -> tuple[Adapter, dict]:
    """The model aligned as `params` says, and how that went."""
    folder, adapter = runs(params.scale), load_adapter(options.model, params)
    table = pd.read_parquet(folder / "pairs.parquet")
    table = variant_pairs(table, options.model, options.variant, params)
    models = {*table["chosen_model"], *table["rejected_model"]}
    prompts = read_prompts(folder / "prompts" / "mining.parquet")
    pairs = load_pairs(table, prompts, {m: folder / "speech" / m for m in models}, adapter)
    rule = recipe(params, options.model, options.variant)
    # By prompt: a pair of a prompt that was trained on has been seen.
    asked = sorted({pair.chosen.prompt.id for pair in pairs})
    random.Random(0).shuffle(asked)
    place = {name: i for i, name in enumerate(asked)}
    held = sorted(pairs, key=lambda pair: place[pair.chosen.prompt.id])[: options.held_out]
    kept_out = {pair.chosen.prompt.id for pair in held}
    pairs = [pair for pair in pairs if pair.chosen.prompt.id not in kept_out]
    known = reference_scores(adapter, held, rule)
    name = f"{options.model}-tune"
    log = align(adapter, pairs, rule, WORK / "tune" / f"{name}.safetensors", name)
    return adapter, {
        "scale": params.scale, "variant": options.variant, "pairs": len(pairs), "steps": len(log),
        "accuracy": log.get("accuracy", pd.Series(dtype=float)).tail(10).mean(),
        "held_out": rightly_ordered(known, reference_scores(adapter, held, rule)),
    }  # fmt: skip


def changes(base: pd.DataFrame, after: pd.DataFrame, params: Params) -> dict:
    """Means before and after, and the error's change with its interval."""
    found = {f"{name}_before": mean for name, mean in base.filter(MEASURES).mean().items()}
    found |= {f"{name}_after": mean for name, mean in after.filter(MEASURES).mean().items()}
    for name in ("error", "clamped"):
        change = estimated(paired(base, after, name), name, params)
        found |= {name: change.value, f"{name}_low": change.low, f"{name}_high": change.high}
    return found


def main() -> None:
    """Train and judge every combination of the values given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ars")
    parser.add_argument("--variant", default="intp")
    parser.add_argument("--items", type=int, default=6, help="development prompts a direction")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--seeds", type=int, default=1, help="answers to each of them")
    parser.add_argument("--quick", action="store_true", help="judge intelligibility only")
    parser.add_argument("--held-out", type=int, default=0, help="pairs kept out of training")
    parser.add_argument("grid", nargs="+", metavar="name=value,value")
    options = parser.parse_args()
    params = load_params()
    frame = held_out_prompts("development", options.items, options.sets)
    if options.items:
        base = spoken(load_adapter(options.model, params), frame, params, options, "base")
        print(f"base: {base.filter(MEASURES).mean().round(3).to_dict()}", flush=True)
    for overrides in combinations(options.grid):
        params = load_params(overrides=overrides)
        adapter, row = trained(params, options)
        row = overrides | row
        if options.items:
            after = spoken(adapter, frame, params, options, str(overrides))
            row |= {"prompts": len(frame), "answers": options.seeds}
            row |= changes(base, after, params)
        keep(row, OUT, "%.5g")
        print(pd.DataFrame([row]).round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
