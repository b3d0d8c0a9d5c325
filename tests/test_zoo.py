"""What the notebook of the models says of them comes from parameters, files and voices."""

import numpy as np
import pandas as pd

from intp.params import load_params
from judges import cosine
from report.zoo import described, own_and_other, part


class Voices:
    """Embeds a clip as the first two of its samples."""

    id = "first two samples"

    def embed(self, audio, progress=None):
        rows = np.stack([clip[:2] for clip in audio])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_model_s_part_is_what_the_parameters_do_with_it():
    params = load_params("mini")
    assert part("ars", params) == "mined and aligned"
    assert part(params.iterative.model, params).endswith("aligned and iterated")


def test_every_model_is_small_and_says_what_it_reads():
    models = described(load_params("mini"))
    assert list(models.index) == ["ARS", "F5-TTS", "MaskGCT", "CosyVoice 2", "Ints"]
    assert models.loc["Ints", "reads"] == "text" and models.loc["ARS", "reads"] == "phonemes"
    assert models["parameters"].between(1, 8).all() and models["megabytes"].between(2, 16).all()
    assert (models["steps"] > 0).all() and (models["hours"] > 0).all()
    assert models.loc["F5-TTS", "architecture"] == "Flow-matching TTS"


def test_other_voices_are_those_of_other_speakers():
    frame = pd.DataFrame({"id": ["a", "b", "c"], "voice": ["x", "y", "x"]})
    said = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0]), "c": np.array([1.0, 1.0])}
    own, other = own_and_other(said, frame, said, Voices())
    a, b, c = (said[name] / np.linalg.norm(said[name]) for name in "abc")
    assert np.isclose(own, 1)
    assert np.isclose(other, np.mean([cosine(a, b), cosine(c, b)]))
