"""From speech to scores: one row an utterance, never one skipped."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from intp.audio import SAMPLE_RATE, AudioError, check_audio
from judges.base import JudgeError, Quality, Recogniser, Similarity, cosine
from judges.phonemes import PhonemeEar
from texts.normalise import NORMALISER_VERSION, Errors, count_errors, matrix_language


class MissingSpeech(LookupError):
    """Prompts without speech; the message names them. Upstream skips them without a word."""


def judge_speech(
    audio: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    recogniser: Recogniser,
    similarity: Similarity | None = None,
    quality: Quality | None = None,
    *,
    ear: PhonemeEar | None = None,
    references: Mapping[str, np.ndarray] | None = None,
    progress: str | None = None,
) -> pd.DataFrame:
    """Judge the speech of every row, in the order of `rows` (id, target_text, target_lang).

    `audio` and `references` map ids to samples [N] at 16 kHz; the reference is the recording whose
    voice was to be imitated. Returned columns: id, transcript, wer and error (per cent) with their
    edits and lengths, sim (cosine, −1 to 1) and quality (1 to 5) where there is such a judge,
    seconds, normaliser, judge. With an `ear` the error of code-switched text counts the phonemes it
    hears (column phonemes) and no words.
    Raises MissingSpeech, ValueError for ids that come twice or an empty target text, JudgeError for
    speech that cannot be judged, naming its id.
    """
    ids = list(rows["id"])
    if len(set(ids)) < len(ids):
        raise ValueError(f"ids that come twice: {sorted({i for i in ids if ids.count(i) > 1})[:5]}")
    clips = _speech_of(ids, audio, "speech")
    texts, languages = list(rows["target_text"]), list(rows["target_lang"])
    spoken = [
        f"mixed-{matrix_language(text)}" if lang == "mixed" else lang
        for text, lang in zip(texts, languages, strict=True)
    ]
    said, judges = recogniser.transcribe(clips, spoken, progress), [recogniser.id]
    pairs = list(zip(texts, said, languages, strict=True))
    scores = {"id": ids, "transcript": said}
    scores |= _columns("wer", [count_errors(*words) for words in pairs])
    errors = [count_errors(*words, "error") for words in pairs]
    if ear is not None:
        heard = _mixed_by_ear(ear, clips, texts, languages, progress)
        scores["phonemes"] = [heard[i][0] if i in heard else "" for i in range(len(clips))]
        errors = [heard[i][1] if i in heard else counted for i, counted in enumerate(errors)]
        judges.append(ear.id)
    scores |= _columns("error", errors)
    if similarity is not None:
        voices = _speech_of(ids, references or {}, "reference recording")
        here = similarity.embed(clips, progress and f"{progress}: voices")
        scores["sim"] = cosine(here, similarity.embed(voices))
        judges.append(similarity.id)
    if quality is not None:
        scores["quality"] = quality.score(clips, progress and f"{progress}: quality")
        judges.append(quality.id)
    scores["seconds"] = [len(clip) / SAMPLE_RATE for clip in clips]
    return pd.DataFrame(scores).assign(normaliser=NORMALISER_VERSION, judge=" | ".join(judges))


def _columns(name: str, counted: list[Errors]) -> dict[str, list[float]]:
    return {
        name: [e.rate for e in counted],
        f"{name}_edits": [e.edits for e in counted],
        f"{name}_length": [e.length for e in counted],
    }


def _mixed_by_ear(
    ear: PhonemeEar,
    clips: list[np.ndarray],
    texts: list[str],
    languages: list[str],
    progress: str | None,
) -> dict[int, tuple[str, Errors]]:
    """What an ear heard of each code-switched clip, and its errors, by position."""
    mixed = [i for i, lang in enumerate(languages) if lang == "mixed"]
    asked = [clips[i] for i in mixed], [texts[i] for i in mixed], ["mixed"] * len(mixed)
    answers = ear.errors(*asked, progress and f"{progress}: phonemes")
    return dict(zip(mixed, zip(*answers, strict=True), strict=True))


def _speech_of(ids: list[str], audio: Mapping[str, np.ndarray], what: str) -> list[np.ndarray]:
    if missing := [i for i in ids if i not in audio]:
        raise MissingSpeech(f"no {what} for {len(missing)} of {len(ids)}: {missing[:10]}")
    try:
        return [check_audio(audio[i], f"{what} of {i}") for i in ids]
    except AudioError as error:
        raise JudgeError(str(error)) from error
