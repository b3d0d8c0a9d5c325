"""Unseen languages: every symbol is read as one that is seen, and what has no topline decides nothing."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import unseen
from experiments.unseen import (
    LANGUAGES,
    judge_unseen,
    table_10,
    topline,
    undecided,
    unseen_prompts,
)
from intp.audio import SAMPLE_RATE
from intp.corpus import read_audio, read_manifest, write_shard
from intp.params import Params, load_params
from intp.paths import DATA, ROOT
from report.paper import select
from texts.normalise import count_errors
from texts.unseen import SEEN, VOICES, as_markdown, nearest, phonemise_unseen, readings
from tools.deps import stages

FULL = dataclasses.replace(load_params("mini").unseen, sentences=30)
KANA = {"は": "はわ", "へ": "へえ", "を": "をお", "う": "うー", "い": "いー"}
MARKS = re.compile(r"[\s、。,.?]")


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params("mini")


@pytest.fixture(scope="module")
def sentences() -> pd.DataFrame:
    rows = pd.read_json(DATA / "unseen.jsonl", lines=True)
    return rows.assign(said=[readings().get(r.id, r.text) for r in rows.itertuples()])


def test_every_reading_is_its_sentence_s(sentences: pd.DataFrame):
    japanese = sentences[sentences["lang"] == "ja"]
    assert list(japanese["id"]) == list(readings())
    for row in japanese.itertuples():
        runs = re.sub(r"[\u4e00-\u9fff]+", "漢", MARKS.sub("", row.text))
        pattern = "".join("[ぁ-んー]+" if c == "漢" else f"[{KANA.get(c, c)}]" for c in runs)
        assert re.fullmatch(pattern, MARKS.sub("", row.said)), row.said


def test_seen_is_what_the_corpus_is_written_in_but_for_tones_and_rare_marks():
    rows = read_manifest(DATA / "corpus") + read_manifest(DATA / "corpus-wordnet")
    assert set("".join(row.phonemes for row in rows)) - SEEN == set("→↗↓↘ɚ\u0329")
    assert not SEEN - set("".join(row.phonemes for row in rows))


def test_every_sentence_is_read_in_seen_symbols_alone(sentences: pd.DataFrame):
    for row in sentences.itertuples():
        phonemes = phonemise_unseen(row.said, row.lang)
        assert set(phonemes) <= SEEN
        assert len(re.findall(r"[^\W\d_]", phonemes)) >= 10, row.text


def test_every_row_of_the_table_is_needed_has_a_reason_and_leads_to_seen_symbols(
    sentences: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    table = nearest()
    assert not table.duplicated("symbol").any() and table["reason"].all()
    assert set("".join(table["nearest"])) <= SEEN
    assert not set(table["symbol"]) & SEEN - {"-"}
    for language in VOICES:
        said = sentences.loc[sentences["lang"] == language, "said"]
        whole = [phonemise_unseen(text, language) for text in said]
        for row in table[table["languages"].str.contains(language)].itertuples():
            monkeypatch.setattr("texts.unseen.nearest", lambda row=row: table.drop(row.Index))
            with pytest.raises((ValueError, AssertionError)):
                assert [phonemise_unseen(text, language) for text in said] == whole
            monkeypatch.undo()


def test_the_page_shows_the_table():
    assert as_markdown() in (ROOT / "docs" / "unseen-languages.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("Zeit", "de", "ʦˈIt"),  # one letter an affricate and a diphthong, as in the corpus
        ("Bücher", "de", "bˈyɕɜ"),
        ("bon", "fr", "bˈɔŋ"),
        ("きょう", "ja", "kjˈɔu"),
        ("가자", "ko", "ɡˈaʤa"),
    ],
)
def test_what_a_word_is_read_as(text: str, lang: str, expected: str):
    assert phonemise_unseen(text, lang) == expected


def test_what_cannot_be_read_is_named():
    with pytest.raises(ValueError, match="unknown language 'it'"):
        phonemise_unseen("ciao", "it")
    with pytest.raises(ValueError, match="has kanji"):
        phonemise_unseen("駅です。", "ja")
    with pytest.raises(ValueError, match="neither seen nor in the table"):
        phonemise_unseen("Restaurant", "de")


def test_prompts_have_the_same_references_in_every_language(params: Params):
    prompts = unseen_prompts(params)
    assert list(prompts["set"].unique()) == list(LANGUAGES.values())
    groups = prompts.groupby("set")["reference"].agg(tuple)
    assert groups.nunique() == 1 and len(set(groups.iloc[0])) == params.unseen.sentences
    assert set(prompts.loc[prompts["target_lang"] == "fr", "direction"]) == {"en2fr", "zh2fr"}
    held_out = {row.voice_name for row in read_manifest(ROOT / unseen.REFERENCES)}
    assert set(prompts["voice"]) <= held_out
    many = dataclasses.replace(params.unseen, sentences=31)
    with pytest.raises(ValueError, match="at most 30 a language, 31 asked for"):
        unseen_prompts(dataclasses.replace(params, unseen=many))


def scores(params: Params, error: float) -> pd.DataFrame:
    kept = unseen_prompts(params)[["id", "set", "direction", "voice"]]
    counts = {f"{kind}_{part}": 10 for kind in ("wer", "error") for part in ("edits", "length")}
    return kept.assign(wer=error, error=error, sim=0.5, **counts)


def test_a_language_without_recordings_or_with_a_poor_topline_is_undecided(params: Params):
    none = topline(unseen_prompts(params), params)
    assert none.empty and set(undecided(none, params)) == set(LANGUAGES.values())
    recorded = scores(params, 10.0)
    recorded = recorded[recorded["set"] != "Korean"]
    recorded.loc[recorded["set"] == "French", "error"] = 50.1
    recorded.loc[recorded["set"] == "German", "error"] = 50.0
    found = undecided(recorded, params)
    assert set(found) == {"Korean", "French"}
    assert "no recordings" in found["Korean"] and "50.1 % is above 50 %" in found["French"]


def test_table_10_has_the_paper_s_cells_and_says_what_is_undecided(params: Params):
    rows = {"Ints": scores(params, 40.0), "Ints w/ INTP": scores(params, 30.0)}
    cells = pd.DataFrame(table_10(rows, scores(params, 60.0), params))
    printed = select("10:*:*")
    assert set(zip(printed["row"], printed["column"], strict=True)) <= set(
        zip(cells["row"], cells["column"], strict=True)
    )
    assert set(cells["row"]) == {"recording", *rows}
    change = cells[cells["column"] == "Korean clamped error difference"]
    assert change["value"].tolist() == [-10.0] and change["row"].tolist() == ["Ints w/ INTP"]
    assert cells["note"].str.contains("undecided: topline error 60.0 %|undecided: Japanese").all()
    decided = pd.DataFrame(table_10(rows, scores(params, 20.0), params))
    assert (decided["note"] == "mini models").all()


def test_recordings_are_judged_in_their_language(params: Params, tmp_path: Path):
    """The judge takes all four languages; an English recording is a bad topline of any other."""
    prompts = unseen_prompts(params).groupby("set", sort=False).head(1)
    english = next(
        samples for _, samples in read_audio(ROOT / unseen.REFERENCES, {"eval-ref-en-00"})
    )
    audio = [(name, english[: 2 * SAMPLE_RATE].astype(np.float32)) for name in prompts["id"]]
    write_shard(tmp_path / "audio-00.tar", iter(audio), SAMPLE_RATE, "flac")
    judged = dataclasses.replace(params.unseen, recordings=str(tmp_path))
    recorded = topline(prompts, dataclasses.replace(params, unseen=judged))
    assert list(recorded["id"]) == list(prompts["id"]) and "sim" not in recorded
    assert set(undecided(recorded, params)) == set(LANGUAGES.values())


@pytest.mark.parametrize(
    ("heard", "wer", "error"),
    [
        ("窓を開けると、海が見えます。", 0, 0),
        ("マドヲ開けると海が見えます", 25, 25),  # kanji left: the sentence is nearer
        ("マドヲアケルト、ウミガミエマス", 116.667, 0),  # heard right, spelled otherwise
        ("まどをあけるとうみがみえ", 66.667, 100 * 2 / 14),
    ],
)
def test_a_japanese_answer_may_be_spelled_in_kana(
    params: Params, monkeypatch: pytest.MonkeyPatch, heard: str, wer: float, error: float
):
    prompts = unseen_prompts(dataclasses.replace(params, unseen=FULL))
    prompts = prompts[prompts["id"] == "unseen-ja-17"]

    def told(audio: dict, rows: pd.DataFrame, *_: object) -> pd.DataFrame:
        kinds = {
            k: count_errors(rows["target_text"].item(), heard, "ja", k) for k in ("wer", "error")
        }
        counted = {k: e.rate for k, e in kinds.items()} | {
            "error_edits": kinds["error"].edits, "error_length": kinds["error"].length
        }  # fmt: skip
        return rows[["id", "target_lang"]].assign(transcript=heard, **counted)

    monkeypatch.setattr(unseen, "judge", told)
    row = judge_unseen({}, prompts, params).iloc[0]
    assert row["wer"] == pytest.approx(wer, abs=1e-2)
    assert row["error"] == pytest.approx(error) == 100 * row["error_edits"] / row["error_length"]


def test_the_stage_depends_on_every_model_that_it_speaks_with():
    deps = set(stages()["unseen"]["deps"])
    for model, variants in load_params().runs.items():
        if "intp" in variants:
            assert f"runs/${{scale}}/aligned/{model}-intp.safetensors" in deps, model
