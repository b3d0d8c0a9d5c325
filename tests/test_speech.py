"""Synthesis and mining killed anywhere end in the same speech and the same pair file, byte for byte."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from intp import speech
from intp.mine import judge_answers, mine, write_parquet
from intp.models import load_adapter
from intp.params import load_params
from intp.prompts import held_out_prompts

SAMPLINGS = [{"temperature": t, "top_k": 20, "top_p": 1.0, "max_seconds": 4.0} for t in (0.6, 1.4)]
PARAMS = load_params("smoke")
PROMPTS = held_out_prompts("development", 4, ["regular"])


def spoken(out: Path, work: Path, patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Every file of the speech of PROMPTS, in shards of three answers."""
    patch.setattr(speech, "SHARD", 3)
    patch.setattr(speech, "WORK", work)
    adapter = load_adapter("ars", PARAMS)
    speech.synthesise_shards(adapter, "ars", PROMPTS, SAMPLINGS, 0, out)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def pairs(folder: Path, out: Path) -> bytes:
    """The pair file mined from a folder of speech."""
    write_parquet(
        mine(judge_answers({"ars": folder}, PROMPTS, PARAMS, progress=False), PARAMS), out
    )
    return out.read_bytes()


def dying(call: Callable, left: Iterator, late: bool) -> Callable:
    """`call` as long as `left` lasts, then killed: before it did anything, or after (`late`)."""

    def called(*arguments: object, **options: object) -> None:
        alive = next(left, None) is not None
        if alive or late:
            call(*arguments, **options)
        if not alive:
            raise KeyboardInterrupt

    return called


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], bytes]:
    """Speech and pairs of a run that nobody killed."""
    home = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        files = spoken(home / "speech", home / "work", patch)
    return files, pairs(home / "speech", home / "pairs.parquet")


def test_speech_killed_three_times_is_the_same(
    whole: tuple[dict[str, bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files, mined = whole
    draw = Random(0)
    for _ in range(3):
        left, late = iter(range(draw.randrange(3))), draw.random() < 0.5
        with monkeypatch.context() as patch:
            patch.setattr(speech, "write_shard", dying(speech.write_shard, left, late))
            with pytest.raises(KeyboardInterrupt):
                spoken(tmp_path / "speech", tmp_path / "work", patch)
        assert not (tmp_path / "speech").exists(), "what is half is not at its place"
    assert spoken(tmp_path / "speech", tmp_path / "work", monkeypatch) == files
    assert pairs(tmp_path / "speech", tmp_path / "pairs.parquet") == mined


@pytest.mark.parametrize(
    ("step", "late"), [("concat", False), ("unlink", True), ("rmtree", True), ("move", False)]
)
def test_speech_killed_while_it_is_put_in_place_is_the_same(
    whole: tuple[dict[str, bytes], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    late: bool,
):
    where = {"concat": speech.pd, "unlink": Path}.get(step, speech.shutil)
    (tmp_path / "speech").mkdir()  # of an earlier run
    with monkeypatch.context() as patch:
        patch.setattr(where, step, dying(getattr(where, step), iter(()), late))
        with pytest.raises(KeyboardInterrupt):
            spoken(tmp_path / "speech", tmp_path / "work", patch)
    if step != "concat":  # nothing is spoken twice
        monkeypatch.setattr(speech, "write_shard", dying(speech.write_shard, iter(()), False))
    assert spoken(tmp_path / "speech", tmp_path / "work", monkeypatch) == whole[0]


def test_a_killed_mining_leaves_the_old_pair_file(
    whole: tuple[dict[str, bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, out = tmp_path / "speech", tmp_path / "pairs.parquet"
    folder.mkdir()
    for name, content in whole[0].items():
        (folder / name).write_bytes(content)
    assert pairs(folder, out) == whole[1]
    for step in ("intra_pairs", "inter_pairs", "check_pairs"):
        with monkeypatch.context() as patch:
            patch.setattr(f"intp.mine.{step}", dying(print, iter(()), late=False))
            with pytest.raises(KeyboardInterrupt):
                pairs(folder, out)
        assert out.read_bytes() == whole[1]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.parquet", "speech"]
    assert pairs(folder, out) == whole[1]
