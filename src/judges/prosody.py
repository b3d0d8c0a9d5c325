"""How speech moves, from its samples alone: what a reward of recognition could distort unseen."""

from collections.abc import Mapping

import librosa
import numpy as np
import pandas as pd

from intp.audio import SAMPLE_RATE

FRAME, HOP = 1024, 256  # samples
QUIET = 40.0  # dB below the loudest frame that count as silence
PAUSE = 0.15  # seconds; a shorter silence is a stop's closure
LOWEST, HIGHEST = 60.0, 500.0  # Hz
VOICED = 5  # frames without which there is no spread


def pause_share(samples: np.ndarray) -> float:
    """Pauses between the first sound and the last of speech [N], in per cent of that time.

    Silence before and after is no pause. 0 where nothing sounds.
    """
    spoken = librosa.effects.split(samples, top_db=QUIET, frame_length=FRAME, hop_length=HOP)
    if len(spoken) == 0 or not np.any(samples):
        return 0.0
    gaps = (spoken[1:, 0] - spoken[:-1, 1]) / SAMPLE_RATE
    return float(100 * gaps[gaps >= PAUSE].sum() * SAMPLE_RATE / (spoken[-1, 1] - spoken[0, 0]))


def f0_spread(samples: np.ndarray) -> float:
    """Standard deviation of the fundamental frequency of speech [N] over its voiced frames (pYIN),
    in semitones; NaN where too few are voiced."""
    pitch, voiced, _ = librosa.pyin(
        samples, fmin=LOWEST, fmax=HIGHEST, sr=SAMPLE_RATE,
        frame_length=FRAME, hop_length=HOP, resolution=0.25,
    )  # fmt: skip
    found = pitch[voiced]
    return float(12 * np.std(np.log2(found))) if len(found) >= VOICED else float("nan")


def of_audio(audio: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a clip of `audio` (id to samples [N] at 16 kHz): id, pause_share, f0_spread."""
    rows = [(name, pause_share(clip), f0_spread(clip)) for name, clip in audio.items()]
    return pd.DataFrame(rows, columns=["id", "pause_share", "f0_spread"])
