"""A small phoneme recogniser: log-mel in, CTC over the phonemes of one language out.

It hears what the judges of mining did not decide on: trained on recordings only, from the sounds
alone, without a language model that could repair what was said wrong.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from intp.audio import N_MELS
from networks.tokenizer import FRAMES_PER_TOKEN, Stack


@dataclass(frozen=True)
class RecogniserConfig:
    """Sizes of the recogniser; `phonemes` are its labels (blank is index 0)."""

    width: int = 256
    expansion: int = 3
    layers: int = 8
    dropout: float = 0.1
    phonemes: list[str] = field(default_factory=list)


class PhonemeRecogniser(nn.Module):
    """The tokenizer's blocks over pairs of frames, 31.25 positions a second, and a linear layer."""

    def __init__(self, config: RecogniserConfig):
        super().__init__()
        self.config = config
        self.stack = Stack(FRAMES_PER_TOKEN * N_MELS, config.width, config.layers, config.expansion)
        self.dropout = nn.Dropout(config.dropout)
        self.to_phoneme = nn.Linear(config.width, len(config.phonemes) + 1)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Normalised mel [B, T, 100] with even T, mask [B, T/2] -> logits [B, T/2, phonemes + 1]."""
        pairs = mel.unflatten(1, (-1, FRAMES_PER_TOKEN)).flatten(2)
        return self.to_phoneme(self.dropout(self.stack(pairs, mask[..., None])))

    @torch.inference_mode()
    def heard(self, mel: Tensor) -> str:
        """The likeliest labels of one log-mel spectrogram [T, 100], repeats and blanks removed."""
        if len(mel) < FRAMES_PER_TOKEN:
            return ""
        even = normalised(mel[: len(mel) // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN])[None]
        logits = self(even, even.new_ones(1, even.shape[1] // FRAMES_PER_TOKEN))[0]
        labels = torch.unique_consecutive(logits.argmax(-1)).tolist()
        return "".join(self.config.phonemes[label - 1] for label in labels if label)

    def save(self, path: Path) -> None:
        """Write weights (bf16) and configuration to one safetensors file."""
        weights = {k: v.to(torch.bfloat16).contiguous() for k, v in self.state_dict().items()}
        save_file(weights, path, metadata={"config": json.dumps(asdict(self.config))})

    @classmethod
    def load(cls, path: Path) -> "PhonemeRecogniser":
        """Read what `save` wrote; evaluation mode, float32."""
        with safe_open(path, "pt") as file:
            config = RecogniserConfig(**json.loads(file.metadata()["config"]))
        model = cls(config)
        model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        return model.eval()


def normalised(mel: Tensor) -> Tensor:
    """A log-mel [T, 100] without its own mean and scale: a louder or duller copy sounds the same."""
    mel = mel.float()
    return (mel - mel.mean(0)) / mel.std().clamp_min(1e-3)
