"""What F.3 plays: evaluation prompts spoken before and after alignment (Figure 2)."""

from pathlib import Path

import numpy as np
import pandas as pd

from intp.evaluate import speak
from intp.models import load_adapter
from intp.params import Params
from intp.paths import ROOT
from listening.design import Plan, picked
from listening.stimuli import load_clips


def before_and_after(
    plan: Plan, frame: pd.DataFrame, model: str, run: str, aligned: Path, params: Params
) -> dict[str, np.ndarray]:
    """Samples [N] of every clip of a plan that `build_before_after` made of `frame`, by name.

    `aligned` is the run's checkpoint. Both checkpoints speak with the evaluation's sampling and
    seeds, so that what is heard is what the tables judge.
    """
    kept, sampling = picked(frame), params.sampling[model].evaluation
    clips: dict[str, np.ndarray] = {}
    for name, checkpoint in (("base", None), (run, aligned)):
        adapter = load_adapter(model, params, checkpoint)
        spoken = speak(adapter, kept, sampling, params.seed, f"{model} {name}")
        clips |= {f"{model}-{name}-{prompt}": samples for prompt, samples in spoken.items()}
    rest = {clip for item in plan.items for clip in item.clips} - clips.keys()
    corpora = [ROOT / name for name in sorted(frame["reference_corpus"].unique())]
    return clips | load_clips(rest, {}, corpora)
