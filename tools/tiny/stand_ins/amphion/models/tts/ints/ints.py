"""A stand-in for DualCodec, VoiceBox and Vocos of Ints: 12.5 codes a second, 24 kHz."""

import numpy as np
import torch
from stand_in_sound import heard, spoken
from torch import Tensor

CODES, RATE_IN, RATE_OUT, SAMPLES = 16_384, 16_000, 24_000, 1920  # samples a code, at 24 kHz


class Ints:
    """Upstream's class without its language model."""

    def __init__(self, llm: str, config: dict, device: str, build_llm: bool):
        self.device = device

    def audio_tokenizer(self, samples: np.ndarray) -> Tensor:
        """Codes [1, M] of samples [N] at 16 kHz."""
        return heard(torch.as_tensor(samples), SAMPLES * RATE_IN // RATE_OUT, CODES)[None]

    def code2mel(self, codes: Tensor, reference: np.ndarray) -> Tensor:
        """Codes [1, M], those of the reference's samples [N] at 24 kHz left out (upstream: mel)."""
        return codes[:, len(reference) // SAMPLES :]

    def mel2audio(self, mel: Tensor) -> np.ndarray:
        """Samples [N] at 24 kHz."""
        return spoken(mel[0], SAMPLES, RATE_OUT).numpy()
