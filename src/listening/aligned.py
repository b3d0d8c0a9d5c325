"""What F.3 plays: evaluation prompts spoken before and after alignment (Figure 2)."""

from pathlib import Path

import numpy as np
import pandas as pd

from intp.corpus import read_audio
from intp.paths import ROOT
from listening.design import Plan, picked
from listening.stimuli import load_clips


def before_and_after(
    plan: Plan, frame: pd.DataFrame, model: str, run: str, spoken: Path
) -> dict[str, np.ndarray]:
    """Samples [N] of every clip of a plan that `build_before_after` made of `frame`, by name.

    `spoken` has a folder for the base model and one for the run, as `intp.evaluate` keeps them:
    what is heard is what the tables judge. Raises StimulusError naming clips that are nowhere.
    """
    asked = set(picked(frame)["id"])
    clips = {
        f"{model}-{name}-{prompt}": samples
        for name in ("base", run)
        for prompt, samples in read_audio(spoken / f"{model}-{name}", asked)
    }
    rest = {clip for item in plan.items for clip in item.clips} - clips.keys()
    corpora = [ROOT / name for name in sorted(frame["reference_corpus"].unique())]
    return clips | load_clips(rest, {}, corpora)
