"""A stand-in for CosyVoice 2's speech tokenizer, flow and vocoder: 25 tokens a second, 24 kHz."""

from collections.abc import Iterator

import soundfile
import torch
from stand_in_sound import heard, spoken
from torch import Tensor

CODES, RATE_IN, RATE_OUT, PER_SECOND = 6561, 16_000, 24_000, 25


class Frontend:
    """`frontend_zero_shot` as in `cosyvoice/cli/frontend.py`."""

    def frontend_zero_shot(
        self, text: str, prompt_text: str, path: str, rate: int, speaker: str
    ) -> dict[str, Tensor]:
        """Tokens [1, M], mel [1, 2 M, 80] and a voice [1, 192] of the recording at `path`."""
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        tokens = heard(samples, RATE_IN // PER_SECOND, CODES)
        return {
            "flow_prompt_speech_token": tokens[None].int(),
            "prompt_speech_feat": torch.zeros(1, 2 * len(tokens), 80),
            "flow_embedding": torch.zeros(1, 192),
        }


class Model:
    """`tts` as in `cosyvoice/cli/model.py`."""

    def tts(self, source_speech_token: Tensor, **reference: Tensor) -> Iterator[dict[str, Tensor]]:
        """Speech [1, N] at 24 kHz in one piece."""
        yield {"tts_speech": spoken(source_speech_token[0], RATE_OUT // PER_SECOND, RATE_OUT)[None]}


class CosyVoice2:
    """Upstream's class as its adapter makes it; the folder's weights are not read."""

    sample_rate = RATE_OUT

    def __init__(self, weights: str):
        self.frontend, self.model = Frontend(), Model()
