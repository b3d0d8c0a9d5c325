"""How well a speech tokenizer's codes keep the sounds, in voices that it knows and in others.

    python -m tools.study_codes

Phoneme error of what the tokenizer's own CTC head reads from the codes of training recordings, as
they are and with every frequency shifted, and of evaluation recordings; writes
results/development/codes.csv.
"""

import random
from collections.abc import Iterator

import jiwer
import pandas as pd
import torch
from torch import Tensor

from intp.audio import log_mel
from intp.corpus import read_audio, read_manifest
from intp.files import whole
from intp.models import load_tokenizer
from intp.paths import DATA, ROOT
from networks.tokenizer import SpeechTokenizer
from zoo.tokenizer import ctc_labels
from zoo.voices import warped

OUT = ROOT / "results" / "development" / "codes.csv"
FACTORS = (1.0, 0.85, 1.15)


@torch.inference_mode()
def phoneme_error(tokenizer: SpeechTokenizer, mel: Tensor, phonemes: str) -> float:
    """Edits a phoneme, in per cent, between `phonemes` and what the codes of a log-mel [T, 100] say."""
    vectors = tokenizer.fsq.values(tokenizer.tokens(mel))[None]
    logits = tokenizer.phoneme_logits(vectors, torch.ones(vectors.shape[:2]))[0]
    labels = torch.unique_consecutive(logits.argmax(-1)).tolist()
    heard = [tokenizer.config.phonemes[label - 1] for label in labels if label]
    return 100 * jiwer.wer(" ".join(ctc_labels(phonemes)), " ".join(heard))


def recordings(each: int) -> Iterator[tuple[str, str, Tensor, str]]:
    """Condition, direction, log-mel and phonemes of up to `each` recordings a kind."""
    rows = read_manifest(DATA / "corpus")
    random.Random(0).shuffle(rows)
    some = [r for lang in ("en", "zh") for r in [r for r in rows if r.lang == lang][:each]]
    heard = dict(read_audio(DATA / "corpus", {r.id for r in some}))
    for row in some:
        for factor in FACTORS:
            mel = warped(log_mel(heard[row.id]), factor)
            yield f"training, frequencies x {factor:g}", row.lang, mel, row.phonemes
    items = pd.read_json(DATA / "evaluation" / "items.jsonl", lines=True)
    spoken = dict(read_audio(DATA / "evaluation" / "recordings"))
    items = items[items["id"].isin(spoken)].groupby(["set", "direction"], sort=False).head(each)
    for item in items.itertuples():
        mel = log_mel(spoken[item.id])
        yield f"evaluation, {item.set}", item.direction, mel, item.target_phonemes


def main() -> None:
    """Measure, print and write."""
    tokenizer = load_tokenizer()
    made = [
        {"condition": condition, "direction": direction, "error": phoneme_error(tokenizer, *said)}
        for condition, direction, *said in recordings(60)
    ]
    table = pd.DataFrame(made).groupby(["condition", "direction"], sort=False)["error"]
    table = table.agg(["size", "mean"]).round(2).reset_index()
    table = table.rename(columns={"size": "n", "mean": "phoneme error"})
    with whole(OUT) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
