"""Recordings in shards: a manifest (JSON lines) beside tar files of 16 kHz Opus."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from intp.audio import decode, log_mel
from intp.files import whole


@dataclass(frozen=True)
class Utterance:
    """One recording of a manifest: text, phonemes (Kokoro's symbols), voice and length in seconds."""

    id: str
    lang: str
    text: str
    phonemes: str
    voice: dict[str, float]
    speed: float
    topic: str
    level: int
    duration: float
    shard: str

    @property
    def voice_name(self) -> str:
        """The voice mixture as one name; two recordings sound alike if their names are equal."""
        return "+".join(f"{name}:{share:g}" for name, share in sorted(self.voice.items()))


def read_manifest(folder: Path) -> list[Utterance]:
    """All utterances of a corpus folder, in the order of its manifest.

    Raises FileNotFoundError if the manifest is missing and ValueError naming a malformed line.
    """
    path = folder / "manifest.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no manifest; run `dvc pull` to fetch data/")
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            rows.append(Utterance(**json.loads(line)))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return rows


def read_audio(folder: Path, wanted: set[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (id, samples [N] at 16 kHz) shard by shard, all of them or those `wanted`.

    Raises FileNotFoundError for a folder that is not there and AudioError naming a bad recording.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of recordings")
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                name = Path(member.name).stem
                if wanted is None or name in wanted:
                    yield name, decode(tar.extractfile(member).read(), f"{shard}:{member.name}")


def write_shard(path: Path, audio: Iterator[tuple[str, np.ndarray]], rate: int, form: str) -> None:
    """Write (id, samples) as one tar of Opus (`form="opus"`) or FLAC files, whole.

    FLAC is byte-stable; an Ogg stream has a random serial number, so Opus is not.
    """
    settings = {"opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}[form]
    with whole(path) as partial, tarfile.open(partial, "w") as tar:
        for name, samples in audio:
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, rate, format=settings[0], subtype=settings[1])
            member = tarfile.TarInfo(f"{name}.{form}")
            member.size = buffer.getbuffer().nbytes  # FLAC ends with its header rewritten
            buffer.seek(0)
            tar.addfile(member, buffer)


def mel_cache(folder: Path, cache: Path) -> dict[str, torch.Tensor]:
    """Log-mels [T, 100] (half precision) of a whole corpus, computed once and kept in `cache`."""
    if cache.is_file():
        return torch.load(cache, weights_only=True)
    from tqdm import tqdm

    mels = {n: log_mel(x).half() for n, x in tqdm(read_audio(folder), desc="log-mel", unit="utt")}
    with whole(cache) as partial:
        torch.save(mels, partial)
    return mels
