"""The published front end and second stage of MaskGCT: upstream's own package, called, not copied.

`ttsdb-maskgct` carries Amphion's `models/tts/maskgct`: phonemes (espeak, jieba, pypinyin and an ONNX
model), w2v-BERT features to 50 semantic tokens a second, semantic tokens to 24 kHz speech. It pins
transformers 4.41, so the adapter runs in that package's environment at paper scale.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from networks.upstream import RATE_IN, RATE_OUT, MissingUpstream, local, resampled, seeded

INSTALL = (
    "MaskGCT's front end and second stage come with the package ttsdb-maskgct: pip install "
    "ttsdb-maskgct, in an environment of its own (it pins transformers 4.41.2), and espeak-ng"
)


@lru_cache(maxsize=1)
def upstream(weights: str, device: str) -> Any:
    """Upstream's model with the weights of a local copy of its repository, once a process."""
    try:
        from ttsdb_maskgct import MaskGCT
    except ImportError as error:
        raise MissingUpstream(INSTALL) from error
    return MaskGCT(model_path=weights, device=device)


class UpstreamFrontend:
    """Phoneme ids, semantic tokens and speech by upstream's pipeline.

    `config.frontend_options`: `weights`, the folder of the published repository, and `device`.
    Texts are read as they are written: the project's own phonemes are not used.
    """

    representation = "semantic codes of MaskGCT"

    def __init__(self, config: Any, tokenizer: Any = None):
        options = {"device": "cpu"} | config.frontend_options
        options["weights"] = local(options["weights"])
        self.model = upstream(**options)
        self.assets = {"TTSDB_VENDOR_ASSETS_DIR": options["weights"]}  # the polyphone model's place
        self.pipeline = self.model._get_inference_pipeline()

    def phones(self, prompt: Any) -> tuple[list[int], list[int]]:
        """Ids of the reference's and of the target's phonemes, in upstream's table.

        Mixed text goes by its scripts, which upstream tells apart itself for "zh" and "en".
        """
        from ttsdb_core import vendor_context

        # Upstream opens its tables by relative paths, and the polyphone model at the first text.
        with vendor_context("ttsdb_maskgct", cwd=True, env=self.assets):
            from models.tts.maskgct.maskgct_utils import g2p_

            texts = (
                (prompt.prompt_text, prompt.prompt_lang),
                (prompt.target_text, prompt.target_lang),
            )
            before, target = (
                g2p_(text, "zh" if lang == "mixed" else lang)[1] for text, lang in texts
            )
        return before, target

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to semantic tokens [M], 50 a second."""
        features, mask = self.pipeline.extract_features(samples)
        device = self.model.device
        codes, _ = self.pipeline.extract_semantic_code(
            features[None].to(device), mask[None].to(device)
        )
        return codes[0].cpu()

    def decode(self, tokens: Tensor, reference_speech: np.ndarray, seed: int) -> np.ndarray:
        """Semantic tokens to samples at 16 kHz in the voice of the reference.

        Upstream's second stage draws from torch's global generator: it is seeded, then restored.
        """
        wave = resampled(reference_speech, RATE_IN, RATE_OUT)[None].to(self.model.device)
        both = torch.cat([self.encode(reference_speech), tokens])[None].to(self.model.device)
        with seeded(seed):
            acoustic = self.pipeline.extract_acoustic_code(wave)
            _, speech = self.pipeline.semantic2acoustic(both, acoustic)
        return resampled(speech, RATE_OUT, RATE_IN).numpy()
