"""Whose voice it is, with the small judge: Resemblyzer."""

from collections.abc import Sequence

import numpy as np

from intp.audio import SAMPLE_RATE
from intp.device import default_device
from judges.base import each, unit

LEAST_VOICE = SAMPLE_RATE // 2  # samples; Resemblyzer's voice detection works on 0.24 s windows


class ResemblyzerSimilarity:
    """GE2E embeddings of PyPI `resemblyzer` (weights inside), with its own pre-processing."""

    id = "resemblyzer 0.1.4"

    def __init__(self) -> None:
        """Load the weights that come with the package."""
        from resemblyzer import VoiceEncoder

        self.encoder = VoiceEncoder(default_device(), verbose=False)

    def embed(self, audio: Sequence[np.ndarray], progress: str | None = None) -> np.ndarray:
        """Unit vectors [clips, 256]. Raises JudgeError for empty or non-finite clips.

        Volume is raised to −30 dBFS and long silences are cut. Where less than 0.5 s of voice is
        left the clip is embedded as it is, so that whispers, noise and silence have a vector too.
        """
        return unit(
            np.stack(each(lambda c: self.encoder.embed_utterance(voiced(c)), audio, progress))
        )


def voiced(clip: np.ndarray) -> np.ndarray:
    """Resemblyzer's pre-processing of [N], or the clip itself if that leaves next to nothing."""
    from resemblyzer import preprocess_wav

    if len(clip) < LEAST_VOICE or not clip.any():
        return clip
    kept = preprocess_wav(clip)
    return kept if len(kept) >= LEAST_VOICE else clip
