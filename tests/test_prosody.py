"""Pauses and the spread of the voice, on sounds whose answer is known and on real speech."""

import numpy as np
import pytest

from intp.audio import SAMPLE_RATE
from intp.corpus import read_audio
from intp.evaluate import judge
from intp.params import load_params
from intp.paths import DATA
from intp.prompts import held_out_prompts
from judges.prosody import f0_spread, of_audio, pause_share


def tone(seconds: float, low: float = 120.0, high: float = 120.0) -> np.ndarray:
    """A harmonic sound whose pitch moves from `low` to `high`, evenly in semitones."""
    pitch = np.geomspace(low, high, int(seconds * SAMPLE_RATE))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    return sum(np.sin(k * phase) / k for k in range(1, 6)).astype(np.float32) * 0.2


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def test_a_pause_is_silence_between_sounds():
    speech = np.concatenate([silence(0.5), tone(1.0), silence(0.5), tone(0.5), silence(1.0)])
    assert pause_share(speech) == pytest.approx(25, abs=4)  # 0.5 of 2 s, give or take two frames
    assert pause_share(10 * speech) == pytest.approx(pause_share(speech))
    assert pause_share(np.concatenate([tone(1.0), silence(0.08), tone(1.0)])) == 0
    assert pause_share(silence(1.0)) == 0


def test_a_glide_of_an_octave_spreads_as_far_as_an_even_distribution():
    assert f0_spread(tone(1.0)) < 0.3
    assert f0_spread(tone(1.5, 110, 220)) == pytest.approx(12 / np.sqrt(12), abs=0.4)


def test_what_has_no_pitch_has_no_spread():
    assert np.isnan(f0_spread(silence(0.5)))


def test_real_speech_has_both():
    names = {f"eval-regular-{lang}-{i:03d}" for lang in ("en", "zh") for i in range(2)}
    audio = dict(read_audio(DATA / "evaluation" / "recordings", names))
    found = of_audio(audio)
    assert set(found["id"]) == names
    assert found["f0_spread"].between(1, 8).all()  # monotonous to lively
    assert found["pause_share"].between(0, 60).all() and (found["pause_share"] > 0).any()


def test_what_is_judged_has_its_prosody_beside_it_unless_recognition_alone_is_asked_for():
    params = load_params("smoke")
    frame = held_out_prompts("evaluation", 1, ["regular"]).query("direction == 'en'")
    audio = dict(read_audio(DATA / "evaluation" / "recordings", set(frame["id"])))
    judged = judge(audio, frame, params).iloc[0]
    assert judged["f0_spread"] == f0_spread(audio[judged["id"]])
    assert judged["pause_share"] == pause_share(audio[judged["id"]])
    assert "f0_spread" not in judge(audio, frame, params, quality=False)
