"""Synthesised speech on disk: FLAC shards and a manifest, made whole and resumable by shard.

`python -m intp.speech --model ars --prompts PROMPTS.parquet --out DIR` speaks every prompt with
every mining sampling of the model (Appendix A.3.1).
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from intp.adapters.base import Adapter, Prompt, weights_key
from intp.audio import SAMPLE_RATE
from intp.corpus import read_audio, write_shard
from intp.files import whole
from intp.mining import sampling_label
from intp.models import load_adapter
from intp.params import load_params
from intp.paths import WORK
from intp.prompts import load_prompts, read_prompts

SHARD = 120


def sample_seed(prompt: str, number: int, seed: int) -> int:
    """The seed of one sampling, keyed to its prompt: no batch or shard changes what is drawn."""
    digest = hashlib.sha256(f"{seed}/{prompt}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def synthesise_shards(
    adapter: Adapter,
    model: str,
    frame: pd.DataFrame,
    samplings: list[dict],
    seed: int,
    out: Path,
    progress: str | None = None,
) -> pd.DataFrame:
    """Speak every prompt of `frame` with every sampling (a perturbed text with the middle one); move
    the finished folder to `out`. What it depends on, weights and all, names a folder under `.work/`,
    where a killed run finds its finished shards."""
    plain, middle = frame["base"] == frame["id"], len(samplings) // 2
    jobs = [(i, k) for i, p in enumerate(plain) for k in (range(len(samplings)) if p else [middle])]
    voice = [model, weights_key(adapter.model), adapter.representation, seed, samplings]
    spoken = json.dumps([*voice, frame.to_json(orient="split")])
    work = WORK / "speech" / hashlib.sha256(spoken.encode()).hexdigest()[:16]
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "manifest.parquet").is_file():  # else it was killed while moving
        _shards(adapter, model, frame, samplings, jobs, seed, work, progress)
    for rows in work.glob("shard-*.parquet"):
        rows.unlink()
    if out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(work, out)
    return pd.read_parquet(out / "manifest.parquet")


def _shards(
    adapter: Adapter,
    model: str,
    frame: pd.DataFrame,
    samplings: list[dict],
    jobs: list[tuple[int, int]],
    seed: int,
    work: Path,
    progress: str | None,
) -> None:
    """Speak the shards that are missing in `work`, then write the manifest of all."""
    prompts = load_prompts(frame)
    for number, start in enumerate(range(0, len(jobs), SHARD)):
        rows = work / f"shard-{number:04d}.parquet"
        if not rows.is_file():
            part = jobs[start : start + SHARD]
            label = f"{progress} {start}/{len(jobs)}" if progress else None
            _shard(adapter, model, prompts, samplings, part, seed, rows, label)
    parts = [pd.read_parquet(rows) for rows in sorted(work.glob("shard-*.parquet"))]
    manifest = pd.concat(parts, ignore_index=True)
    with whole(work / "manifest.parquet") as partial:
        manifest.to_parquet(partial, index=False)


def _shard(
    adapter: Adapter,
    model: str,
    prompts: list[Prompt],
    samplings: list[dict],
    jobs: list[tuple[int, int]],
    seed: int,
    rows: Path,
    progress: str | None,
) -> None:
    """Speak `jobs` (prompt, sampling); the audio is written first, the rows last, both whole."""
    made: list[dict] = []
    audio: list[tuple[str, np.ndarray]] = []
    for k in sorted({k for _, k in jobs}):
        mine = [i for i, n in jobs if n == k]
        seeds = [sample_seed(prompts[i].id, k, seed) for i in mine]
        answers = adapter.synthesise([prompts[i] for i in mine], samplings[k], seeds, progress)
        for i, speech in zip(mine, answers, strict=True):
            name = f"{model}-{prompts[i].id}-{k}"
            audio.append((name, speech.samples))
            made.append({
                "id": name, "prompt": prompts[i].id, "model": model, "sample": k,
                "sampling": sampling_label(samplings[k]), "seed": speech.seed,
                "shard": rows.with_suffix(".tar").name,
                "seconds": len(speech.samples) / SAMPLE_RATE, "stopped": speech.stopped,
                "target": speech.target.numpy().ravel(),
                "bands": speech.target.shape[1] if speech.target.ndim == 2 else 0,
                "representation": adapter.representation,
            })  # fmt: skip
    write_shard(rows.with_suffix(".tar"), iter(audio), SAMPLE_RATE, "flac")
    with whole(rows) as partial:
        pd.DataFrame(made).to_parquet(partial, index=False)


def read_speech(folder: Path, wanted: set[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (id, samples) of synthesised speech."""
    return read_audio(folder, wanted)


def read_targets(
    folder: Path, representation: str, wanted: set[str] | None = None
) -> dict[str, torch.Tensor]:
    """What was sampled in `representation`, tokens [N] or log-mel [T, bands], by id; recordings,
    and models that speak another way, have none."""
    columns = ["id", "target", "bands", "representation"]
    rows = pd.read_parquet(folder / "manifest.parquet").reindex(columns=columns)
    rows = rows[rows["representation"] == representation]
    rows = (rows if wanted is None else rows[rows["id"].isin(wanted)]).itertuples()
    return {r.id: torch.tensor(r.target).reshape((-1, r.bands) if r.bands else (-1,)) for r in rows}


def main() -> None:
    """Speak the mining prompts with one model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    params = load_params()
    frame = read_prompts(arguments.prompts)
    adapter = load_adapter(arguments.model, params)
    samplings = params.sampling[arguments.model].mining
    synthesise_shards(
        adapter, arguments.model, frame, samplings, params.seed, arguments.out, "speech"
    )


if __name__ == "__main__":
    main()
