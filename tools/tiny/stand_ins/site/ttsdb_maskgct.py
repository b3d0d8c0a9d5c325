"""A stand-in for `ttsdb-maskgct`: 50 semantic tokens a second in, speech at 24 kHz out."""

import torch
from stand_in_sound import heard, spoken
from torch import Tensor

CODES, RATE_IN, RATE_OUT, PER_SECOND = 8192, 16_000, 24_000, 50


class Pipeline:
    """The four calls that MaskGCT's adapter makes, with upstream's shapes."""

    def extract_features(self, speech: object) -> tuple[Tensor, Tensor]:
        """Features [T, 1] (upstream: [T, 1024]) and mask [T] of samples [N] at 16 kHz."""
        tokens = heard(torch.as_tensor(speech), RATE_IN // PER_SECOND, CODES)
        return tokens[:, None].float(), torch.ones(len(tokens))

    def extract_semantic_code(self, features: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        """Codes [1, T]."""
        return features[..., 0].long(), None

    def extract_acoustic_code(self, speech: Tensor) -> Tensor:
        """Twelve codes of each 480 samples at 24 kHz [1, T, 12]."""
        return torch.zeros(1, speech.shape[1] // 480, 12, dtype=torch.long)

    def semantic2acoustic(self, codes: Tensor, acoustic: Tensor) -> tuple[None, object]:
        """Samples [N] at 24 kHz of what follows the reference."""
        target = codes[0, acoustic.shape[1] :]
        return None, spoken(target, RATE_OUT // PER_SECOND, RATE_OUT).numpy()


class MaskGCT:
    """Upstream's model as its adapter makes it."""

    def __init__(self, model_path: str, device: str):
        self.device = device

    def _get_inference_pipeline(self) -> Pipeline:
        return Pipeline()
