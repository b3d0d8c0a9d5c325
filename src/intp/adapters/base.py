"""What every model adapter shares: a prompt, an example, and the protocol the rest relies on."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm


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

    @property
    def phonemes(self) -> str:
        """The target's; raises ValueError naming the prompt if it came without."""
        if self.target_phonemes:
            return self.target_phonemes
        raise ValueError(
            f"prompt {self.id}: target_phonemes is empty, and this model reads nothing else"
        )


@dataclass(frozen=True)
class Example:
    """A prompt and a model's representation of one spoken answer y (token ids [N] for token models)."""

    prompt: Prompt
    target: Tensor


@dataclass(frozen=True)
class Draw:
    """Seeds of what chance decides in a score: `shared` of the time t, which a pair has in common,
    `own` of this answer's noise (Eq. 7) or mask (Eq. 9). An autoregressive score needs neither."""

    shared: int
    own: int


def draw(pair: str, example: Example, seed: int, *, share_noise: bool = False) -> Draw:
    """The draw of one answer of a pair, keyed to what it is and never to its role: policy and
    reference meet the same one, and swapping chosen and rejected negates the margin exactly.

    `seed` changes with the epoch; `share_noise` gives both answers of a pair the same noise.
    """

    def key(data: bytes) -> int:
        words = f"{seed}/{pair}/".encode() + data
        return int.from_bytes(hashlib.sha256(words).digest()[:7], "big")

    audio = example.target.detach().cpu().contiguous().numpy().tobytes()
    return Draw(shared=key(b"t"), own=key(b"noise") if share_noise else key(audio))


@dataclass(frozen=True)
class Speech:
    """One synthesised answer: samples [N] at 16 kHz, the model's own representation, its seed, and
    whether it ended by itself: not cut at `max_seconds`."""

    samples: np.ndarray
    target: Tensor
    seed: int
    stopped: bool


class Adapter(Protocol):
    """The one place that knows a model; everything else takes adapters (`docs/adapters.md`)."""

    model: nn.Module
    reads: str  # "phonemes", "text", "pinyin"
    stochastic: bool  # whether a score hangs on its draw
    representation: str  # what targets are; adapters that name the same read each other's

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to the target representation of `Example`."""

    def batch(self, examples: Sequence[Example], draws: Sequence[Draw] = ()) -> dict[str, Tensor]:
        """Padded tensors of several examples, ready for `score`, with what their draws decide.

        Without `draws` every example gets `Draw(0, 0)`.
        """

    def score(self, model: nn.Module, batch: dict[str, Tensor], reduction: str = "sum") -> Tensor:
        """The score [B] of Section 4 under `model`, over target positions only: log p(y|x) of Eq. 3,
        minus the error of Eq. 7, or the masked log-probability of Eq. 9. Gradients flow."""

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


def whole(adapter: object) -> Adapter:
    """`adapter`, if it has all that the protocol asks for; else TypeError that names what lacks."""
    asked = {*Adapter.__annotations__, *(name for name in vars(Adapter) if name[0] != "_")}
    if lacking := sorted(name for name in asked if not hasattr(adapter, name)):
        raise TypeError(f"{type(adapter).__name__} has no {', '.join(lacking)} (docs/adapters.md)")
    return adapter


def check_sampling(sampling: dict[str, Any], needed: Iterable[str], others: Iterable[str]) -> None:
    """Raises ValueError naming settings that a model lacks or does not know."""
    lacking, unknown = {*needed} - sampling.keys(), sampling.keys() - {*needed, *others}
    if lacking or unknown:
        said = [f"{sorted(lacking)} missing"] * bool(lacking)
        said += [f"{sorted(unknown)} unknown"] * bool(unknown)
        raise ValueError(f"sampling: {' and '.join(said)}; this model has {[*needed, *others]}")


def in_batches(
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    lengths: Sequence[float],
    size: int,
    answer: Callable[[list[Prompt], list[int]], list[Speech]],
    progress: str | None = None,
) -> list[Speech]:
    """`answer` every prompt in batches of `size` of similar length; answers in the order asked."""
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    speech: dict[int, Speech] = {}
    with tqdm(total=len(prompts), desc=progress, disable=progress is None, unit="utt") as bar:
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            found = answer([prompts[i] for i in rows], [seeds[i] for i in rows])
            speech |= dict(zip(rows, found, strict=True))
            bar.update(len(rows))
    return [speech[i] for i in range(len(prompts))]


def weights_key(model: nn.Module) -> str:
    """A short hash of a model's weights and their names."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().to(torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_checkpoint(path: Path, model: nn.Module, config: Any) -> None:
    """Weights and buffers, as precise as they are, and the configuration, a dataclass, in one file.

    Nothing is rounded: an alignment moves weights by less than bf16 can tell apart.
    """
    # Copies, since safetensors takes no two names of one tensor.
    weights = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    save_file(weights, path, metadata={"config": json.dumps(asdict(config))})


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights, in float32, of what `write_checkpoint` wrote.

    Raises ValueError for a file that it did not write.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if "config" not in metadata:
        raise ValueError(
            f"{path}: not written by an adapter's `save`; a model in its authors' layout needs "
            "`published:` beside `checkpoint:` in params.yaml"
        )
    config = json.loads(metadata["config"])
    return config, {key: value.float() for key, value in load_file(path).items()}
