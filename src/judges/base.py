"""What every judge has in common: its interface, its checks and its error."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from intp.audio import AudioError, check_audio
from intp.paths import CHECKPOINTS, ROOT

Verdict = TypeVar("Verdict")


class JudgeError(ValueError):
    """A judge that cannot be had, or a recording that it cannot judge; the message names it."""


class Recogniser(Protocol):
    """Writes down what is said. `id` names model, version and settings, for the record."""

    id: str

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str], progress: str | None = None
    ) -> list[str]:
        """One transcript a clip [N] (16 kHz mono), whole, whatever its length.

        `progress` labels a progress line. Raises JudgeError for an empty or non-finite clip.
        """
        ...


class Similarity(Protocol):
    """Maps a voice to a direction. `id` names the model."""

    id: str

    def embed(self, audio: Sequence[np.ndarray], progress: str | None = None) -> np.ndarray:
        """Unit vectors [clips, D]; a clip without any voice may get a zero vector."""
        ...


class Quality(Protocol):
    """Rates how natural speech sounds. `id` names the model."""

    id: str

    def score(self, audio: Sequence[np.ndarray], progress: str | None = None) -> list[float]:
        """One opinion score a clip, 1 (bad) to 5 (excellent)."""
        ...


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of unit vectors [N, D] and [N, D], row by row: [N]."""
    return (a * b).sum(axis=-1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of [N, D] scaled to length one; a zero row stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def checked(audio: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The clips as float32 [N]; raises JudgeError naming the first that is empty, NaN or stereo."""
    clips = []
    for index, samples in enumerate(audio):
        try:
            clips.append(check_audio(samples, f"clip {index}"))
        except AudioError as error:
            raise JudgeError(str(error)) from error
    return clips


def each(
    judge: Callable[[np.ndarray], Verdict], audio: Sequence[np.ndarray], progress: str | None
) -> list[Verdict]:
    """What `judge` says of each clip, one after the other, all of them checked before."""
    return [judge(clip) for clip in tqdm(checked(audio), progress, disable=progress is None)]


def local_folder(name: str) -> Path | None:
    """The folder `name` stands for: a path, from the root too, or a name in checkpoints/."""
    for path in (Path(name), ROOT / name, CHECKPOINTS / name):
        if path.exists():
            return path
    return None
