"""From a model's name in `params.yaml` to its adapter: configuration, never code, differs."""

from pathlib import Path
from pkgutil import resolve_name

from intp.adapters.base import Adapter, whole
from intp.device import default_device
from intp.params import Model, Params
from intp.paths import CHECKPOINTS, ROOT
from networks.tokenizer import SpeechTokenizer

TOKENIZER = CHECKPOINTS / "tokenizer.safetensors"


def load_tokenizer() -> SpeechTokenizer:
    """The speech tokenizer of the mini models."""
    return SpeechTokenizer.load(checkpoint(TOKENIZER))


def load_adapter(name: str, params: Params, path: Path | None = None) -> Adapter:
    """The adapter of `models.<name>`, with the weights in `path` (its own checkpoint by default), on
    the device that alignment trains on: before and after are spoken and scored alike.

    `adapter` there is "module:Class"; the class has `load(path, tokenizer)` and, if `published` is
    set, `load_published(path, config, tokenizer)` for the model's own checkpoint: what was saved
    since is in our format. Raises ValueError for a name that the parameters do not know and
    FileNotFoundError for missing weights, and TypeError for an adapter that lacks something.
    """
    if name not in params.models:
        raise ValueError(f"models.{name}: unknown; params.yaml has {sorted(params.models)}")
    adapter = whole(_read(params.models[name], path))
    adapter.model.to(default_device())
    return adapter


def _read(spec: Model, path: Path | None) -> Adapter:
    adapter = resolve_name(spec.adapter)
    source = checkpoint(path or ROOT / spec.checkpoint)
    if spec.published is None:
        return adapter.load(source, load_tokenizer())
    # Published checkpoints have second stages of their own; only a mini one's asks for ours.
    tokenizer = load_tokenizer() if TOKENIZER.is_file() else None
    if path is not None:
        return adapter.load(source, tokenizer)
    return adapter.load_published(source, {"model": spec.config} | spec.published, tokenizer)


def checkpoint(path: Path) -> Path:
    """`path` if it is there; else FileNotFoundError that says where it comes from."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; `dvc pull` fetches the pretrained ones, published ones "
            "come from their authors (docs/adapters.md)"
        )
    return path
