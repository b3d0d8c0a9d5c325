"""Speak a set of prompts with one model and judge the answers: the instrument of every table.

`python -m intp.evaluate --model NAME --prompts FILE.parquet --out DIR`
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from intp.adapters.base import Adapter
from intp.audio import SAMPLE_RATE
from intp.corpus import write_shard
from intp.files import whole
from intp.models import load_adapter
from intp.params import Params, load_params
from intp.paths import CHECKPOINTS
from intp.prompts import load_prompts, read_prompts
from intp.speech import sample_seed
from judges import build_quality, build_recogniser, build_similarity
from judges.phonemes import phoneme_ear
from judges.prosody import of_audio
from judges.score import judge_speech
from judges.second import second_judge


def references(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Reference recordings by prompt id."""
    return {p.id: p.reference_speech for p in load_prompts(frame)}


def judge(
    audio: dict[str, np.ndarray],
    frame: pd.DataFrame,
    params: Params,
    progress: str | None = None,
    quality: bool = True,
) -> pd.DataFrame:
    """Judge one answer a prompt beside its set, direction and voice; `quality` asks every judge."""
    recogniser = build_recogniser(params.judges)
    mixed = params.judges.mixed if "mixed" in set(frame["target_lang"]) else None
    scores = judge_speech(
        audio,
        frame,
        recogniser,
        build_similarity(params.judges.similarity) if quality else None,
        build_quality(params.judges.quality) if quality else None,
        ear=phoneme_ear(CHECKPOINTS / f"{mixed}.safetensors") if mixed else None,
        references=references(frame) if quality else None,
        progress=progress,
    )
    kept = ["id", "set", "direction", "voice", "target_lang"]
    found = frame[kept].merge(scores, on="id", validate="one_to_one")
    if not quality:
        return found
    found = found.merge(of_audio(audio), on="id", validate="one_to_one")
    if params.judges.second == "none":
        return found
    words = scores.set_index("id")["transcript"].rename(recogniser.id) if mixed else None
    second = second_judge(audio, frame, progress, words=words)
    return found.merge(second, on="id", validate="one_to_one")


def speak(
    adapter: Adapter, frame: pd.DataFrame, sampling: dict, seed: int, progress: str | None = None
) -> dict[str, np.ndarray]:
    """One answer a prompt with the evaluation's sampling, by prompt id."""
    prompts = load_prompts(frame)
    seeds = [sample_seed(p.id, 0, seed) for p in prompts]
    answers = adapter.synthesise(prompts, sampling, seeds, progress)
    return {p.id: a.samples for p, a in zip(prompts, answers, strict=True)}


def evaluate(
    adapter: Adapter,
    frame: pd.DataFrame,
    sampling: dict,
    params: Params,
    progress: str | None = None,
    keep: Path | None = None,
) -> pd.DataFrame:
    """Scores of one model on `frame`, one row a prompt; `keep` is a folder for what it said."""
    audio = speak(adapter, frame, sampling, params.seed, progress)
    if keep is not None:
        write_shard(keep / "speech.tar", iter(audio.items()), SAMPLE_RATE, "flac")
    return judge(audio, frame, params, progress)


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write scores as CSV, whole; five decimals, so that they are small and read the same."""
    with whole(path) as partial:
        scores.round(5).to_csv(partial, index=False, lineterminator="\n")


def main() -> None:
    """Evaluate one model on a prompt file; writes <name>.csv under --out."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="weights other than the model's own")
    parser.add_argument("--speech", type=Path, help="folder to keep what was said in")
    parser.add_argument("--name", help="name of the score file (default: MODEL-base)")
    arguments = parser.parse_args()
    params = load_params()
    adapter = load_adapter(arguments.model, params, arguments.checkpoint)
    sampling = params.sampling[arguments.model].evaluation
    prompts, keep = read_prompts(arguments.prompts), arguments.speech
    scores = evaluate(adapter, prompts, sampling, params, arguments.model, keep)
    path = arguments.out / f"{arguments.name or arguments.model + '-base'}.csv"
    write_scores(scores, path)
    print(scores.groupby(["set", "direction"])[["wer", "error"]].mean().round(2))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
