"""Tiny random checkpoints of the five models, in the layouts that their authors publish.

Names of files and tensors, vocabularies and codebooks are upstream's (docs/adapters.md); widths and
depths are tiny. ARS has no public layout: it and the mini tokenizer are in our own.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from pypinyin import Style, lazy_pinyin
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

from intp.adapters.ar import ARAdapter, ARConfig
from intp.corpus import read_manifest
from intp.params import Params
from intp.paths import DATA
from networks.ar_upstream import INSTRUCTION, SYSTEM
from networks.cosyvoice2 import Qwen2LM
from networks.dit import DiT
from networks.maskgct import MaskGCT_T2S
from networks.tokenizer import SpeechTokenizer, TokenizerConfig

STAND_INS = Path(__file__).parent / "stand_ins"
LLM = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
# What replaces the published sizes in the parameters: dotted names under `models`.
SIZES: dict[str, dict[str, object]] = {
    "f5": {"dim": 32, "depth": 1, "heads": 2, "text_dim": 16, "conv_layers": 1},
    "maskgct": {"hidden_size": 32, "num_layers": 1, "num_heads": 2},
    "cosyvoice2": LLM,
}
ROWS = {"tts": 32_064, "audio": 16_386}  # of Phi-3.5's table, and what Ints adds to it
PHI = {32_000: "<|endoftext|>", 32_001: "<|assistant|>", 32_006: "<|system|>", 32_007: "<|end|>"}
PHI |= {32_010: "<|user|>"}
STOPS = 1.8  # the end's row of an output layer is so many times longer: answers of some seconds


def tokenizer(path: Path, phonemes: list[str]) -> SpeechTokenizer:
    """The project's tokenizer in its own format; ARS at this size speaks in its tokens."""
    torch.manual_seed(0)
    config = TokenizerConfig(
        width=32, encoder_layers=1, decoder_layers=1, frame_layers=1, frame_width=16,
        timbre_width=16, timbre_layers=1, timbre_dim=8, phonemes=phonemes,
    )  # fmt: skip
    made = SpeechTokenizer(config).eval()
    made.save(path)
    return made


def ars(path: Path, speech: SpeechTokenizer) -> None:
    """Our own format: a Llama over all phonemes of the corpora."""
    torch.manual_seed(1)
    config = ARConfig(phonemes=speech.config.phonemes, model=LLM)
    adapter = ARAdapter(config, speech)
    _loud(adapter.model)
    adapter.model.lm_head.weight.data[adapter.ids["eos_target"]] *= STOPS
    adapter.save(path)


def f5(folder: Path, sizes: dict[str, object]) -> None:
    """`model_1250000.safetensors` (the EMA, its counters) and `vocab.txt` of F5-TTS v1 base."""
    folder.mkdir(parents=True)
    symbols = pinyin_symbols()
    (folder / "vocab.txt").write_text("".join(f"{s}\n" for s in symbols), "utf-8")
    torch.manual_seed(2)
    model = DiT(symbols=len(symbols), **sizes)
    _loud(model)
    weights = {f"ema_model.transformer.{k}": v.half() for k, v in model.state_dict().items()}
    counters = {"initted": torch.tensor(True), "step": torch.tensor(1_250_000)}
    save_file(weights | counters, folder / "model_1250000.safetensors")


def pinyin_symbols() -> list[str]:
    """The space, ASCII, full-width marks, and every reading of a Chinese character, with its tone."""
    ideographs = [chr(i) for i in range(0x4E00, 0x9FA6)]
    read = lazy_pinyin(ideographs, style=Style.TONE3)
    ascii_ = {chr(i) for i in range(33, 127)}
    return [" ", *sorted(ascii_ | set("，。！？；：、“”‘’（）—…《》·") | set(read) | _odd(read))]


def _odd(read: Iterable[str]) -> set[str]:
    """Tone sandhi gives readings that no character has by itself."""
    return {f"{reading.rstrip('12345')}{tone}" for reading in read for tone in ("", *"1234")}


def maskgct(folder: Path, sizes: dict[str, object]) -> None:
    """`t2s_model/model.safetensors` of MaskGCT, the stage that is aligned."""
    (folder / "t2s_model").mkdir(parents=True)
    torch.manual_seed(3)
    model = MaskGCT_T2S(**sizes)
    _loud(model)
    save_file(model.state_dict(), folder / "t2s_model" / "model.safetensors")


def cosyvoice2(folder: Path, sizes: dict[str, object]) -> None:
    """`llm.pt`, a bare state dict with the trainer's counters, and `CosyVoice-BlankEN/`."""
    text_folder(folder / "CosyVoice-BlankEN", {})
    torch.manual_seed(4)
    model = Qwen2LM(6561, **sizes)
    _loud(model)
    model.llm_decoder.weight.data[6561] *= STOPS
    torch.save(model.state_dict() | {"epoch": 0, "step": 0}, folder / "llm.pt")


def ints(folder: Path) -> None:
    """A folder as transformers saves it: config.json, sharded bf16 weights, the text tokenizer."""
    audio = ["<|start_of_audio|>", "<|end_of_audio|>", *(f"<|audio_{i}|>" for i in range(16_384))]
    start = ROWS["tts"]
    text_folder(folder, PHI | {start + i: mark for i, mark in enumerate(audio)})
    rope = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}
    torch.manual_seed(5)
    model = Phi3ForCausalLM(
        Phi3Config(
            **LLM, vocab_size=start + ROWS["audio"], pad_token_id=32_000, rope_scaling=rope,
            max_position_embeddings=131_072, original_max_position_embeddings=4096,
        )
    )  # fmt: skip
    _loud(model)
    model.lm_head.weight.data[start + 1] *= STOPS
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="2MB")


def _loud(model: nn.Module) -> None:
    """Weights large enough to prefer some tokens to others; a fresh model finds all alike."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "norm" not in name:
            weight.data = torch.randn(weight.shape) / weight.shape[-1] ** 0.5


def text_folder(folder: Path, marks: dict[int, str]) -> None:
    """A byte-level BPE of a few merges, as transformers keeps tokenizers, with `marks` at their ids;
    the ids before them are filled."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([SYSTEM, INSTRUCTION], trainer)
    if marks:
        content = json.loads(bpe.to_str())
        known = content["model"]["vocab"]
        known |= {f"<filled {i}>": i for i in range(len(known), min(marks))}
        bpe = Tokenizer.from_str(json.dumps(content))
    made = PreTrainedTokenizerFast(tokenizer_object=bpe)
    for i in range(min(marks, default=0), max(marks, default=-1) + 1):
        marks.setdefault(i, f"<|placeholder{i}|>")
    made.add_tokens([marks[i] for i in sorted(marks)], special_tokens=True)
    made.save_pretrained(folder)


def write_all(checkpoints: Path, params: Params) -> None:
    """Every checkpoint that `params/paper.yaml` names, under `checkpoints`, and the stand-ins of
    second stages that it asks for there. `params` has the sizes (`SIZES` over the published ones)."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    phonemes = sorted({c for row in read_manifest(DATA / "corpus") for c in row.phonemes})
    speech = tokenizer(checkpoints / "tokenizer.safetensors", phonemes)
    ars(checkpoints / "ars.safetensors", speech)
    f5(checkpoints / "f5", params.models["f5"].config)
    maskgct(checkpoints / "maskgct", params.models["maskgct"].config)
    cosyvoice2(checkpoints / "cosyvoice2", params.models["cosyvoice2"].config)
    ints(checkpoints / "ints")
    shutil.copytree(STAND_INS / "amphion", checkpoints / "amphion")
