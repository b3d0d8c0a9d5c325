"""Sets as people lay them out, each as rows under our names (docs/your-own-pairs.md: read where)."""

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from readers.reading import Rules, language
from readers.rows import Audio, ReadError, Span

Rows = Iterator[tuple[str, dict | ValueError]]

LISTS = {  # of seed-tts-eval: its name in the paper, language, the paper's set (F.1)
    "en/meta.lst": ("test-en", "en", "regular"),
    "zh/meta.lst": ("test-zh", "zh", "regular"),
    "zh/hardcase.lst": ("hard", "zh", "articulatory"),
}
FIELDS = "name|prompt text|prompt wav|target text[|target wav]"
DEMO_SETS = {
    "regular": "regular",
    "tongueTwisters": "articulatory",
    "codeSwitching": "code-switching",
    "crossLingual": "cross-lingual",
}
OTHER = {"en": "zh", "zh": "en"}
SINGERS = {
    "Chinese": "zh",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Japanese": "ja",
    "Korean": "ko",
}
PAUSES = ("<AP>", "<SP>", "")
CLIPS = ("prompt", "chosen", "rejected", "audio")


def seed_tts_eval(source: Path, rules: Rules) -> Rows:
    """The folder `seedtts_testset` (test-en, test-zh, hard), or one of its three lists."""
    wanted = [f for f in LISTS if source.is_dir() or source.resolve().as_posix().endswith(f)]
    if not wanted:
        raise ReadError(f"{source}: expected a folder, or a list called {', '.join(LISTS)}")
    for file in wanted:
        name, lang, kind = LISTS[file]
        path = source / file if source.is_dir() else source
        for where, line in lines(path):
            fields = line.split("|")
            if len(fields) not in (4, 5):
                yield where, ValueError(f"expected {FIELDS}, found {len(fields)} fields")
                continue
            wav = path.parent / fields[2]
            yield where, {
                "id": f"{name}-{fields[0]}", "prompt": Span(wav), "prompt_text": fields[1],
                "target_text": fields[3], "prompt_lang": lang, "target_lang": lang, "set": kind,
                "text_type": kind, "voice": wav.stem,
            }  # fmt: skip


def amphion_tts_eval(source: Path, rules: Rules) -> Rows:
    """{set: [{prompt_path, prompt_text, target_text, …}]} as on the demo page, or a table."""
    if source.suffix != ".json":
        yield from table(source, rules)
        return
    for key, items in parsed(text_of(source), str(source), dict).items():
        if key not in DEMO_SETS:
            raise ReadError(f"{source}: unknown set {key!r}; known are {', '.join(DEMO_SETS)}")
        for number, item in enumerate(items):
            where = f"{source}:{key}[{number}]"
            if lacking := {"prompt_path", "prompt_text", "target_text"} - item.keys():
                yield where, ValueError(f"{', '.join(sorted(lacking))}: missing")
                continue
            wav, lang = source.parent / item["prompt_path"], language(item["prompt_text"])
            # A name in Latin letters does not make a Chinese text code-switching.
            target = {"crossLingual": OTHER.get(lang), "codeSwitching": "mixed"}.get(key, lang)
            yield where, {
                "id": f"{key}-{number:04d}", "prompt": Span(wav), "prompt_text": item["prompt_text"],
                "target_text": item["target_text"], "prompt_lang": lang, "target_lang": target,
                "set": DEMO_SETS[key], "text_type": DEMO_SETS[key], "voice": wav.stem,
            }  # fmt: skip


def emilia(source: Path, rules: Rules) -> Rows:
    """Tars of `id.mp3` and `id.json` (the hub), or JSON lines beside folders of mp3 (OpenDataLab)."""
    paths = [source] if source.is_file() else sorted(source.rglob("*"))
    paths = [p for p in paths if p.suffix in (".tar", ".jsonl")]
    if not paths:
        raise ReadError(f"{source}: no .tar and no .jsonl in it; extract .tar.gz archives first")
    for path in paths:
        for where, row, audio in _in_tar(path) if path.suffix == ".tar" else _beside(path):
            row = {"id": row.get("_id")} | row  # Emilia-YODAS says _id and has no wav
            wanted = {"id", "text", "duration", "speaker", "language"}
            if lacking := [n for n in sorted(wanted) if row.get(n) in (None, "")]:
                yield where, ValueError(f"{', '.join(lacking)}: missing from the JSON")
            elif audio is None:
                yield where, ValueError("wav: no such recording")
            else:
                yield where, {
                    "id": row["id"], "audio": audio, "text": row["text"], "lang": row["language"],
                    "voice": row["speaker"], "seconds": row["duration"],
                }  # fmt: skip


def _in_tar(path: Path) -> Iterator[tuple[str, dict, Audio | None]]:
    rows: dict[str, dict] = {}
    clips: dict[str, Audio] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, suffix = member.name.rpartition(".")
                if suffix == "json":
                    text = tar.extractfile(member).read().decode()
                    rows[key] = parsed(text, f"{path}:{member.name}", dict)
                elif member.isfile():
                    clips[key] = Span(path, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ReadError(f"{path}: {error}") from error
    for key in sorted(rows.keys() | clips.keys()):
        yield f"{path}:{key}", rows.get(key, {}), clips.get(key)


def _beside(path: Path) -> Iterator[tuple[str, dict, Audio | None]]:
    for where, line in lines(path):
        row = parsed(line, where, dict)
        wav = path.parent / str(row.get("wav"))
        yield where, row, Span(wav) if wav.is_file() else None


def gtsinger(source: Path, rules: Rules) -> Rows:
    """Language/Singer/Technique/Song/Paired_Speech_Group/NNNN.wav beside NNNN.json, its words."""
    found = sorted(source.glob("*/*/*/*/Paired_Speech_Group/*.wav"))
    if not found:
        wanted = "Language/Singer/Technique/Song/Paired_Speech_Group/NNNN.wav"
        raise ReadError(f"{source}: no {wanted} in it")
    for wav in found:
        folder, singer, technique, song, *_ = wav.relative_to(source).parts
        path, lang = wav.with_suffix(".json"), SINGERS.get(folder)
        if lang is None:  # Italian, Russian, Spanish: no error rate has a rule for them
            continue
        if not path.is_file():
            yield str(wav), ValueError(f"{path.name}: no such file beside it")
            continue
        words = parsed(text_of(path), str(path), list)
        words = [str(word.get("word", "")).strip() for word in words]
        yield str(wav), {
            "id": "-".join((singer, technique, song, wav.stem)), "audio": Span(wav), "lang": lang,
            "text": ("" if lang in ("zh", "ja") else " ").join(w for w in words if w not in PAUSES),
            "voice": singer,
        }  # fmt: skip


def intp(source: Path, rules: Rules) -> Rows:
    """INTP: a folder of the hub's Parquet, or the `egs.json` of the paper's demo page."""
    if source.suffix != ".json":
        yield from table(source, rules)
        return
    for direction, examples in parsed(text_of(source), str(source), dict).items():
        for number, models in enumerate(examples):
            for model, kinds in models.items():
                for kind, row in kinds.items():
                    where = f"{source}:{direction}[{number}].{model}.{kind}"
                    usual = "inter" if "_" in model else "intra"
                    clips = {
                        "prompt": "prompt_wav_path",
                        "chosen": "chosen",
                        "rejected": "rejected",
                    }
                    texts = {k: v for k, v in row.items() if k not in clips.values()}
                    yield where, texts | {
                        # Of two models (`ars_f5tts`) the page does not say which spoke which.
                        "chosen_model": model, "rejected_model": model,
                        "kind": "perturbed" if "perturbed_text" in row else usual,
                        "text_type": kind.replace("_", "-"), "language_setting": direction,
                    } | {n: Span(source.parent / row[k]) for n, k in clips.items() if row.get(k)}  # fmt: skip


def table(source: Path, rules: Rules) -> Rows:
    """A .csv or .parquet file, or every .parquet in a folder. Audio is a path, counted from the
    table's folder, or what Hugging Face datasets keep in a cell: bytes and a path."""
    ours = {theirs: name for name, theirs in rules.columns.items()}
    paths = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not paths or paths[0].suffix not in (".csv", ".parquet"):
        raise ReadError(f"{source}: expected a .csv, a .parquet or a folder of .parquet files")
    for path in paths:
        for where, row in _csv(path) if path.suffix == ".csv" else _parquet(path):
            named = {ours.get(key, key): value for key, value in row.items()}
            yield where, named | {k: _audio(path, named[k]) for k in CLIPS if named.get(k)}


def _audio(path: Path, value: str | dict) -> Audio | str:
    cell = value if isinstance(value, dict) else {"path": value}
    if cell.get("bytes"):
        return cell["bytes"]
    return Span(path.parent / cell["path"]) if cell.get("path") else ""


def _csv(path: Path) -> Iterator[tuple[str, dict]]:
    table = csv.DictReader(io.StringIO(text_of(path), newline=""), restkey="", strict=True)
    try:
        for row in table:
            if "" in row or None in row.values():
                names = ",".join(table.fieldnames)
                raise csv.Error(f"expected as many fields as the header: {names}")
            yield f"{path}:{table.line_num}", row
    except csv.Error as error:
        raise ReadError(f"{path}:{table.line_num}: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, dict]]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ReadError(f"{path}: {error}") from error
    number = 0
    for batch in file.iter_batches(batch_size=16):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, text) of the lines that are not blank."""
    for number, line in enumerate(io.StringIO(text_of(path)), 1):
        if line.strip():
            yield f"{path}:{number}", line.rstrip("\n")


def parsed(text: str, where: str, kind: type) -> Any:
    """JSON of one kind, a dict or a list; else ReadError with its place."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ReadError(f"{where}: {error}") from error
    if not isinstance(found, kind):
        raise ReadError(f"{where}: expected a {kind.__name__}, found a {type(found).__name__}")
    return found


def text_of(path: Path) -> str:
    """The text of a file; raises ReadError naming one that is missing or not UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{path}: {error}") from error
