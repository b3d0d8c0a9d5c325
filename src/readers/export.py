"""A pair set as a folder in Hugging Face datasets' layout: a card and Parquet that holds the audio.

The columns that INTP's authors publish keep their names (the demo page's `prompt_text`,
`target_text`, `perturbed_text`, `chosen`, `rejected`; `prompt` and `language_setting` as in their
SpeechJudge-Data); provenance keeps ours. `python -m readers intp` reads it back.
"""

import json
import math
import tarfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from intp.mining import PAIR_COLUMNS
from intp.paths import ROOT
from readers.reading import whole
from readers.rows import ReadError, Span

CLIPS = ("prompt", "chosen", "rejected")
ABOUT = ("prompt_text", "prompt_lang", "target_text", "target_lang", "topic")
NUMBERS = {"chosen_error": "float64", "rejected_error": "float64", "gap": "float64"}
NUMBERS |= {"chosen_seed": "int64", "rejected_seed": "int64"}
RENAMED = {"prompt": "prompt_id", "chosen": "chosen_id", "rejected": "rejected_id"}
RENAMED |= {"direction": "language_setting"}
COLUMNS = [*CLIPS, *ABOUT, "voice", "perturbed_text", *(RENAMED.get(c, c) for c in PAIR_COLUMNS)]
PER_FILE, PER_GROUP = 2000, 100
CARD = """---
license: {licence}
language: [en, zh]
task_categories: [text-to-speech]
tags: [preference, dpo, intelligibility]
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
# {name}

{pairs} preference pairs of {prompts} prompts: `chosen` reads `target_text` better than `rejected` does,
both in the voice of `prompt`. Where `perturbed_text` is set, `rejected` was asked to read that instead.
Errors are in per cent, gaps in percentage points; `rule`, `judge` and `normaliser` say how a pair came
about. {speakers} spoke. Made with the INTP reproduction, after arXiv:2505.04113.
"""


def export(
    pairs: pd.DataFrame, prompts: pd.DataFrame, speech: Mapping[str, Path], out: Path, licence: str,
    *, progress: bool = False,
) -> None:  # fmt: skip
    """Write `out`, which must not exist yet, whole; `speech` maps a model to its folder.

    Recordings are copied as they are, not encoded again. Raises ReadError naming what is missing.
    """
    models = {*pairs["chosen_model"], *pairs["rejected_model"]}
    if missing := sorted(models - speech.keys()):
        raise ReadError(f"--speech: no folder for {', '.join(missing)}")
    rows = tqdm(_rows(pairs, prompts, speech), "export", len(pairs), disable=not progress)
    files = math.ceil(len(pairs) / PER_FILE)
    with whole(out) as partial:
        (partial / "data").mkdir()
        for number in range(files):
            path = partial / "data" / f"train-{number:05d}-of-{files:05d}.parquet"
            mine = islice(rows, PER_FILE)
            with pq.ParquetWriter(path, SCHEMA) as file:
                while group := list(islice(mine, PER_GROUP)):
                    file.write_table(pa.Table.from_pylist(group, SCHEMA))
        card = CARD.format(
            licence=licence.lower(), name=out.name, pairs=len(pairs),
            speakers=", ".join(sorted(models)), prompts=pairs["prompt"].nunique(),
        )  # fmt: skip
        (partial / "README.md").write_text(card, "utf-8")


def _schema() -> pa.Schema:
    clip = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = dict.fromkeys(CLIPS, clip) | {c: getattr(pa, t)() for c, t in NUMBERS.items()}
    features = {
        c: {"_type": "Audio", "sampling_rate": 16_000}
        if c in CLIPS
        else {"_type": "Value", "dtype": NUMBERS.get(c, "string")}
        for c in COLUMNS
    }
    fields = [(c, types.get(c, pa.string())) for c in COLUMNS]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


SCHEMA = _schema()


def _rows(pairs: pd.DataFrame, prompts: pd.DataFrame, speech: Mapping[str, Path]) -> Iterator[dict]:
    known = {row["id"]: row for row in prompts.to_dict("records")}
    corpora = {c: _recordings(ROOT / c) for c in set(prompts["reference_corpus"])}
    answers = {m: _recordings(folder) for m, folder in speech.items()}
    asked: dict[str, str] = {}
    for folder in speech.values():
        manifest = pd.read_parquet(folder / "manifest.parquet", columns=["id", "prompt"])
        asked |= dict(zip(manifest["id"], manifest["prompt"], strict=True))
    for pair in pairs.astype(object).where(pairs.notna(), None).to_dict("records"):
        if pair["prompt"] not in known:
            raise ReadError(f"{pair['pair']}: prompt {pair['prompt']} is not among the prompts")
        prompt = known[pair["prompt"]]
        read = known.get(asked.get(pair["rejected"]), prompt)
        where = {
            "prompt": (corpora[prompt["reference_corpus"]], prompt["reference"]),
            "chosen": (answers[pair["chosen_model"]], pair["chosen"]),
            "rejected": (answers[pair["rejected_model"]], pair["rejected"]),
        }
        row = {RENAMED.get(c, c): pair[c] for c in PAIR_COLUMNS} | {c: prompt[c] for c in ABOUT}
        for name, (recordings, wanted) in where.items():
            if wanted not in recordings:
                raise ReadError(f"{pair['pair']}: {name} {wanted} has no recording")
            clip, suffix = recordings[wanted]
            row[name] = {"bytes": clip.read(), "path": f"{wanted}{suffix}"}
        voice = str(prompt["voice"]).removesuffix(":1")
        yield row | {
            "voice": voice,
            "perturbed_text": None if read is prompt else read["target_text"],
        }


def _recordings(folder: Path) -> dict[str, tuple[Span, str]]:
    """Where each recording of a folder of shards lies, and its suffix."""
    found = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                name = Path(member.name)
                found[name.stem] = (Span(shard, member.offset_data, member.size), name.suffix)
    return found
