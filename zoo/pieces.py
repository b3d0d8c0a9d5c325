"""The text tokenizer of the two mini models that read raw text: a byte-level BPE.

English pieces are learned. Each of the commonest Chinese characters is one piece, never more than
one character: a character is what has a sound. All others, and every other script, are spelled in
bytes. The pronunciation lines have a piece of their own for each phoneme symbol.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from networks.ar_upstream import INSTRUCTION, SYSTEM

PAD, SOUNDS, END = "<|endoftext|>", "<|sounds|>", "<|end|>"
MARKS = (PAD, "<|system|>", "<|user|>", "<|assistant|>", END, SOUNDS)
# Ints's row opens with these in every sequence: one piece each, instead of some forty.
PHRASES = (SYSTEM, INSTRUCTION.rstrip())
HAN = Regex("[\u4e00-\u9fff]")


def sound(symbol: str) -> str:
    """The piece of a phoneme symbol, apart from the letter that may look like it."""
    return f"<|{symbol}|>"


def blank() -> Tokenizer:
    """A byte-level BPE without merges, in which no piece spans two Chinese characters."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(HAN, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    return made


def character_merges(characters: Sequence[str]) -> list[tuple[str, str]]:
    """Merges that make one piece of each of `characters`, whose UTF-8 has three bytes."""
    byte_level, merges = pre_tokenizers.ByteLevel(add_prefix_space=False), {}
    for character in characters:
        (spelled, _), *_ = byte_level.pre_tokenize_str(character)
        first, second, third = spelled
        merges[first, second] = None
        merges[first + second, third] = None
    return list(merges)


def learned_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """The first `count` merges of `texts`, most frequent first."""
    learner = blank()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def build(
    english: Iterable[str], characters: Sequence[str], sounds: Iterable[str], entries: int
) -> PreTrainedTokenizerFast:
    """A tokenizer of `entries` pieces; what bytes, characters, marks and sounds leave is English.

    Raises ValueError if they leave nothing.
    """
    added = [*MARKS, *PHRASES, *(sound(symbol) for symbol in sorted(sounds))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    chinese = character_merges(characters)
    left = entries - len(alphabet) - len(chinese) - len(added)
    if left <= 0:
        raise ValueError(f"{entries} entries leave {left} for English: fewer characters, please")
    merges = learned_merges(english, left) + chinese
    names = list(dict.fromkeys([*alphabet, *(a + b for a, b in merges)]))
    made = blank()
    made.model = models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges)
    made.add_special_tokens([AddedToken(name, normalized=False) for name in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer as transformers keeps it, whole or not at all."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def spelled(tokenizer: Any, ids: Sequence[int]) -> tuple[bytes, list[int]]:
    """The text of pieces, in UTF-8, and for each piece the byte that it ends before."""
    names = tokenizer.convert_ids_to_tokens(ids)
    ends, end = [], 0
    for name in names:
        end += len(name)  # a byte-level piece has one symbol a byte
        ends.append(end)
    return decoders.ByteLevel().decode(names).encode(), ends
