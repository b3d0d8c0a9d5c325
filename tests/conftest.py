"""Small real parts that several tests share."""

import numpy as np
import pytest
import torch

from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Prompt
from networks.tokenizer import SpeechTokenizer, TokenizerConfig


def tiny_tokenizer() -> SpeechTokenizer:
    """A tiny tokenizer with random weights."""
    torch.manual_seed(0)
    config = TokenizerConfig(
        width=32, encoder_layers=1, decoder_layers=1, frame_layers=1, frame_width=16,
        timbre_width=16, timbre_layers=1, timbre_dim=8, phonemes=list("abcd"),
    )  # fmt: skip
    return SpeechTokenizer(config).eval()


def tiny_ars(tokenizer: SpeechTokenizer) -> ARAdapter:
    """A tiny ARS with random weights."""
    torch.manual_seed(1)
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    return ARAdapter(ARConfig(phonemes=list("abcd ."), model=sizes), tokenizer)


@pytest.fixture(scope="session")
def tokenizer() -> SpeechTokenizer:
    """One tiny tokenizer for all."""
    return tiny_tokenizer()


@pytest.fixture
def adapter(tokenizer: SpeechTokenizer) -> ARAdapter:
    """A tiny ARS of its own for every test."""
    return tiny_ars(tokenizer)


def make_prompt(name: str, target: str = "abcd.", seconds: float = 1.0) -> Prompt:
    """A prompt whose reference is a seeded noise burst."""
    noise = np.random.default_rng(len(name) + len(target)).standard_normal(int(16000 * seconds))
    return Prompt(name, target, target, "en", "ab.", "ab.", "en", (0.1 * noise).astype(np.float32))


@pytest.fixture
def prompts() -> list[Prompt]:
    """Prompts of different lengths."""
    return [make_prompt("a", "abc"), make_prompt("bb", "abcd abcd."), make_prompt("c", "dcba", 0.5)]


@pytest.fixture(autouse=True)
def _denormals():
    """Training flushes denormals for speed; hypothesis refuses to draw floats in that state."""
    torch.set_flush_denormal(False)
