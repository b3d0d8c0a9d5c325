"""The judges on real speech, on bad input, and the paper's judges on tiny random instances."""

import dataclasses
import urllib.error
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from intp.audio import AudioError, decode
from intp.corpus import Utterance, read_audio, read_manifest
from intp.paths import DATA
from judges import (
    JudgeError,
    RoutedRecogniser,
    WhisperRecogniser,
    build_quality,
    build_recogniser,
    build_similarity,
    cosine,
    ctranslate2,
)
from judges.score import MissingSpeech, judge_speech
from judges.wavlm import WavLMSimilarity
from judges.whisper import load_published, split_at_pauses
from texts.normalise import NORMALISER_VERSION, Errors, count_errors
from tools.tiny import judges as tiny

RATE = 16_000
MINI = {
    "recogniser": "whisper-base",
    "recogniser_zh": "whisper-base",
    "context_seconds": 6.0,
    "batch_size": 16,
}
Recordings = list[tuple[Utterance, np.ndarray]]


@pytest.fixture(scope="module")
def recordings() -> Recordings:
    """For each of six single voices (four English, two Chinese) its first three recordings."""
    chosen: dict[str, list[Utterance]] = {}
    for row in read_manifest(DATA / "corpus"):
        if len(row.voice) == 1 and row.shard == "audio-00.tar":
            chosen.setdefault(row.voice_name, []).append(row)
    voices = [v for v in chosen.values() if len(v) >= 3]
    english = [v for v in voices if v[0].lang == "en"][:4]
    chinese = [v for v in voices if v[0].lang == "zh"][:2]
    rows = [row for voice in english + chinese for row in voice[:3]]
    audio = dict(read_audio(DATA / "corpus", {row.id for row in rows}))
    return [(row, audio[row.id]) for row in rows]


@pytest.fixture(scope="module")
def whisper() -> WhisperRecogniser:
    return build_recogniser(MINI)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


# Whisper-base


def test_whisper_base_hears_the_corpus(whisper: WhisperRecogniser, recordings: Recordings) -> None:
    texts = whisper.transcribe([a for _, a in recordings], [r.lang for r, _ in recordings])
    for lang in ("en", "zh"):
        found = [
            count_errors(row.text, text, lang, "error")
            for (row, _), text in zip(recordings, texts, strict=True)
            if row.lang == lang
        ]
        assert sum(e.edits for e in found) / sum(e.length for e in found) < 0.12


@pytest.mark.parametrize("seconds", [20, 40])
def test_longer_than_the_context_is_judged_whole(
    whisper: WhisperRecogniser, recordings: Recordings, seconds: int
) -> None:
    english = [(r, a) for r, a in recordings if r.lang == "en"]
    pause, parts, text, index = np.zeros(RATE // 2, np.float32), [], [], 0
    while sum(map(len, parts)) < seconds * RATE:
        row, samples = english[index % len(english)]
        parts += [samples, pause]
        text.append(row.text)
        index += 1
    (heard,) = whisper.transcribe([np.concatenate(parts)], ["en"])
    errors = count_errors(" ".join(text), heard, "en")
    assert errors.rate < 12
    assert errors.deletions < errors.length / 20


def test_a_transcript_does_not_depend_on_its_company(
    whisper: WhisperRecogniser, recordings: Recordings
) -> None:
    mixed = [recordings[i] for i in (0, 13, 4, 16)]
    clips, languages = [a for _, a in mixed], [r.lang for r, _ in mixed]
    together = whisper.transcribe(clips, languages)
    alone = [whisper.transcribe([c], [lang])[0] for c, lang in zip(clips, languages, strict=True)]
    assert together == alone


def test_pieces_are_cut_in_pauses_and_lose_nothing() -> None:
    pause = np.zeros(RATE // 2, np.float32)
    speech = np.concatenate([part for i in range(12) for part in (noise(5.5, i), pause)])
    pieces = list(split_at_pauses(speech, 30.0))
    assert np.array_equal(np.concatenate(pieces), speech)
    assert all(len(piece) <= 30 * RATE for piece in pieces)
    assert all(not piece[-RATE // 20 :].any() for piece in pieces)
    assert len(list(split_at_pauses(noise(30.0), 30.0))) == 1


def test_silence_and_next_to_nothing_are_asked_like_speech(whisper: WhisperRecogniser) -> None:
    texts = whisper.transcribe([np.zeros(RATE, np.float32), noise(0.01)], ["en", "zh"])
    assert [type(text) for text in texts] == [str, str]


def test_whisper_base_other_than_published() -> None:
    with pytest.raises(JudgeError, match="Whisper-base: sha256 is d01c3014"):
        ctranslate2.joined_model(dataclasses.replace(ctranslate2.BASE, sha256="0"))


# Bad input


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.full(RATE, np.nan, np.float32), "NaN"),
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((RATE, 2), np.float32), "mono"),
    ],
)
def test_bad_clips_are_named_by_every_judge(
    whisper: WhisperRecogniser, bad: np.ndarray, says: str
) -> None:
    clips = [noise(1.0), bad]
    for judge in (
        lambda: whisper.transcribe(clips, ["en", "en"]),
        lambda: build_similarity("resemblyzer").embed(clips),
        lambda: build_quality("distillmos").score(clips),
    ):
        with pytest.raises(JudgeError, match=f"clip 1: .*{says}"):
            judge()


def test_unknown_names() -> None:
    with pytest.raises(JudgeError, match="unknown similarity judge 'x'; known are resemblyzer"):
        build_similarity("x")
    with pytest.raises(JudgeError, match="unknown quality judge 'x'; known are distillmos"):
        build_quality("x")
    with pytest.raises(JudgeError, match="wavlm_large_finetune.pth: missing"):
        build_similarity("wavlm-tdnn")


def test_unknown_language(whisper: WhisperRecogniser) -> None:
    with pytest.raises(JudgeError, match="klingon"):
        whisper.transcribe([noise(1.0)], ["klingon"])


def test_files_on_their_way_to_a_judge(
    whisper: WhisperRecogniser,
    recordings: Recordings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    row, samples = recordings[0]
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.stack([samples, samples], axis=1), RATE)
    stereo = decode(path.read_bytes(), "speech.wav")
    soundfile.write(path, np.repeat(samples, 3), 3 * RATE)
    resampled = decode(path.read_bytes(), "speech.wav")
    assert "2 channels averaged" in caplog.text
    assert "resampled from 48000 to 16000" in caplog.text
    for text in whisper.transcribe([stereo, resampled], [row.lang] * 2):
        assert count_errors(row.text, text, row.lang).rate <= 20
    with pytest.raises(AudioError, match=r"speech.wav: truncated"):
        decode(path.read_bytes()[:-1000], "speech.wav")


# The paper's judges, tiny and random, in the published layout


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper-tiny-random")
    tiny.whisper(folder)
    return folder


def published(folder: Path, **settings: object) -> WhisperRecogniser:
    name = str(folder)
    spec = {**MINI, "recogniser": name, "recogniser_zh": name, "context_seconds": 30.0}
    return build_recogniser(spec | settings)


def test_a_published_whisper_decodes_as_transformers_does(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In bfloat16 two orders of the same sums may differ in a token of random weights.
    monkeypatch.setattr("judges.whisper.fast_dtype", lambda device: torch.float32)
    judge = WhisperRecogniser(*load_published(str(large)), "tiny", context_seconds=30.0)
    clips = [noise(2.0, 1), noise(3.0, 2)]
    mels = judge.features(clips, sampling_rate=RATE, return_tensors="pt").input_features
    rows = judge.model.generate(mels, language="en", task="transcribe", max_new_tokens=30)
    expected = [[t for t in row.tolist() if t < 50257] for row in rows]
    encoded, prefixes = judge._encode(clips, 30.0), [judge._prefix("en")] * 2
    found = judge.decoder(encoded, prefixes, [30, 30], judge.end, judge.banned)
    assert [len(row) for row in found] == [30, 30]
    assert found == [row[:30] for row in expected]


def test_babble_ends_with_the_audio(large: Path) -> None:
    whole = published(large)
    capped = WhisperRecogniser(whole.model, whole.tokenizer, "tiny", tokens_per_second=5.0)
    clips = [noise(1.0), noise(2.0)]
    heard = capped._tokens(clips, [capped._prefix("en")] * 2)
    counts = [len(tokens) for tokens in heard]
    assert counts == [13, 18]
    assert len(capped.transcribe(clips, ["en", "en"])) == 2
    assert "cap=5" in capped.id and "cap=None" in whole.id


def test_short_contexts_are_chosen_by_length(large: Path) -> None:
    short = published(large, context_seconds=8.0)
    lengths = (1, 7.5, 7.6, 15, 16, 30)
    found = [short._context(np.zeros(int(s * RATE), np.float32)) for s in lengths]
    assert found == [8, 8, 9, 16, 17, 30]
    assert published(large)._context(np.zeros(RATE, np.float32)) == 30


def test_no_such_whisper(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="nowhere: neither a Whisper"):
        published(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def paraformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("funasr")
    folder = tmp_path_factory.mktemp("paraformer-tiny-random")
    tiny.paraformer(folder)
    return folder


def test_paraformer_hears_chinese_and_whisper_the_rest(paraformer: Path, large: Path) -> None:
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    judge = published(large, recogniser_zh=str(paraformer))
    assert torch.get_num_threads() == threads
    assert isinstance(judge, RoutedRecogniser)
    assert "paraformer-tiny-random" in judge.id and "whisper-tiny-random" in judge.id
    clips = [noise(2.0), noise(1.0), noise(0.01), noise(31.0)]
    texts = judge.transcribe(clips, ["zh", "en", "zh", "mixed-en"])
    assert texts == judge.transcribe(clips, ["zh", "en", "zh", "mixed-en"])
    assert texts[0] and texts[3]
    assert texts[2] == ""
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(JudgeError, match="clip 0: holds no samples"):
        judge.chinese.transcribe([np.zeros(0, np.float32)], ["zh"])


def test_no_such_paraformer(tmp_path: Path, large: Path) -> None:
    pytest.importorskip("funasr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(JudgeError, match="empty: neither a Paraformer"):
        published(large, recogniser_zh=str(tmp_path / "empty"))


def test_wavlm_tdnn(tmp_path: Path) -> None:
    path = tmp_path / "wavlm.pth"
    backbone = tiny.wavlm_tdnn(path, **{"loss_calculator.projection.weight": torch.zeros(1)})
    judge = build_similarity("wavlm-tdnn", path)
    assert isinstance(judge, WavLMSimilarity)
    clips = [noise(1.0, 1), noise(2.0, 2), noise(0.1, 3), np.zeros(RATE, np.float32)]
    clips += [noise(0.03, 4), noise(0.01, 5)]  # of one frame, of less
    vectors = judge.embed(clips)
    assert vectors.shape == (6, 12)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    louder = judge.embed([3 * clips[0] + 0.1])
    assert np.allclose(louder, vectors[:1], atol=1e-3), "the waveform is layer-normalised"
    wave = torch.from_numpy(clips[0])[None]
    with torch.inference_mode():
        states = judge.hidden_states(wave)
        normalised = (wave - wave.mean()) / (wave.var(correction=0) + 1e-5).sqrt()
        found = backbone(normalised, output_hidden_states=True)
    # As s3prl's hooks: what leaves the last layer is taken after the closing layer norm.
    expected = [*found.hidden_states[:-1], found.last_hidden_state]
    assert len(states) == len(expected) == 4
    for ours, theirs in zip(states, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("bn.weight"), r"missing \['bn.weight'\]"),
        (lambda w: w.pop("feature_extract.model.encoder.layers.1.fc1.bias"), "missing.*layers.1"),
        (lambda w: w.update({"layer9.bn.weight": torch.ones(1)}), r"not understood \['layer9"),
    ],
)
def test_wavlm_tdnn_refuses_keys_too_few_or_too_many(
    tmp_path: Path, change: object, says: str
) -> None:
    path = tmp_path / "wavlm.pth"
    tiny.wavlm_tdnn(path)
    weights = torch.load(path, weights_only=True)["model"]
    change(weights)
    torch.save({"model": weights}, path)
    with pytest.raises(JudgeError, match=says):
        WavLMSimilarity(path)


def test_utmos_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load", unreachable)
    with pytest.raises(JudgeError, match="no route to host.*TORCH_HOME.*distillmos"):
        build_quality("utmos")


def test_utmos_gets_one_clip_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Predictor(torch.nn.Module):
        def forward(self, wave: torch.Tensor, rate: int) -> torch.Tensor:
            assert wave.shape[0] == 1 and rate == RATE
            return torch.tensor([wave.shape[1] / rate])

    monkeypatch.setattr(torch.hub, "load", lambda *_, **__: Predictor())
    judge = build_quality.__wrapped__("utmos")
    assert judge.score([noise(1.0), noise(3.0)]) == [1.0, 3.0]


# Voices and quality


def test_resemblyzer_tells_voices_apart(recordings: Recordings) -> None:
    judge = build_similarity("resemblyzer")
    vectors = judge.embed([a for _, a in recordings])
    names = [r.voice_name for r, _ in recordings]
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    alike = [cosine(vectors[i], vectors[j]) for i, j in pairs if names[i] == names[j]]
    apart = [cosine(vectors[i], vectors[j]) for i, j in pairs if names[i] != names[j]]
    assert np.mean(alike) > np.mean(apart) + 0.15


def test_resemblyzer_on_little_and_nothing(recordings: Recordings) -> None:
    clips = [np.zeros(RATE, np.float32), recordings[0][1][:200], noise(2.0), noise(0.2)]
    vectors = build_similarity("resemblyzer").embed(clips)
    assert vectors.shape == (4, 256)
    assert np.isfinite(vectors).all()


def test_distillmos_prefers_speech(recordings: Recordings) -> None:
    speech = [a for _, a in recordings[:3]]
    scores = build_quality("distillmos").score([*speech, *(noise(2.0, i) for i in range(3))])
    assert all(1 <= s <= 5 for s in scores)
    assert min(scores[:3]) > max(scores[3:]) + 1


# From speech to scores


class Parrot:
    """A recogniser, a similarity and a quality judge that need no model."""

    id = "parrot"

    def transcribe(
        self, audio: list, languages: list[str], progress: str | None = None
    ) -> list[str]:
        return ["one two three" if lang == "en" else "你号" for lang in languages]

    def embed(self, audio: list, progress: str | None = None) -> np.ndarray:
        return np.array([[np.sign(a[0]), 0.0] for a in audio])

    def score(self, audio: list, progress: str | None = None) -> list[float]:
        return [float(len(a)) for a in audio]


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {"id": ["b", "a"], "target_text": ["你好", "One two."], "target_lang": ["zh", "en"]}
    )


def test_judge_speech(rows: pd.DataFrame) -> None:
    ones = np.ones(RATE, np.float32)
    parrot = Parrot()
    audio = {"a": ones, "b": ones[:8000], "c": ones}
    scores = judge_speech(audio, rows, parrot, parrot, parrot, references={"a": ones, "b": -ones})
    assert list(scores["id"]) == ["b", "a"]
    assert list(scores["wer"]) == [50.0, 50.0]
    assert list(scores["error"]) == [0.0, 50.0]
    assert list(scores["wer_edits"]) == [1, 1]
    assert list(scores["error_length"]) == [2, 2]
    assert list(scores["sim"]) == [-1.0, 1.0]
    assert list(scores["quality"]) == [8000.0, 16000.0]
    assert list(scores["seconds"]) == [0.5, 1.0]
    assert set(scores["normaliser"]) == {NORMALISER_VERSION}
    assert set(scores["judge"]) == {"parrot | parrot | parrot"}
    plain = judge_speech(audio, rows, parrot)
    assert not {"sim", "quality"} & set(plain.columns)


class DeafEar:
    id = "deaf"

    def errors(self, audio: list, texts: list, languages: list, progress: str | None = None):
        return [""] * len(audio), [Errors(0, len(text), 0, len(text)) for text in texts]


def test_an_ear_judges_code_switched_text_alone(rows: pd.DataFrame) -> None:
    ones, mixed = np.ones(RATE, np.float32), rows.assign(target_lang=["mixed", "en"])
    words = judge_speech({"a": ones, "b": ones}, mixed, Parrot())
    heard = judge_speech({"a": ones, "b": ones}, mixed, Parrot(), ear=DeafEar())
    assert list(heard["wer"]) == list(words["wer"])
    assert list(heard["error"]) == [100.0, words["error"][1]]
    assert list(heard["error_length"]) == [2, words["error_length"][1]]
    assert list(heard["phonemes"]) == ["", ""]
    assert set(heard["judge"]) == {"parrot | deaf"}


def test_missing_speech_is_an_error_never_a_skipped_row(rows: pd.DataFrame) -> None:
    ones = np.ones(RATE, np.float32)
    with pytest.raises(MissingSpeech, match=r"no speech for 1 of 2: \['b'\]"):
        judge_speech({"a": ones}, rows, Parrot())
    with pytest.raises(MissingSpeech, match="no reference recording for 2 of 2"):
        judge_speech({"a": ones, "b": ones}, rows, Parrot(), Parrot())
    broken = np.full(RATE, np.nan, np.float32)
    with pytest.raises(JudgeError, match="speech of b: holds NaN"):
        judge_speech({"a": ones, "b": broken}, rows, Parrot())
    with pytest.raises(ValueError, match="nothing to count"):
        judge_speech({"a": ones, "b": ones}, rows.assign(target_text="…"), Parrot())
    with pytest.raises(ValueError, match=r"twice: \['b'\]"):
        judge_speech({"b": ones}, rows.assign(id="b"), Parrot())
