"""What the layouts of published checkpoints share: reading their files, and what may be missing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchaudio.functional import resample

from intp.paths import ROOT

RATE_IN, RATE_OUT = 16_000, 24_000  # the project's sample rate, and that of the second stages


class MissingUpstream(ImportError):
    """A package that only the published checkpoint needs is not there; says what to install."""


def local(path: str) -> str:
    """A path of the configuration, from the repository's root; an absolute one stays."""
    return str(ROOT / path)


def read_published(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The sizes a checkpoint states (empty unless it is a folder with a config.json) and its weights.

    `path` is a folder as transformers saves it, a safetensors file, or a bare state dict of torch,
    from which the counters `epoch` and `step` of CosyVoice's trainer are dropped (`train_utils.py`).
    """
    if path.is_dir():
        config = path / "config.json"
        sizes = json.loads(config.read_text("utf-8")) if config.is_file() else {}
        shards = sorted(path.glob("model*.safetensors"))
        return sizes, {key: value for shard in shards for key, value in load_file(shard).items()}
    if path.suffix == ".safetensors":
        return {}, load_file(path)
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    counters = {key for key in ("epoch", "step") if isinstance(tensors.get(key), int)}
    return {}, {key: value for key, value in tensors.items() if key not in counters}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generators seeded, for upstream code that draws from them, then restored."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def resampled(samples: np.ndarray | Tensor, before: int, after: int) -> Tensor:
    """Samples [N] at the rate `before` to float32 samples at `after`."""
    return resample(torch.as_tensor(samples, dtype=torch.float32).cpu(), before, after)
