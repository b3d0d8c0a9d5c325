"""From a source to a folder of ours, whole or not at all."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from intp.mining import PAIR_COLUMNS
from intp.paths import ROOT
from intp.prompts import PROMPT_COLUMNS
from readers import layouts
from readers.reading import Reading, Rules, whole
from readers.rows import ReadError
from readers.take import take

SHOWN = 20


@dataclass(frozen=True)
class Set:
    """A layout that can be read, what it is licensed under (None: you say), and its usual limits."""

    rows: Callable[[Path, Rules], layouts.Rows]
    licence: str | None
    split: str = "mining"
    longest_reference: float = 30.0


SETS = {
    "seed-tts-eval": Set(
        layouts.seed_tts_eval,
        "no licence file upstream; recordings of Common Voice (en) and DiDiSpeech-2 (zh), their terms",
        "evaluation",
    ),
    "amphion-tts-eval": Set(layouts.amphion_tts_eval, None, "evaluation"),
    "emilia": Set(
        layouts.emilia, "CC-BY-NC-4.0 (of the Emilia-YODAS part see its page)", "mining", 12.0
    ),
    "gtsinger": Set(layouts.gtsinger, "CC-BY-NC-SA-4.0", "evaluation", 12.0),
    "intp": Set(layouts.intp, "CC-BY-NC (amphion/INTP; gated)"),
    "table": Set(layouts.table, None),
}


def read_set(
    name: str, source: Path, out: Path, rules: Rules, licence: str, *,
    leave_out: bool = False, progress: bool = False,
) -> Reading:  # fmt: skip
    """Read `source` as the set `name` into the folder `out`, which must not exist yet.

    Every row is looked at. Faults raise ReadError and nothing is written, unless `leave_out`: then
    the rows at fault are listed in `left_out.csv`.
    """
    if not source.exists():
        raise ReadError(f"{source}: no such file or folder")
    here = (out / "references").resolve()
    corpus = here.relative_to(ROOT) if here.is_relative_to(ROOT) else here
    with whole(out) as partial:
        reading = Reading(name, rules, partial, str(corpus))
        take(reading, SETS[name].rows(source, rules), progress)
        if not reading.prompts or (reading.faults and not leave_out):
            raise ReadError(_explained(reading, source))
        _write(reading, source, licence)
    return reading


def _explained(reading: Reading, source: Path) -> str:
    faults = reading.faults
    text = [f"{where}: {fault}" for where, fault in faults[:SHOWN]]
    text += [f"… and {len(faults) - SHOWN} more"] * (len(faults) > SHOWN)
    text += [f"{source}: no prompts in it"] * (not reading.prompts)
    return "\n".join([*text, f"{len(faults)} faults, nothing written; --leave-out reads the rest"])


def _write(reading: Reading, source: Path, licence: str) -> None:
    for part in list(reading.waiting):
        reading.flush(part)
    folder = reading.folder
    rows = [json.dumps(asdict(r), ensure_ascii=False) for r in reading.references.values()]
    (folder / "references" / "manifest.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    prompts = pd.DataFrame(reading.prompts.values(), columns=PROMPT_COLUMNS)
    prompts.to_parquet(folder / "prompts.parquet", index=False)
    if reading.pairs:
        pairs = pd.DataFrame(reading.pairs.values(), columns=PAIR_COLUMNS, dtype=object)
        types = dict.fromkeys(("chosen_error", "rejected_error", "gap"), "float64")
        types |= dict.fromkeys(("chosen_seed", "rejected_seed"), "Int64")
        pairs = pairs.infer_objects().astype(types)
        pairs.to_parquet(folder / "pairs.parquet", index=False)
        answers = pd.DataFrame(reading.answers.values()).assign(sampling="{}", bands=0)
        answers[["seed", "stopped"]] = None
        answers["sample"] = answers.groupby(["model", "prompt"]).cumcount()
        answers["target"] = [[]] * len(answers)  # no model's own representation: audio only
        for model, mine in answers.groupby("model"):
            mine.to_parquet(folder / "speech" / model / "manifest.parquet", index=False)
    if reading.faults:
        faults = pd.DataFrame(reading.faults, columns=["where", "fault"])
        faults.to_csv(folder / "left_out.csv", index=False, lineterminator="\n")
    hours = sum(a["seconds"] for a in reading.answers.values()) / 3600
    (folder / "README.md").write_text(
        f"# {reading.name}\n\n"
        f"Read from `{source}` by `python -m readers {reading.name}` into docs/intp-schema.md's files.\n\n"
        f"- licence: {licence}\n- split: {reading.rules.split}, seed {reading.rules.seed}\n"
        f"- prompts: {len(prompts)} of {len(reading.references)} references\n"
        f"- pairs: {len(reading.pairs)} of {len(reading.answers)} answers, {hours:.3f} hours\n"
        f"- rows left out: {len(reading.faults)}\n"
        "- audio: mono, 16 kHz, FLAC; whatever was otherwise has been averaged and resampled\n",
        "utf-8",
    )
