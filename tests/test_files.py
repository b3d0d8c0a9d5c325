"""A file is there whole or not at all, and nothing is left beside it."""

from pathlib import Path

import pytest
import torch

from intp.files import whole


def test_a_file_appears_when_it_is_written_and_its_folder_with_it(tmp_path: Path):
    path = tmp_path / "new" / "table.csv"
    with whole(path) as partial:
        partial.write_text("all", "utf-8")
        assert partial.parent == path.parent and not path.exists()
        assert not list(path.parent.glob("*.csv"))
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]
    assert path.read_text("utf-8") == "all"


def fail(path: Path, error: type[BaseException]) -> None:
    with whole(path) as partial:
        partial.write_text("half", "utf-8")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "table.csv"
    path.write_text("old", "utf-8")
    with pytest.raises(error):
        fail(path, error)
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text("utf-8") == "old"


def test_files_of_one_stem_and_writers_of_one_file_do_not_meet(tmp_path: Path):
    files = [(tmp_path / name, "") for name in ("a.csv", "a.json", "a")]
    drafts = []
    for path, writer in [*files, (tmp_path / "a.csv", "-1"), (tmp_path / "a.csv", "-2")]:
        with whole(path, writer) as partial:
            drafts.append(partial)
            partial.touch()
    assert len(set(drafts)) == 5


def test_what_torch_saves_does_not_tell_that_it_had_another_name(tmp_path: Path):
    torch.save({"a": 1}, tmp_path / "last.pt")
    plain = (tmp_path / "last.pt").read_bytes()
    with whole(tmp_path / "last.pt") as partial:
        torch.save({"a": 1}, partial)
    assert (tmp_path / "last.pt").read_bytes() == plain
