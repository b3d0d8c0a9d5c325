"""The second judges on real recordings, and a phoneme recogniser that learns a handful of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from intp.audio import log_mel
from intp.corpus import Utterance, read_audio, read_manifest
from intp.paths import DATA
from judges import JudgeError
from judges.phonemes import phoneme_errors
from judges.score import MissingSpeech
from judges.second import second_judge, whisper_tiny_en
from networks.recogniser import PhonemeRecogniser, RecogniserConfig, normalised
from texts.phonemes import phonemise, sounding
from zoo.loop import Schedule, pretrain
from zoo.recogniser import RecogniserTask

Recordings = tuple[list[Utterance], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def recordings() -> Recordings:
    """Eight English and eight Chinese recordings."""
    rows = [r for r in read_manifest(DATA / "corpus") if r.shard == "audio-00.tar"]
    rows = [r for lang in ("en", "zh") for r in rows if r.lang == lang and r.duration > 1.5]
    rows = [r for lang in ("en", "zh") for r in [r for r in rows if r.lang == lang][:8]]
    return rows, dict(read_audio(DATA / "corpus", {r.id for r in rows}))


def tiny(rows: list[Utterance]) -> PhonemeRecogniser:
    torch.manual_seed(0)
    symbols = sorted({c for row in rows for c in sounding(row.phonemes)})
    return PhonemeRecogniser(RecogniserConfig(width=64, layers=2, dropout=0.0, phonemes=symbols))


@pytest.fixture(scope="module")
def untrained(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recogniser") / "random-zh.safetensors"
    tiny([r for r in recordings[0] if r.lang == "zh"]).save(path)
    return path


def asked(rows: list[Utterance]) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [r.id for r in rows], "target_text": [r.text for r in rows],
         "target_lang": [r.lang for r in rows]}
    )  # fmt: skip


def test_both_languages_are_judged_each_by_its_own_ear(recordings: Recordings, untrained: Path):
    rows, audio = recordings
    frame = asked(rows).iloc[::-1].reset_index(drop=True)
    found = second_judge(audio, frame, chinese=untrained)
    assert list(found["id"]) == list(frame["id"])
    english = found[frame["target_lang"] == "en"]
    assert english["second_judge"].str.startswith("whisper-tiny.en").all()
    assert english["second_error"].mean() < 15, "Whisper-tiny.en hears clean recordings"
    assert set(found.loc[frame["target_lang"] == "zh", "second_judge"]) == {"random-zh"}
    assert found.loc[frame["target_lang"] == "zh", "second_error"].mean() > 50


def test_the_words_of_code_switched_speech_are_its_second_opinion(
    recordings: Recordings, untrained: Path
):
    rows, audio = recordings
    frame = asked(rows[:2]).assign(target_lang=["en", "mixed"], target_text=["One.", "say 你好"])
    found = second_judge(audio, frame, chinese=untrained)
    assert found["second_error"].isna().tolist() == [False, True]
    assert found["second_judge"].tolist()[1] == "none"
    words = pd.Series(["", "say 尼"], frame["id"], name="parrot")
    found = second_judge(audio, frame, chinese=untrained, words=words)
    assert found["second_error"][1] == pytest.approx(100 / 3)
    assert found["second_judge"].tolist()[1] == "parrot"


def test_an_english_whisper_refuses_another_language(recordings: Recordings):
    row = next(r for r in recordings[0] if r.lang == "zh")
    with pytest.raises(JudgeError, match="zh: this Whisper knows English only"):
        whisper_tiny_en().transcribe([recordings[1][row.id]], ["zh"])


def test_missing_speech_and_a_missing_checkpoint_are_named(recordings: Recordings, tmp_path: Path):
    rows, audio = recordings
    with pytest.raises(MissingSpeech, match=rows[0].id):
        second_judge({}, asked(rows[:1]))
    with pytest.raises(JudgeError, match="python -m zoo nowhere-zh"):
        second_judge(audio, asked(rows[-1:]), chinese=tmp_path / "nowhere-zh.safetensors")


def test_phoneme_error_knows_no_tones_and_counts_what_differs():
    right = sounding(phonemise("你好", "zh"))
    assert (
        phoneme_errors("你好", right, "zh").edits == 0 == phoneme_errors("尼豪", right, "zh").edits
    )
    assert phoneme_errors("你好", "", "zh").rate == 100
    assert phoneme_errors("你好", right[1:], "zh").rate == pytest.approx(100 / len(right))
    assert phoneme_errors("say 你好", right, "mixed").deletions == 2  # s and A of the one word


def test_volume_and_colour_of_a_recording_do_not_matter(recordings: Recordings, untrained: Path):
    rows, audio = recordings
    model = PhonemeRecogniser.load(untrained)
    mel = log_mel(audio[rows[-1].id])
    assert model.heard(mel) == model.heard(mel + torch.linspace(-1, 1, 100) - 0.5)
    assert model.heard(mel[:1]) == ""
    assert normalised(mel).mean(0).abs().max() < 1e-3


def test_padding_and_company_do_not_change_what_is_heard(recordings: Recordings, untrained: Path):
    model = PhonemeRecogniser.load(untrained)
    rows = [r for r in recordings[0] if r.lang == "zh"]
    mels = {r.id: log_mel(recordings[1][r.id]) for r in rows}
    short = normalised(mels[rows[0].id])[None, :60]
    padded = torch.cat([short, torch.randn(1, 40, 100)], 1)
    mask = torch.cat([torch.ones(1, 30), torch.zeros(1, 20)], 1)
    alone = model(short, torch.ones(1, 30))
    torch.testing.assert_close(model(padded, mask)[:, :30], alone, atol=1e-5, rtol=1e-4)


def test_the_recogniser_learns_a_handful_of_recordings(recordings: Recordings, tmp_path: Path):
    rows = [r for r in recordings[0] if r.lang == "zh"]
    mels = {r.id: log_mel(recordings[1][r.id]) for r in rows}
    model = tiny(rows)
    task = RecogniserTask(model, rows, mels, 2000, seed=0, warp=0.2)
    before = task(0)[0].item()
    schedule = Schedule(30, 3e-3, 5, save_every=30, optimizer="muon")
    pretrain(model, task, schedule, tmp_path, "test", lambda: task.held_out(rows))
    with torch.no_grad():
        after = task(0)[0].item()
    assert after < 0.7 * before
    assert (tmp_path / "log.jsonl").read_text().count("held_out_error") == 1
    model.save(tmp_path / "model.safetensors")
    again = PhonemeRecogniser.load(tmp_path / "model.safetensors")
    assert again.config == model.config
