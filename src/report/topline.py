"""What no model can beat: the judges on recordings of the evaluation texts (Appendix F.2)."""

from pathlib import Path

import pandas as pd

from intp.audio import griffin_lim, log_mel
from intp.corpus import read_audio
from intp.evaluate import judge, references
from intp.models import load_tokenizer
from intp.params import Params


def topline(frame: pd.DataFrame, recordings: Path, params: Params) -> dict[str, pd.DataFrame]:
    """Scores of the recordings of the target texts, and of the same through the tokenizer.

    Only prompts whose recording exists take part; the tokenizer's timbre comes from the prompt's
    reference, as it does for a model. Raises ValueError if no recording matches.
    """
    audio = dict(read_audio(recordings, set(frame["id"])))
    frame = frame[frame["id"].isin(audio)]
    if frame.empty:
        raise ValueError(f"{recordings}: holds no recording of these prompts")
    tokenizer, timbre = load_tokenizer(), references(frame)
    through = {
        name: griffin_lim(tokenizer.speech(tokenizer.tokens(log_mel(x)), log_mel(timbre[name])))
        for name, x in audio.items()
    }
    return {
        "recording": judge(audio, frame, params, "recordings"),
        "recording through tokenizer": judge(through, frame, params, "through tokenizer"),
    }
