"""What is played: clips by name, equally loud, never clipped, refused if they cannot be."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyloudnorm

from intp.audio import SAMPLE_RATE
from intp.corpus import read_audio
from intp.speech import read_speech
from listening.design import BROKEN, RECORDING

LOUDNESS = -23.0  # LUFS, EBU R 128
PEAK = -1.0  # dBFS; a clip whose peaks would pass it is compressed no further, but refused
TOLERANCE = 0.5  # LU
SHORTEST = 0.4  # seconds that loudness needs (ITU-R BS.1770: one block)
CHUNK = SAMPLE_RATE // 8


class StimulusError(ValueError):
    """A clip that may not be played; the message names it."""


def load_clips(
    wanted: Iterable[str], speech: Mapping[str, Path], recordings: Iterable[Path]
) -> dict[str, np.ndarray]:
    """Samples [N] at 16 kHz of every wanted clip, by name.

    `speech` maps a model to the folder of its answers, `recordings` are corpora. Raises
    StimulusError naming clips that are nowhere.
    """
    wanted = set(wanted)
    bare = {name: name.removeprefix(RECORDING).removeprefix(BROKEN) for name in wanted}
    found: dict[str, np.ndarray] = {}
    for folder in speech.values():
        found |= dict(read_speech(folder, set(bare.values())))
    for folder in recordings:
        found |= dict(read_audio(folder, set(bare.values()) - found.keys()))
    if missing := sorted(name for name, id in bare.items() if id not in found):
        raise StimulusError(f"no audio for {len(missing)} clips: {missing[:5]}")
    return {
        name: broken(found[id]) if name.startswith(BROKEN) else found[id]
        for name, id in bare.items()
    }


def broken(samples: np.ndarray) -> np.ndarray:
    """Speech [N] that nobody takes for speech: every eighth of a second backwards."""
    parts = [samples[k : k + CHUNK][::-1] for k in range(0, len(samples), CHUNK)]
    return np.concatenate(parts)


def matched(samples: np.ndarray, name: str) -> np.ndarray:
    """The clip [N] at -23 LUFS, peaks at most -1 dBFS.

    A clip with such peaks that it cannot be as loud is limited softly (tanh), and refused if it is
    then still more than 0.5 LU off. A clip shorter than one block is measured with silence around.
    Silence stays silent: a model that says nothing is heard to say nothing.
    Raises StimulusError naming a clip that cannot be matched.
    """
    meter = pyloudnorm.Meter(SAMPLE_RATE)
    limit = 10 ** (PEAK / 20)
    samples = np.asarray(samples, np.float64)
    played = samples
    for _ in range(8):
        gap = LOUDNESS - _loudness(meter, played)
        if not np.isfinite(gap):
            return samples.astype(np.float32)
        if abs(gap) < TOLERANCE / 5 and np.abs(played).max() <= limit:
            break
        played = played * 10 ** (gap / 20)
        over = np.abs(played).max() > limit
        played = limit * np.tanh(played / limit) if over else played
    if abs(LOUDNESS - _loudness(meter, played)) > TOLERANCE or np.abs(played).max() > limit:
        raise StimulusError(f"{name}: cannot be played at {LOUDNESS:g} LUFS without clipping")
    return played.astype(np.float32)


def _loudness(meter: pyloudnorm.Meter, samples: np.ndarray) -> float:
    least = int(SHORTEST * SAMPLE_RATE) + 1
    short = least - len(samples)
    with np.errstate(divide="ignore"):
        return meter.integrated_loudness(np.pad(samples, (0, short)) if short > 0 else samples)
