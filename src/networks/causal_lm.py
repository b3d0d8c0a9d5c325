"""A causal language model of transformers, by its configuration's names, and its attention mask."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM


def causal_lm(sizes: dict[str, Any]) -> nn.Module:
    """The model with random float32 weights; `sizes` has `model_type` and that type's settings."""
    # A published config.json says in which type its weights are kept: here all are float32.
    sizes = {key: value for key, value in sizes.items() if key not in ("dtype", "torch_dtype")}
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**sizes), attn_implementation="sdpa"
    )


def visible(segments: Tensor) -> Tensor:
    """Who may attend to whom [B, 1, T, T] in rows of `segments` [B, T]: each answer to the prompt
    (0) and to itself, all causally; padding (-1) to itself alone, so that no row is empty."""
    query, key = segments[:, :, None], segments[:, None]
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & ((key == 0) | (key == query)) & (key >= 0)
    return (seen | torch.eye(length, dtype=torch.bool))[:, None]
