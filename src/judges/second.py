"""A second opinion on what was said, by ears that mining did not listen with.

English goes to Whisper-tiny.en, Chinese to a phoneme recogniser trained on recordings only; for
code-switched speech, which an ear for phonemes judges, it is the words of the first recogniser. None
decides the error of the speech that it is asked about, in mining or in any table, which makes them
fit for controls (does a gain last when another recogniser counts?) and for simulated listeners; only
the first recogniser mined other pairs, those that are not code-switched.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from intp.paths import CHECKPOINTS
from judges.ctranslate2 import TINY_EN, load_packaged
from judges.phonemes import phoneme_ear
from judges.score import MissingSpeech
from judges.whisper import WhisperRecogniser
from texts.normalise import count_errors

CHINESE = CHECKPOINTS / "recogniser-zh.safetensors"


def second_judge(
    audio: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    progress: str | None = None,
    chinese: Path = CHINESE,
    words: pd.Series | None = None,
) -> pd.DataFrame:
    """Judge the speech of every row, in the order of `rows` (id, target_text, target_lang).

    `audio` maps ids to samples [N] at 16 kHz. Returned columns: id, second_transcript, second_error
    (per cent: words in English, toneless phonemes in Chinese, words and syllables in code-switched
    text) and second_judge, who said so. Of code-switched speech `words` has the transcripts by id, its
    name who wrote them; without it there is no second opinion of such speech.
    Raises MissingSpeech, JudgeError for speech that cannot be judged or without the checkpoint
    `chinese`, ValueError for a text with nothing to count in it.
    """
    if missing := [i for i in rows["id"] if i not in audio]:
        raise MissingSpeech(f"no speech for {len(missing)} of {len(rows)}: {missing[:10]}")
    found = rows[["id"]].assign(second_transcript="", second_error=np.nan, second_judge="none")
    found = found.set_index("id")
    for lang, judge in (("en", _english), ("zh", _chinese)):
        mine = rows[rows["target_lang"] == lang]
        if mine.empty:
            continue
        clips = [audio[name] for name in mine["id"]]
        label = progress and f"{progress}: second judge, {lang}"
        heard = judge(clips, list(mine["target_text"]), label, chinese)
        found.loc[mine["id"], list(found.columns)] = heard
    mixed = rows[rows["target_lang"] == "mixed"]
    if words is not None and len(mixed):
        found.loc[mixed["id"], list(found.columns)] = [
            (words[name], count_errors(text, words[name], "mixed", "error").rate, words.name)
            for name, text in zip(mixed["id"], mixed["target_text"], strict=True)
        ]
    return found.reset_index()


Verdicts = list[tuple[str, float, str]]  # transcript, error in per cent, judge


def _english(clips: list[np.ndarray], texts: list[str], label: str | None, _: Path) -> Verdicts:
    judge = whisper_tiny_en()
    heard = judge.transcribe(clips, ["en"] * len(clips), label)
    rates = [count_errors(t, h, "en").rate for t, h in zip(texts, heard, strict=True)]
    return [(text, rate, judge.id) for text, rate in zip(heard, rates, strict=True)]


def _chinese(clips: list[np.ndarray], texts: list[str], label: str | None, path: Path) -> Verdicts:
    ear = phoneme_ear(path)
    heard, found = ear.errors(clips, texts, ["zh"] * len(clips), label)
    return [(said, errors.rate, ear.id) for said, errors in zip(heard, found, strict=True)]


@lru_cache
def whisper_tiny_en() -> WhisperRecogniser:
    """Whisper-tiny.en, loaded once; raises JudgeError if its wheel is absent."""
    return WhisperRecogniser(*load_packaged(TINY_EN), "whisper-tiny.en", context_seconds=6.0)
