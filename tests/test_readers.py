"""What people have comes out as our files; what is wrong with it is named, and nothing is written."""

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile

from intp.adapters.ar import ARAdapter
from intp.align import load_pairs
from intp.corpus import read_audio, read_manifest
from intp.mining import PAIR_COLUMNS
from intp.models import TOKENIZER
from intp.paths import ROOT, WORK
from intp.prompts import PROMPT_COLUMNS, load_prompts, read_prompts
from intp.speech import read_speech
from intp.trainer import Recipe, train
from networks.tokenizer import SpeechTokenizer
from readers.export import COLUMNS, export
from readers.reading import Reading, Rules
from readers.rows import ReadError
from readers.sets import SETS, read_set

EN = (
    "The train is late.",
    "She reads a long letter.",
    "Rain falls on the roof.",
    "He sold the boat.",
)
ZH = ("火车晚点了。", "她在看一封信。", "屋顶上下着雨。", "他把船卖了。")


def tone(
    path: Path, hertz: float, seconds: float = 1.0, rate: int = 24_000, form: str = "WAV"
) -> Path:
    """A tone of two channels, so that mixing down and resampling have something to do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * hertz * time) + 0.05 * np.sin(2 * np.pi * 3 * hertz * time)
    soundfile.write(path, np.stack([wave, wave], 1), rate, format=form)
    return path


def pitch(samples: np.ndarray) -> float:
    """The strongest frequency of samples at 16 kHz, in Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))


def read(name: str, source: Path, tmp_path: Path, licence: str = "CC0", **rules) -> Reading:
    leave_out = rules.pop("leave_out", False)
    usual = Rules(split=SETS[name].split, reference_seconds=(0.0, 12.0), **rules)
    return read_set(name, source, tmp_path / "out", usual, licence, leave_out=leave_out)


def prompts_of(tmp_path: Path) -> pd.DataFrame:
    frame = read_prompts(tmp_path / "out" / "prompts.parquet")
    assert list(frame) == PROMPT_COLUMNS
    return frame


# --- seed-tts-eval


def seed_tts(folder: Path) -> Path:
    for lang, texts in (("en", EN), ("zh", ZH)):
        for i in range(2):
            tone(
                folder / lang / "prompt-wavs" / f"{lang}{i}.wav",
                300 + 200 * i + 50 * (lang == "zh"),
            )
        lines = [
            f"{lang}-a|{texts[0]}|prompt-wavs/{lang}0.wav|{texts[1]}",
            f"{lang}-b|{texts[0]}|prompt-wavs/{lang}0.wav|{texts[2]}|wavs/{lang}-b.wav",
            f"{lang}-c|{texts[1]}|prompt-wavs/{lang}1.wav|{texts[3]}",
        ]
        (folder / lang / "meta.lst").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "zh" / "hardcase.lst").write_text(
        f"zh-a|{ZH[0]}|prompt-wavs/zh0.wav|八百标兵奔北坡。\n"
    )
    return folder


def test_seed_tts_lists_become_the_papers_sets_with_their_recordings(tmp_path: Path):
    reading = read("seed-tts-eval", seed_tts(tmp_path / "set"), tmp_path)
    frame = prompts_of(tmp_path)
    assert len(frame) == 7 and not reading.faults
    sizes = frame.groupby(["set", "direction"]).size().to_dict()
    assert sizes == {("articulatory", "zh"): 1, ("regular", "en"): 3, ("regular", "zh"): 3}
    assert len(read_manifest(tmp_path / "out" / "references")) == 4  # a recording is kept once
    heard = {p.id: p for p in load_prompts(frame)}
    for name, hertz in (("test-en-en-a", 300), ("test-en-en-c", 500), ("hard-zh-a", 350)):
        assert len(heard[name].reference_speech) == 16_000
        assert pitch(heard[name].reference_speech) == pytest.approx(hertz, abs=1)
    assert heard["test-en-en-b"].target_phonemes and heard["hard-zh-a"].target_lang == "zh"
    assert "licence: CC0" in (tmp_path / "out" / "README.md").read_text()


def test_one_list_can_be_read_alone(tmp_path: Path):
    read("seed-tts-eval", seed_tts(tmp_path / "set") / "zh" / "hardcase.lst", tmp_path)
    assert prompts_of(tmp_path)["id"].tolist() == ["hard-zh-a"]


BROKEN = {
    "too few fields": (
        f"x|{EN[0]}|prompt-wavs/en0.wav",
        r"meta.lst:4: expected name\|.*found 3 fields",
    ),
    "too many fields": (f"x|{EN[0]}|prompt-wavs/en0.wav|a|b|c", r"meta.lst:4: .*found 6 fields"),
    "missing recording": (
        f"x|{EN[0]}|prompt-wavs/no.wav|{EN[1]}",
        r":4: prompt: .*no.wav: no such audio",
    ),
    "twice": (
        f"en-a|{EN[0]}|prompt-wavs/en0.wav|{EN[1]}",
        r"meta.lst:4: id: 'test-en-en-a' occurs twice",
    ),
    "empty text": (f"x|{EN[0]}|prompt-wavs/en0.wav|", r"meta.lst:4: target_text: empty"),
    "nothing to say": (f"x|{EN[0]}|prompt-wavs/en0.wav|...", r"meta.lst:4: empty text"),
    "two transcripts": (f"x|{EN[3]}|prompt-wavs/en0.wav|{EN[1]}", r":4: prompt_text: .*elsewhere"),
    "no audio": (f"x|{EN[0]}|meta.lst|{EN[1]}", r":4: prompt: .*meta.lst: cannot be decoded"),
    "truncated": (f"x|{EN[0]}|prompt-wavs/cut.wav|{EN[1]}", r":4: prompt: .*cut.wav: truncated"),
    "too long": (
        f"x|{EN[0]}|prompt-wavs/long.wav|{EN[1]}",
        r"long.wav: lasts 13.00 s, allowed: 0 to 12 s",
    ),
    "no file name": (f"a/b|{EN[0]}|prompt-wavs/en0.wav|{EN[1]}", r":4: id: .*cannot name a file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_fault_is_named_with_file_line_and_field_and_nothing_is_written(
    case: str, tmp_path: Path
):
    folder = seed_tts(tmp_path / "set")
    wavs = folder / "en" / "prompt-wavs"
    (wavs / "cut.wav").write_bytes((wavs / "en0.wav").read_bytes()[:-2000])
    tone(wavs / "long.wav", 300, 13)
    line, message = BROKEN[case]
    with (folder / "en" / "meta.lst").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ReadError, match=message):
        read("seed-tts-eval", folder, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_all_faults_come_at_once_and_the_rest_can_be_read_without_them(tmp_path: Path):
    folder = seed_tts(tmp_path / "set")
    (folder / "en" / "prompt-wavs" / "en0.wav").unlink()
    with pytest.raises(ReadError) as caught:
        read("seed-tts-eval", folder, tmp_path)
    assert str(caught.value).count("no such audio file") == 2
    tone(folder / "en" / "prompt-wavs" / "en2.wav", 700)
    with (folder / "en" / "meta.lst").open("a") as file:
        file.write(f"en-d|{EN[2]}|prompt-wavs/en2.wav|...\n")
    read("seed-tts-eval", folder, tmp_path, leave_out=True)
    frame, heard = prompts_of(tmp_path), read_manifest(tmp_path / "out" / "references")
    assert len(frame) == 5 and {r.id for r in heard} == set(frame["reference"])
    left = pd.read_csv(tmp_path / "out" / "left_out.csv")
    assert left["where"].str.extract(r"meta.lst:(\d)")[0].tolist() == ["1", "2", "4"]
    with pytest.raises(ReadError, match="exists already"):
        read("seed-tts-eval", folder, tmp_path)


def test_a_missing_list_and_a_missing_source_are_named(tmp_path: Path):
    folder = seed_tts(tmp_path / "set")
    (folder / "zh" / "hardcase.lst").unlink()
    with pytest.raises(ReadError, match=r"hardcase.lst"):
        read("seed-tts-eval", folder, tmp_path)
    with pytest.raises(ReadError, match="no such file or folder"):
        read("seed-tts-eval", tmp_path / "nowhere", tmp_path)


# --- Amphion-TTS-Eval, as the demo page has it


def test_the_four_sets_of_the_demo_page(tmp_path: Path):
    tone(tmp_path / "data" / "ars" / "en.wav", 300)
    tone(tmp_path / "data" / "ars" / "zh.wav", 400)
    targets = {
        ("regular", "en"): EN[1], ("tongueTwisters", "zh"): "八百标兵奔北坡。",
        ("codeSwitching", "zh"): "我的 train 晚点了。", ("crossLingual", "en"): "他把 boat 卖了。",
    }  # fmt: skip
    page = {
        key: [
            {
                "target_text": text, "prompt_path": f"ars/{lang}.wav",
                "prompt_text": {"en": EN, "zh": ZH}[lang][0], "base_path": "x", "dpo_path": "y",
            }
        ]
        for (key, lang), text in targets.items()
    }  # fmt: skip
    (tmp_path / "data" / "ars.json").write_text(json.dumps(page))
    read("amphion-tts-eval", tmp_path / "data" / "ars.json", tmp_path)
    found = prompts_of(tmp_path).set_index("set")[["direction", "target_lang"]]
    assert found.to_dict("index") == {
        "regular": {"direction": "en", "target_lang": "en"},
        "articulatory": {"direction": "zh", "target_lang": "zh"},
        "code-switching": {"direction": "zh2mixed", "target_lang": "mixed"},
        "cross-lingual": {"direction": "en2zh", "target_lang": "mixed"},
    }


# --- Emilia


def clips(folder: Path) -> list[tuple[dict, Path]]:
    """Three voices a language, short recordings (references) and longer ones (targets)."""
    made = []
    for lang, texts in (("en", EN), ("zh", ZH)):
        for voice in range(3):
            for i, text in enumerate(texts):
                name = f"{lang.upper()}_B00000_S{voice:05d}_W{i:06d}"
                seconds = 0.5 + 0.25 * i
                path = tone(folder / f"{name}.mp3", 250 + 50 * voice, seconds, form="MP3")
                row = {
                    "id": name, "wav": f"S{voice}/mp3/{name}.mp3", "text": f" {text}", "dnsmos": 3.1,
                    "duration": seconds, "speaker": f"{lang.upper()}_S{voice}", "language": lang,
                }  # fmt: skip
                made.append((row, path))
    return made


def emilia_tar(folder: Path) -> Path:
    path = folder / "Emilia" / "EN" / "EN-B000000.tar"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for number, (row, clip) in enumerate(clips(folder / "raw")):
            if number % 2:  # Emilia-YODAS names its id otherwise and has no wav
                row = {"_id": row["id"]} | {k: v for k, v in row.items() if k not in ("id", "wav")}
            data = json.dumps(row).encode()
            for name, content in (
                (f"{clip.stem}.mp3", clip.read_bytes()),
                (f"{clip.stem}.json", data),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


LIMITS = {"reference_seconds": (0.0, 0.9), "target_seconds": (0.7, 2.0)}


def read_emilia(source: Path, tmp_path: Path, out: str, **rules) -> pd.DataFrame:
    usual = Rules(**(LIMITS | rules))
    read_set("emilia", source, tmp_path / out, usual, "CC-BY-NC-4.0")
    return read_prompts(tmp_path / out / "prompts.parquet").drop(columns="reference_corpus")


def test_emilia_gives_prompts_of_four_directions_within_the_limits(tmp_path: Path):
    source = emilia_tar(tmp_path)
    frame = read_emilia(source, tmp_path, "out", per_direction=5)
    assert frame["direction"].value_counts().to_dict() == dict.fromkeys(
        ["en2en", "zh2zh", "en2zh", "zh2en"], 5
    )
    assert (frame["split"] == "mining").all()
    for row in frame.itertuples():
        assert row.prompt_text not in row.target_text
        assert row.target_text in EN[1:] + ZH[1:]  # the first of each is too short for a target
    used = {r.id: r for r in read_manifest(tmp_path / "out" / "references")}
    assert all(r.duration <= 0.9 for r in used.values())
    assert set(used) == set(frame["reference"])
    whole = read_prompts(tmp_path / "out" / "prompts.parquet")
    for prompt, row in zip(load_prompts(whole), whole.itertuples(), strict=True):
        voice = int(row.reference.split("_S")[1][:5])
        assert pitch(prompt.reference_speech) == pytest.approx(250 + 50 * voice, abs=3)
    first = frame[frame["direction"] == "en2en"].head(3)
    assert first["voice"].nunique() == 3  # voices take turns


def test_the_draw_is_seeded_and_the_folder_form_gives_the_same(tmp_path: Path):
    source = emilia_tar(tmp_path)
    once = read_emilia(source, tmp_path, "a")
    assert read_emilia(source.parent.parent, tmp_path, "b").equals(once)
    assert not read_emilia(source, tmp_path, "c", seed=1).equals(once)
    rows = []
    for row, clip in clips(tmp_path / "raw"):
        (tmp_path / "open" / row["wav"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "open" / row["wav"]).write_bytes(clip.read_bytes())
        rows.append(json.dumps(row))
    (tmp_path / "open" / "EN_B00000.jsonl").write_text("\n".join(rows))
    assert read_emilia(tmp_path / "open", tmp_path, "d")["id"].tolist() == once["id"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speaker": ""}, r"jsonl:1: speaker: missing"),
        ({"wav": "elsewhere.mp3"}, r"jsonl:1: wav: no such recording"),
        ({"language": "xx"}, r"jsonl:1: unknown language 'xx'; known are en"),
        ({"text": "..."}, r"en2en: .*empty text"),
        ({"duration": 1.9}, r"prompt: lasts 0.7\d s, its row says 1.90"),
    ],
)
def test_a_row_of_emilia_at_fault_is_named(change: dict, message: str, tmp_path: Path):
    row, clip = clips(tmp_path / "raw")[1]
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "clip.mp3").write_bytes(clip.read_bytes())
    rows = [row | {"wav": "clip.mp3"} | change, row | {"wav": "clip.mp3", "id": "x", "text": EN[2]}]
    (tmp_path / "e" / "X.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ReadError, match=message):
        read_emilia(tmp_path / "e", tmp_path, "out", reference_seconds=(0.0, 2.0))


def test_files_that_are_not_what_they_are_called(tmp_path: Path):
    for name, kind, text, message in (
        ("a.tar", "emilia", "no tar", r"a.tar: "),
        ("a.jsonl", "emilia", '{"id": 1}\n{', r"a.jsonl:2: "),
        ("b.jsonl", "emilia", "[1]", r"b.jsonl:1: expected a dict, found a list"),
        ("a.json", "intp", "[]", r"a.json: expected a dict, found a list"),
        ("b.json", "amphion-tts-eval", "{", r"b.json: "),
        ("c.json", "amphion-tts-eval", '{"sung": []}', r"c.json: unknown set 'sung'"),
        ("a.parquet", "table", "no parquet", r"a.parquet: "),
        ("a.csv", "table", 'audio,text\na.wav,"open', r"a.csv:1: unexpected end of data"),
        ("a.xlsx", "table", "", r"a.xlsx: expected a .csv, a .parquet or a folder"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ReadError, match=message):
            read(kind, tmp_path / name, tmp_path)
    assert not (tmp_path / "out").exists()


# --- GTSinger


def test_gtsinger_gives_spoken_lyrics_and_leaves_singing_alone(tmp_path: Path):
    for language, singer, words in (
        ("English", "EN-Alto-1", ["<AP>", "my", "love", "<SP>"]),
        ("English", "EN-Alto-1", ["all", "is", "found"]),
        ("Japanese", "JA-Tenor-1", ["雪", "が", "ふる"]),
        ("Japanese", "JA-Tenor-1", ["<SP>", "花", "の", "歌"]),
        ("Russian", "RU-Alto-1", ["да"]),
    ):
        song = tmp_path / "g" / language / singer / "Breathy" / "".join(words[1:3])
        for group in ("Control_Group", "Paired_Speech_Group"):
            wav = tone(song / group / "0000.wav", 300 if "Speech" in group else 700, rate=48_000)
            wav.with_suffix(".json").write_text(
                json.dumps([{"word": w, "start_time": 0} for w in words])
            )
    limits = {"target_seconds": (0.5, 5.0)}
    read("gtsinger", tmp_path / "g", tmp_path, **limits)
    frame = prompts_of(tmp_path)
    assert sorted(frame["target_text"]) == ["all is found", "my love", "花の歌", "雪がふる"]
    assert set(frame["direction"]) == {"en", "ja"} and (frame["set"] == "regular").all()
    assert not frame.loc[frame["direction"] == "ja", "target_phonemes"].any()
    for _, samples in read_audio(tmp_path / "out" / "references"):
        assert pitch(samples) == pytest.approx(300, abs=1)


# --- pairs: a table of your own, INTP's demo page, the hub


def own_pairs(folder: Path, count: int = 4, **more) -> Path:
    """A CSV of pairs beside its audio."""
    rows = []
    for i in range(count):
        lang, texts = (("en", EN), ("zh", ZH))[i % 2]
        tone(folder / "wav" / f"ref{i}.wav", 200 + 10 * i)
        tone(folder / "wav" / f"good{i}.flac", 400 + 10 * i, 1.5, form="FLAC")
        tone(folder / "wav" / f"bad{i}.wav", 600 + 10 * i, 2.0, rate=16_000)
        rows.append(
            {
                "prompt": f"wav/ref{i}.wav", "prompt_text": texts[0], "target_text": texts[1 + i // 2],
                "chosen": f"wav/good{i}.flac", "rejected": f"wav/bad{i}.wav", "voice": f"v{i}",
                "chosen_error": 0.0, "rejected_error": 25.0 + i, "target_lang": lang,
            } | {k: v[i] for k, v in more.items()}
        )  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "pairs.csv", index=False)
    return folder / "pairs.csv"


def loaded(tmp_path: Path, out: str = "out") -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Path]]:
    folder = tmp_path / out
    pairs = pd.read_parquet(folder / "pairs.parquet")
    assert list(pairs) == PAIR_COLUMNS
    return pairs, read_prompts(folder / "prompts.parquet"), {
        p.name: p for p in (folder / "speech").iterdir()
    }  # fmt: skip


def test_pairs_of_your_own_train_a_model_without_a_line_of_code(
    tmp_path: Path, tokenizer: SpeechTokenizer, adapter: ARAdapter
):
    read("table", own_pairs(tmp_path), tmp_path)
    pairs, prompts, speech = loaded(tmp_path)
    assert pairs["gap"].tolist() == [25.0, 26.0, 27.0, 28.0] and (pairs["kind"] == "intra").all()
    said = dict(read_speech(speech["table"]))
    for i, row in enumerate(pairs.itertuples()):
        assert pitch(said[row.chosen]) == pytest.approx(400 + 10 * i, abs=1)
        assert pitch(said[row.rejected]) == pytest.approx(600 + 10 * i, abs=1)
    symbols = sorted(set("".join(prompts["target_phonemes"] + prompts["prompt_phonemes"])) | {" "})
    policy = ARAdapter(replace(adapter.config, phonemes=symbols), tokenizer)
    examples = load_pairs(pairs, prompts, speech, policy)
    recipe = Recipe(lr=1e-2, warmup_steps=1, batch_pairs=4, epochs=3)
    log = train(policy, examples, recipe, tmp_path / "work").log
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert log[-1]["loss"] < log[0]["loss"]


def hub(source: Path, path: Path) -> Path:
    """The table as Hugging Face datasets would store it: bytes in cells."""
    frame = pd.read_csv(source)
    for column in ("prompt", "chosen", "rejected"):
        frame[column] = [
            {"bytes": (source.parent / name).read_bytes(), "path": Path(name).name}
            for name in frame[column]
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    return path


def test_parquet_that_holds_its_audio_gives_what_the_csv_gives(tmp_path: Path):
    source = own_pairs(tmp_path)
    read("table", source, tmp_path)
    hub(source, tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    read_set("table", tmp_path / "hub", tmp_path / "again", Rules(), "CC0")
    first, second = loaded(tmp_path), loaded(tmp_path, "again")
    pd.testing.assert_frame_equal(first[0], second[0])
    shard = "speech/table/shard-0000.tar"
    assert (tmp_path / "out" / shard).read_bytes() == (tmp_path / "again" / shard).read_bytes()


def test_columns_can_be_renamed_and_unknown_ones_are_not_left_unread_unasked(tmp_path: Path):
    source = own_pairs(tmp_path, mos=[1, 2, 3, 4])
    frame = pd.read_csv(source).rename(columns={"prompt": "prompt_wav_path"})
    frame.to_csv(source, index=False)
    with pytest.raises(ReadError, match="neither pairs"):
        read("table", source, tmp_path)
    columns = {"prompt": "prompt_wav_path"}
    with pytest.raises(ReadError, match=r"\['mos'\] mean nothing here"):
        read("table", source, tmp_path, columns=columns)
    read("table", source, tmp_path, columns=columns, ignore=("mos",))
    assert len(loaded(tmp_path)[0]) == 4


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("chosen", "wav/none.wav", r"pairs.csv:2: chosen: .*none.wav: no such audio file"),
        ("rejected", "wav/good0.flac", r"pairs.csv:2: rejected: the same recording as the chosen"),
        ("chosen_error", "30", r"pairs.csv:2: chosen_error: larger than rejected_error"),
        ("chosen_error", "few", r"pairs.csv:2: chosen_error: .*valid number.*found 'few'"),
        ("target_lang", "xx", r"pairs.csv:2: unknown language 'xx'; known are en"),
        ("target_lang", "zh", r"pairs.csv:2: .* is not zh"),
        ("prompt_text", "", r"pairs.csv:2: prompt_text: empty"),
    ],
)
def test_a_row_of_a_table_at_fault_is_named(column: str, value: str, message: str, tmp_path: Path):
    source = own_pairs(tmp_path)
    frame = pd.read_csv(source, dtype=str)
    frame.loc[0, column] = value
    frame.to_csv(source, index=False)
    with pytest.raises(ReadError, match=message):
        read("table", source, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rejected", "wav/none.wav"),
        ("rejected", "wav/good1.flac"),
        ("chosen_error", 90.0),
        ("pair", "p0"),
    ],
)
def test_a_pair_left_out_leaves_nothing_behind(
    column: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("readers.reading.SHARD", 3)  # the chosen of the row at fault fills one
    source = own_pairs(tmp_path, pair=["p0", "p1", "p2", "p3"])
    frame = pd.read_csv(source)
    frame.loc[1, column] = value
    frame.to_csv(source, index=False)
    read("table", source, tmp_path, leave_out=True)
    pairs, prompts, speech = loaded(tmp_path)
    said = pd.read_parquet(speech["table"] / "manifest.parquet")
    assert pairs["pair"].tolist() == ["p0", "p2", "p3"]
    assert set(prompts["id"]) == set(said["prompt"]) == set(pairs["prompt"])
    assert set(said["id"]) == {*pairs["chosen"], *pairs["rejected"]}
    folder = tmp_path / "out" / "references"
    heard = pd.DataFrame(read_manifest(folder))
    assert set(heard["id"]) == set(prompts["reference"])
    for kept, shards in ((said, speech["table"]), (heard, folder)):
        for name, rows in kept.groupby("shard"):
            with tarfile.open(shards / name) as tar:
                assert [Path(member).stem for member in tar.getnames()] == rows["id"].tolist()
        assert {path.name for path in shards.glob("*.tar")} == set(kept["shard"])
    text = (tmp_path / "out" / "README.md").read_text()
    for count in ("prompts: 3 of 3 references", "pairs: 3 of 6 answers", "rows left out: 1"):
        assert count in text


def test_a_csv_row_of_another_length_and_a_pair_that_comes_twice(tmp_path: Path):
    source = own_pairs(tmp_path)
    text = source.read_text()
    source.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(ReadError, match=r"pairs.csv:6: pair: .* occurs twice"):
        read("table", source, tmp_path)
    source.write_text(text + "wav/ref0.wav,Too short\n")
    with pytest.raises(ReadError, match=r"pairs.csv:6: expected as many fields"):
        read("table", source, tmp_path)


def test_a_table_of_prompts_and_a_table_of_recordings(tmp_path: Path):
    for i in range(len(EN)):
        tone(tmp_path / f"{i}.wav", 300 + 10 * i, 1 + i / 4)
    rows = [{"prompt": "0.wav", "prompt_text": EN[0], "target_text": t} for t in EN[1:]]
    pd.DataFrame(rows).to_csv(tmp_path / "prompts.csv", index=False)
    read("table", tmp_path / "prompts.csv", tmp_path)
    assert prompts_of(tmp_path)["direction"].tolist() == ["en2en"] * 3
    rows = [{"audio": f"{i}.wav", "text": t, "voice": i % 2} for i, t in enumerate(EN)]
    pd.DataFrame(rows).to_csv(tmp_path / "speech.csv", index=False)
    rules = Rules(target_seconds=(1.2, 9.0))
    read_set("table", tmp_path / "speech.csv", tmp_path / "drawn", rules, "CC0")
    drawn = read_prompts(tmp_path / "drawn" / "prompts.parquet")
    assert sorted(drawn["target_text"]) == sorted(EN[1:]) and len(load_prompts(drawn)) == 3


def demo_page(folder: Path) -> Path:
    """`data/egs.json` of the demo page: {direction: [{models: {text type: pair}}]}."""
    page: dict = {"en2en": [{}]}
    for model, sides in (("ars", ("temp1.2", "temp0.4")), ("ars_f5tts", ("dur1.0", "temp0.4"))):
        kinds = {}
        for n, kind in enumerate(("regular", "code_switching", "pronunciation_perturbed")):
            here = f"en2en/{model}/{kind}"
            tone(folder / here / "rlhfv1_1_prompt.mp3", 250, form="MP3")
            for i, side in enumerate(sides):
                tone(folder / here / f"rlhfv1_1_{side}.wav", 300 + 100 * i + 10 * n + len(model))
            text = "我的 train 晚点了。" if kind == "code_switching" else EN[1]
            kinds[kind] = {
                "prompt_text": EN[0], "prompt_wav_path": f"{here}/rlhfv1_1_prompt.mp3",
                "target_text": text, "chosen": f"{here}/rlhfv1_1_{sides[0]}.wav",
                "rejected": f"{here}/rlhfv1_1_{sides[1]}.wav",
            } | ({"perturbed_text": "She reeds a lawn ladder."} if "perturbed" in kind else {})  # fmt: skip
        page["en2en"][0][model] = kinds
    (folder / "egs.json").write_text(json.dumps(page))
    return folder / "egs.json"


def test_intps_demo_page_gives_three_kinds_of_pairs(tmp_path: Path):
    read("intp", demo_page(tmp_path / "data"), tmp_path)
    pairs, prompts, speech = loaded(tmp_path)
    assert pairs["kind"].value_counts().to_dict() == {"intra": 2, "inter": 2, "perturbed": 2}
    assert set(speech) == {"ars", "ars_f5tts"} and (pairs["direction"] == "en2en").all()
    known = prompts.set_index("id")
    perturbed = pairs[pairs["kind"] == "perturbed"]
    assert (perturbed["text_type"] == "pronunciation-perturbed").all()
    assert (known.loc[perturbed["prompt"], "target_text"] == EN[1]).all()  # what was meant
    manifest = pd.read_parquet(speech["ars"] / "manifest.parquet").set_index("id")
    read_by = manifest.loc[perturbed[perturbed["rejected_model"] == "ars"]["rejected"], "prompt"]
    assert (known.loc[read_by, "target_text"] == "She reeds a lawn ladder.").all()
    mixed = pairs.loc[pairs["text_type"] == "code-switching", "prompt"]
    assert (known.loc[mixed, "target_lang"] == "mixed").all()
    assert (
        len(list(read_audio(tmp_path / "out" / "references"))) == 1
    )  # the page holds it six times


def test_a_folder_for_the_hub_reads_back_as_what_was_exported(tmp_path: Path):
    read("intp", demo_page(tmp_path / "data"), tmp_path)
    pairs, prompts, speech = loaded(tmp_path)
    pairs["judge"], pairs["chosen_seed"] = "whisper-base", range(len(pairs))
    pairs["chosen_error"], pairs["rejected_error"], pairs["gap"] = 0.0, 50.0, 50.0
    export(pairs, prompts, speech, tmp_path / "hub", "CC-BY-NC-4.0")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card and "path: data/train-*" in card
    path = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    features = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
    assert list(features) == pq.read_schema(path).names == COLUMNS
    assert {n for n, f in features.items() if f["_type"] == "Audio"} == {
        "prompt",
        "chosen",
        "rejected",
    }
    read_set("intp", tmp_path / "hub", tmp_path / "back", Rules(), "CC-BY-NC-4.0")
    again, prompts_again, speech_again = loaded(tmp_path, "back")
    pd.testing.assert_frame_equal(again, pairs, check_dtype=False)
    apart = ["reference", "reference_corpus", "voice"]  # a reference is named by its bytes
    pd.testing.assert_frame_equal(prompts_again.drop(columns=apart), prompts.drop(columns=apart))
    for model, folder in speech.items():
        first, second = dict(read_speech(folder)), dict(read_speech(speech_again[model]))
        assert first.keys() == second.keys()
        assert all((first[k] == second[k]).all() for k in first)


def test_export_names_what_is_missing_and_leaves_nothing(tmp_path: Path):
    read("table", own_pairs(tmp_path), tmp_path)
    pairs, prompts, speech = loaded(tmp_path)
    with pytest.raises(ReadError, match="no folder for table"):
        export(pairs, prompts, {}, tmp_path / "hub", "CC0")
    with pytest.raises(ReadError, match="prompt nobody is not among the prompts"):
        export(pairs.assign(prompt="nobody"), prompts, speech, tmp_path / "hub", "CC0")
    with pytest.raises(ReadError, match="chosen nothing has no recording"):
        export(pairs.assign(chosen="nothing"), prompts, speech, tmp_path / "hub", "CC0")
    assert not (tmp_path / "hub").exists()


def command(*arguments: object) -> subprocess.CompletedProcess:
    python = [sys.executable, "-m", "readers", *map(str, arguments)]
    return subprocess.run(python, cwd=ROOT / "src", capture_output=True, text=True)


def test_from_the_command_line(tmp_path: Path):
    source = own_pairs(tmp_path)
    out = tmp_path / "out"
    done = command("table", source, "--out", out, "--licence", "CC-BY-4.0")
    assert done.returncode == 0 and done.stdout == f"{out}: 4 prompts, 4 pairs\n"
    assert "averaged" not in done.stderr  # once, in the README
    assert "licence: CC-BY-4.0" in (out / "README.md").read_text()
    files = {"pairs": out / "pairs.parquet", "prompts": out / "prompts.parquet"}
    options = [f for name, path in files.items() for f in (f"--{name}", path)]
    speech = ["--speech", f"table={out / 'speech' / 'table'}", "--licence", "cc-by-4.0"]
    done = command("export", *options, *speech, "--out", tmp_path / "hub")
    assert done.stdout == f"{tmp_path / 'hub'}: 4 pairs\n"
    (tmp_path / "wav" / "bad0.wav").unlink()
    done = command("table", source, "--out", tmp_path / "b", "--licence", "CC0")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{source}:2: rejected: {tmp_path}/wav/bad0.wav: no such audio file" in done.stderr
    assert "--licence" in command("table", source, "--out", tmp_path / "b").stderr


WALK = (
    (ROOT / "docs" / "your-own-pairs.md").read_text("utf-8").split("## A walk")[1].split("\n## ")[0]
)
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", WALK, re.DOTALL)


@pytest.mark.skipif(not TOKENIZER.is_file(), reason="no pretrained checkpoints: `dvc pull`")
def test_the_walk_in_the_docs_runs_as_it_is_written(tmp_path: Path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")}
    said = []
    for language, block in BLOCKS:
        run = [sys.executable, "-c", block] if language == "python" else ["sh", "-ec", block]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        said.append(done.stdout)
    shutil.rmtree(WORK / "align" / "ars-mine")
    assert "4 prompts, 4 pairs" in said[1] and "my-pairs-3: 4 prompts, 4 pairs" in said[-1]
    log = next(out for out in said if "margin" in out).split("\n")
    assert [line.split()[:2] for line in log[1:3]] == [["1", "0.693"], ["2", log[2].split()[1]]]
    assert float(log[2].split()[1]) < 0.693
    assert (tmp_path / "my-pairs" / "ars-mine.safetensors").is_file()
