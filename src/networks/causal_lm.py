"""A causal language model of transformers, by its configuration's names."""

from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM


def causal_lm(sizes: dict[str, Any]) -> nn.Module:
    """The model with random float32 weights; `sizes` has `model_type` and that type's settings."""
    # A published config.json says in which type its weights are kept: here all are float32.
    sizes = {key: value for key, value in sizes.items() if key not in ("dtype", "torch_dtype")}
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**sizes), attn_implementation="sdpa"
    )
