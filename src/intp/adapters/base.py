"""What every model adapter shares: a prompt, an example, and the protocol the rest relies on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class Prompt:
    """The x of the paper: a target text and a reference recording with its text (Section 3)."""

    id: str
    target_text: str
    target_phonemes: str
    target_lang: str
    prompt_text: str
    prompt_phonemes: str
    prompt_lang: str
    reference_speech: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class Example:
    """A prompt and a model's representation of one spoken answer y (token ids [N] for token models)."""

    prompt: Prompt
    target: Tensor


@dataclass(frozen=True)
class Speech:
    """One synthesised answer: samples [N] at 16 kHz, the model's own representation, its seed."""

    samples: np.ndarray
    target: Tensor
    seed: int
    stopped: bool


class Adapter(Protocol):
    """The one place that knows a model; everything else takes adapters (`docs/adapters.md`)."""

    model: nn.Module

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to the target representation of `Example`."""

    def batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Padded tensors of several examples, ready for `score`."""

    def score(self, model: nn.Module, batch: dict[str, Tensor], reduction: str = "sum") -> Tensor:
        """log p(y|x) [B] under `model`, over target positions only."""

    def synthesise(
        self,
        prompts: Sequence[Prompt],
        sampling: dict[str, Any],
        seeds: Sequence[int],
        progress: str | None = None,
    ) -> list[Speech]:
        """One answer a prompt; the answer depends on its seed, never on its batch mates."""

    def save(self, path: Path) -> None:
        """Write the model and its configuration to one safetensors file."""
