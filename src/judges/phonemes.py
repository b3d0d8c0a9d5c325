"""Ears for phonemes: what was said, without a language model that could repair what was said wrong."""

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import jiwer
import numpy as np
from tqdm import tqdm

from intp.audio import log_mel
from judges.base import JudgeError, checked
from networks.recogniser import PhonemeRecogniser
from texts.normalise import Errors
from texts.phonemes import phonemise, sounding


class PhonemeEar:
    """A phoneme recogniser as a judge. `id` names its checkpoint; raises JudgeError without it."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            fetch = f"`dvc pull {path.stem}`, or `python -m zoo {path.stem}`"
            raise JudgeError(f"{path}: missing; {fetch}")
        self.model, self.id = PhonemeRecogniser.load(path), path.stem

    def errors(
        self,
        audio: Sequence[np.ndarray],
        texts: Sequence[str],
        languages: Sequence[str],
        progress: str | None = None,
    ) -> tuple[list[str], list[Errors]]:
        """What was heard of each clip [N] (16 kHz), and its edits from the text's phonemes.

        Raises JudgeError for an empty or non-finite clip, ValueError for a text without phonemes.
        """
        pairs = zip(checked(audio), texts, languages, strict=True)
        heard, found = [], []
        for clip, text, lang in tqdm(pairs, progress, len(texts), disable=progress is None):
            heard.append(self.model.heard(log_mel(clip)))
            found.append(phoneme_errors(text, heard[-1], lang))
        return heard, found


def phoneme_errors(text: str, heard: str, lang: str) -> Errors:
    """Edits that turn a text's phonemes, without tones and stress, into those `heard`."""
    wanted = _wanted(text, lang)
    found = jiwer.process_words(" ".join(wanted), " ".join(heard))
    return Errors(found.substitutions, found.deletions, found.insertions, len(wanted))


@cache  # mining meets every text once a model and sampling
def _wanted(text: str, lang: str) -> str:
    return sounding(phonemise(text, lang))


@lru_cache
def phoneme_ear(path: Path) -> PhonemeEar:
    """The ear of a checkpoint, loaded once; raises JudgeError if it is missing."""
    return PhonemeEar(path)
