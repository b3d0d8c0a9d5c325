"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path, writer: str = "") -> Iterator[Path]:
    """A file beside `path` to write to: it takes the place of `path` if the block ends well, and is
    gone if it does not. The folder is made. `writer` tells apart those who may write `path` at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The stem stays, since torch.save writes it into the file; no pattern finds such a suffix; and
    # what a killed run left has the same name, so that the next run writes over it.
    partial = path.with_suffix(f".partial{path.suffix.replace('.', '-')}{writer}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
