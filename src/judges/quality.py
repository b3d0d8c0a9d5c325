"""How natural speech sounds: Distill-MOS, and UTMOS at `paper` scale."""

from collections.abc import Sequence

import numpy as np
import torch

from intp.audio import SAMPLE_RATE
from intp.device import default_device
from judges.base import JudgeError, each

UTMOS_SOURCE = "tarepan/SpeechMOS:v1.2.0"


class DistillMOSQuality:
    """Distill-MOS v7 (PyPI `distillmos`, MIT, weights inside)."""

    id = "distillmos v7"

    def __init__(self) -> None:
        """Load the weights that come with the package."""
        from distillmos.sqa import DEFAULT_WEIGHTS_CHKPT, ConvTransformerSQAModel

        self.model = ConvTransformerSQAModel(load_weights=False)  # its own loading prints
        weights = torch.load(DEFAULT_WEIGHTS_CHKPT, map_location="cpu", weights_only=True)
        self.model.load_state_dict(weights["model"])
        self.model.eval().to(default_device())

    @torch.inference_mode()
    def score(self, audio: Sequence[np.ndarray], progress: str | None = None) -> list[float]:
        """Opinion scores; the model sees 7.68 s, padded with silence or in overlapping pieces.

        Volume does not matter (scaled to peak one). Raises JudgeError for empty or NaN clips.
        """
        device = next(self.model.parameters()).device
        return each(
            lambda clip: self.model(torch.from_numpy(clip)[None].to(device)).item(), audio, progress
        )


class UTMOSQuality:
    """UTMOS22 strong, as ported in SpeechMOS; one clip at a time, since padding shifts its mean."""

    id = f"utmos22_strong {UTMOS_SOURCE}"

    def __init__(self) -> None:
        """Fetch code and weights by torch.hub; raises JudgeError with what to do if it cannot."""
        try:
            model = torch.hub.load(UTMOS_SOURCE, "utmos22_strong", trust_repo=True, verbose=False)
        except Exception as error:  # urllib's, zipfile's and torch.hub's own errors
            raise JudgeError(
                f"UTMOS: {UTMOS_SOURCE} cannot be fetched from GitHub ({error}); copy "
                f"{torch.hub.get_dir()} from a machine that reaches it (or set TORCH_HOME), or "
                "choose quality: distillmos"
            ) from error
        self.device = default_device()
        self.model = model.eval().to(self.device)

    @torch.inference_mode()
    def score(self, audio: Sequence[np.ndarray], progress: str | None = None) -> list[float]:
        """Opinion scores. Raises JudgeError for empty or NaN clips."""
        return each(
            lambda clip: self.model(
                torch.from_numpy(clip)[None].to(self.device), SAMPLE_RATE
            ).item(),
            audio,
            progress,
        )
