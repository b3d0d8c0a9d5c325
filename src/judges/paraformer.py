"""Paraformer through funasr: Chinese and code-switched speech at `paper` scale."""

import random
from collections.abc import Sequence

import numpy as np
import torch

from intp.audio import SAMPLE_RATE
from intp.device import default_device
from judges.base import JudgeError, each, local_folder
from judges.whisper import split_at_pauses

LONGEST_SECONDS = 30.0
VERSION = "1"


class ParaformerRecogniser:
    """`paraformer-zh` as seed-tts-eval uses it: no voice activity detection, no punctuation."""

    def __init__(self, name: str = "paraformer-zh") -> None:
        """`name` is a hub's, or a folder in the published layout; raises JudgeError if neither."""
        from funasr import AutoModel  # takes seconds

        folder = local_folder(name)
        states = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng():  # funasr seeds every generator of the process
                self.model = AutoModel(
                    model=str(folder or name),
                    device=str(default_device()),
                    ncpu=torch.get_num_threads(),  # else it sets four for the whole process
                    disable_update=True,
                    disable_pbar=True,
                    ignore_init_mismatch=False,  # else a layer that does not fit stays random
                )
        except (AssertionError, KeyError, OSError, RuntimeError) as error:
            raise JudgeError(
                f"{name}: neither a Paraformer's folder nor fetched: {error}"
            ) from error
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
        self.id = f"{name} v{VERSION}"

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str], progress: str | None = None
    ) -> list[str]:
        """One transcript a clip, clip by clip as upstream; the languages are not looked at.

        A clip in which funasr finds nothing becomes "" (upstream fails there); one of more than
        30 s is cut at its quietest points. Raises JudgeError for an empty or non-finite clip.
        """
        return each(self._hear, audio, progress)

    def _hear(self, clip: np.ndarray) -> str:
        texts = []
        for piece in split_at_pauses(clip, LONGEST_SECONDS):
            with torch.random.fork_rng():
                torch.manual_seed(0)  # its front end dithers
                found = self.model.generate(input=piece, fs=SAMPLE_RATE, batch_size_s=300)
            texts.append(found[0]["text"] if found else "")
        return " ".join(texts).strip()
