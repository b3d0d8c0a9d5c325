"""Shards give back what was put in, FLAC byte for byte the same each time."""

import numpy as np
import pytest

from intp.corpus import read_audio, read_manifest, write_shard


def sounds() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        f"s{i}": (0.1 * generator.standard_normal(8000 + i)).astype(np.float32) for i in range(3)
    }


@pytest.mark.parametrize(("form", "tolerance"), [("flac", 1e-4), ("opus", 1.0)])
def test_a_shard_gives_back_its_audio(tmp_path, form: str, tolerance: float):
    write_shard(tmp_path / "a.tar", iter(sounds().items()), 16_000, form)
    found = dict(read_audio(tmp_path))
    assert found.keys() == sounds().keys()
    for name, samples in sounds().items():
        assert len(found[name]) == pytest.approx(len(samples), abs=2)
        if form == "flac":
            assert np.abs(found[name] - samples).max() < tolerance
    assert dict(read_audio(tmp_path, {"s1"})).keys() == {"s1"}


def test_a_shard_of_another_rate_is_resampled_and_a_missing_folder_is_named(tmp_path, caplog):
    tone = np.sin(np.arange(24_000) / 30).astype(np.float32)
    write_shard(tmp_path / "shard.tar", iter([("tone", tone)]), 24_000, "flac")
    found = dict(read_audio(tmp_path))["tone"]
    assert len(found) == 16_000 and "shard.tar:tone.flac: resampled from 24000" in caplog.text
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dict(read_audio(tmp_path / "nowhere"))


def test_flac_shards_are_byte_stable(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar", iter(sounds().items()), 16_000, "flac")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_missing_or_malformed_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest.jsonl"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(ValueError, match=r"manifest.jsonl:1"):
        read_manifest(tmp_path)
