"""Speed and error of Whisper-base as we run it, beside faster-whisper int8 on the same files.

`python -m tools.bench_judge [--folder data/corpus] [--count 64]`; needs an idle machine. Both get
the language, decode greedily and use all cores; faster-whisper takes one file after the other in
its 30 s context, as it does by default. Loading is not timed, a first file warms each up.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from intp.corpus import read_audio, read_manifest
from intp.params import load_params
from intp.paths import DATA
from judges import build_recogniser
from judges.ctranslate2 import write_folder
from texts.normalise import count_errors

Transcribe = Callable[[list[np.ndarray], list[str]], list[str]]


def faster_whisper() -> Transcribe:
    """The same weights in faster-whisper: int8, beam 1, no temperature fallback, no timestamps."""
    from faster_whisper import WhisperModel

    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder))
        threads = torch.get_num_threads()
        model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(clips: list[np.ndarray], languages: list[str]) -> list[str]:
        settings = {"beam_size": 1, "temperature": 0.0, "without_timestamps": True}
        heard = [
            model.transcribe(clip.astype(np.float32), language=lang, **settings)[0]
            for clip, lang in zip(clips, languages, strict=True)
        ]
        return ["".join(segment.text for segment in segments) for segments in heard]

    return transcribe


def main() -> None:
    """Print utterances a second, WER and syllable error of both, and the ratio of their speeds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=DATA / "corpus")
    parser.add_argument("--count", type=int, default=64, help="recordings of each language")
    arguments = parser.parse_args()
    rows = read_manifest(arguments.folder)
    by_language = [[r for r in rows if r.lang == lang] for lang in ("en", "zh")]
    rows = [r for group in by_language for r in group[:: max(1, len(group) // arguments.count)]]
    audio = dict(read_audio(arguments.folder, {r.id for r in rows}))
    clips, languages = [audio[r.id] for r in rows], [r.lang for r in rows]
    seconds = sum(map(len, clips)) / 16_000
    print(
        f"{len(rows)} recordings, {seconds / len(rows):.1f} s each, {torch.get_num_threads()} cores"
    )
    ours = build_recogniser(load_params("mini").judges)
    speed = {}
    for name, transcribe in ((ours.id, ours.transcribe), ("faster-whisper int8", faster_whisper())):
        transcribe(clips[:1], languages[:1])
        start = time.perf_counter()
        texts = transcribe(clips, languages)
        speed[name] = len(rows) / (time.perf_counter() - start)
        rates = {}
        for label, lang, kind in (
            ("en WER", "en", "wer"), ("zh CER", "zh", "wer"), ("zh error", "zh", "error"),
        ):  # fmt: skip
            pairs = [(r, t) for r, t in zip(rows, texts, strict=True) if r.lang == lang]
            found = [count_errors(r.text, text, lang, kind).rate for r, text in pairs]
            rates[label] = np.mean(found)
        figures = ", ".join(f"{label} {rate:.1f} %" for label, rate in rates.items())
        print(f"{name}: {speed[name]:.2f} utterances/s, {figures}", flush=True)
    print(f"{speed[ours.id] / speed['faster-whisper int8']:.1f} times as fast")


if __name__ == "__main__":
    main()
