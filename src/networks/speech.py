"""The mini models' speech part: `SpeechTokenizer` between sound and tokens."""

from typing import Any

import numpy as np
from torch import Tensor

from intp.adapters.base import weights_key
from intp.audio import griffin_lim, log_mel
from networks.tokenizer import SpeechTokenizer


class TokenizerSpeech:
    """Tokens of `SpeechTokenizer` and their sound; Griffin-Lim draws nothing, so seeds do nothing."""

    def __init__(self, config: Any, tokenizer: SpeechTokenizer | None):
        self.tokenizer = tokenizer
        self.representation = f"tokens of {weights_key(tokenizer) if tokenizer else 'no tokenizer'}"

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to tokens [M]. Raises ValueError if there is no tokenizer."""
        if self.tokenizer is None:
            raise ValueError("this model's speech needs the mini tokenizer: `dvc pull` fetches it")
        return self.tokenizer.tokens(log_mel(samples))

    def decode(self, tokens: Tensor, reference_speech: np.ndarray, seed: int) -> np.ndarray:
        """Tokens [M] to samples at 16 kHz in the timbre of the reference."""
        return griffin_lim(self.tokenizer.speech(tokens, log_mel(reference_speech)))
