"""What the models are, from their configuration and files: sizes, parts in the paper, pretraining."""

from collections.abc import Mapping
from inspect import getmodule
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from intp.adapters.base import Adapter
from intp.models import load_adapter
from intp.params import Params
from intp.paths import ROOT
from judges import Similarity

LOGS, COSTS = ROOT / "results" / "pretraining", ROOT / "results" / "pretraining.csv"


def architecture(adapter: Adapter) -> str:
    """The first words of the adapter's module: what kind of model it speaks for."""
    return (getmodule(type(adapter)).__doc__ or "").partition(":")[0]


def part(name: str, params: Params) -> str:
    """What the paper does with the model (3.2, 5.1, 5.3), as the parameters say it."""
    said = {
        "mined": name in params.mining.models,
        "aligned": "intp" in params.runs.get(name, []),
        "iterated": name == params.iterative.model,
    }
    return " and ".join(word for word, holds in said.items() if holds)


def described(params: Params) -> pd.DataFrame:
    """One row a model, by its name in tables: architecture, network, what it reads, its part, size
    (millions of parameters, megabytes of the file), and steps and hours of pretraining."""
    costs = pd.read_csv(COSTS)
    rows = {}
    for name, spec in params.models.items():
        adapter, file = load_adapter(name, params), ROOT / spec.checkpoint
        own = costs[costs["stage"].isin([file.stem, f"{file.stem}-text"])]
        files = [path for path in (file, *file.rglob("*")) if path.is_file()]
        rows[spec.label] = {
            "architecture": architecture(adapter),
            "network": type(adapter.model).__name__,
            "reads": adapter.reads,
            "part": part(name, params),
            "parameters": sum(p.numel() for p in adapter.model.parameters()) / 1e6,
            "megabytes": sum(path.stat().st_size for path in files) / 1e6,
            "steps": own["steps"].sum(),
            "hours": own["seconds"].sum() / 3600,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model").round(2)


def pretraining_curves(params: Params) -> plt.Figure:
    """What each model's pretraining log says of utterances that it never trained on, by step; an
    empty figure for published models, whose logs are not ours."""
    stems = {Path(spec.checkpoint).stem: spec.label for spec in params.models.values()}
    logs = {}
    for stem, label in stems.items():
        for path in sorted(LOGS.glob(f"{stem}*.jsonl")):
            title = label if path.stem == stem else f"{label}, on text"
            logs[title] = pd.read_json(path, lines=True)
    columns = max(1, min(4, len(logs)))
    rows = max(1, -(-len(logs) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.6 * rows), squeeze=False)
    for axis, (title, log) in zip(axes.flat, logs.items(), strict=False):
        for column in [c for c in log if c.startswith("held_out")]:
            axis.plot(log["step"], log[column], label=column.removeprefix("held_out_"))
        axis.set(title=title, xlabel="step")
        axis.legend(fontsize="x-small")
    for axis in axes.flat[len(logs) :]:
        axis.set_axis_off()
    figure.tight_layout()
    return figure


def own_and_other(
    said: Mapping[str, np.ndarray], frame: pd.DataFrame, references: Mapping, judge: Similarity
) -> tuple[float, float]:
    """Mean cosine of answers to their own reference voice, and to the references of other voices."""
    ids, voices = list(frame["id"]), frame["voice"].map(str).to_numpy()
    cosines = judge.embed([said[i] for i in ids]) @ judge.embed([references[i] for i in ids]).T
    same = voices[:, None] == voices[None]
    return float(np.diag(cosines).mean()), float(cosines[~same].mean())
