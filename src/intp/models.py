"""From a model's name in `params.yaml` to its adapter: configuration, never code, differs."""

from importlib import import_module
from pathlib import Path

from intp.adapters.base import Adapter
from intp.params import Params
from intp.paths import CHECKPOINTS, ROOT
from networks.tokenizer import SpeechTokenizer


def load_tokenizer() -> SpeechTokenizer:
    """The speech tokenizer of the mini models."""
    return SpeechTokenizer.load(checkpoint(CHECKPOINTS / "tokenizer.safetensors"))


def load_adapter(name: str, params: Params, path: Path | None = None) -> Adapter:
    """The adapter of `models.<name>`, with the weights in `path` (its own checkpoint by default).

    `adapter` there is "module:Class"; the class has `load(path, tokenizer)`. Raises ValueError for
    a name that the parameters do not know and FileNotFoundError for missing weights.
    """
    if name not in params.models:
        raise ValueError(f"models.{name}: unknown; params.yaml has {sorted(params.models)}")
    spec = params.models[name]
    module, _, kind = spec.adapter.partition(":")
    adapter = getattr(import_module(module), kind)
    return adapter.load(checkpoint(path or ROOT / spec.checkpoint), load_tokenizer())


def checkpoint(path: Path) -> Path:
    """`path` if it is there; else FileNotFoundError that says where it comes from."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; `dvc pull` fetches the pretrained ones"
        )
    return path
