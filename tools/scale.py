"""Switch scales: `python -m tools.scale use NAME`, or `… run NAME -- COMMAND` for one command.

params.yaml and dvc.lock belong to the scale in force; every other scale's record waits in
locks/<scale>.lock. Frozen stages are the same at every scale, so their entries move along. `run`
swaps back whatever happens to the command; if it is itself killed, the next call does.
`… frozen` prints the frozen stages.
"""

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ruamel.yaml import YAML

from intp.params import SCALES, ParamsError, load_params
from intp.paths import PARAMS, ROOT, WORK

PARAMS_FILE, LOCK_FILE, LOCKS = ROOT / "params.yaml", ROOT / "dvc.lock", ROOT / "locks"
ASIDE = WORK / "scale"  # what was in force before a run


class ScaleError(RuntimeError):
    """The switch would lose something, or another one is under way."""


def frozen_stages() -> list[str]:
    """Stages of dvc.yaml that are never rerun, a matrix as one name."""
    path = ROOT / "dvc.yaml"
    stages = YAML(typ="safe").load(path)["stages"] if path.is_file() else {}
    return [name for name, stage in stages.items() if stage.get("frozen")]


@contextmanager
def _exclusive() -> Iterator[int]:
    """Allow one command at a time, heal what a killed one left; yields the lock's descriptor."""
    WORK.mkdir(exist_ok=True)
    with (WORK / "scale.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ScaleError("another command of this project is running; wait for it") from error
        _swap_back()
        yield handle.fileno()


def _move(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source` in one step, or remove it where there is none."""
    if source.is_file():
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, WORK / "draft").replace(target)
    else:
        target.unlink(missing_ok=True)


def _swap_in(scale: str) -> None:
    """Put aside what is in force; the order of steps lets `_swap_back` undo any part of them."""
    draft, merged = WORK / "scale.new", WORK / "dvc.lock"
    shutil.rmtree(draft, ignore_errors=True)
    for path in (PARAMS_FILE, LOCK_FILE):
        _move(path, draft / path.name)
    draft.rename(ASIDE)
    yaml, record, frozen = YAML(), {}, frozen_stages()
    for path, take_frozen in ((LOCKS / f"{scale}.lock", False), (LOCK_FILE, True)):
        stages = yaml.load(path)["stages"] if path.is_file() else {}
        record |= {n: s for n, s in stages.items() if (n.split("@")[0] in frozen) == take_frozen}
    merged.unlink(missing_ok=True)
    if record:
        yaml.dump({"schema": "2.0", "stages": record}, merged)
    _move(merged, LOCK_FILE)
    _move(PARAMS / f"{scale}.yaml", PARAMS_FILE)


def _swap_back() -> None:
    """Undo `_swap_in`, keeping the record that the swapped-in scale made."""
    if ASIDE.is_dir():
        if PARAMS_FILE.read_bytes() != (ASIDE / PARAMS_FILE.name).read_bytes():
            _move(LOCK_FILE, LOCKS / f"{load_params().scale}.lock")
            _move(ASIDE / PARAMS_FILE.name, PARAMS_FILE)
        _move(ASIDE / LOCK_FILE.name, LOCK_FILE)
        shutil.rmtree(ASIDE)


def use(scale: str) -> None:
    """Put `scale` in force. Raises ScaleError where an edit of params.yaml would be lost."""
    with _exclusive():
        load_params(scale)
        now = load_params().scale
        if PARAMS_FILE.read_bytes() != (PARAMS / f"{now}.yaml").read_bytes():
            raise ScaleError(f"params.yaml differs from params/{now}.yaml: keep your edit there")
        if scale != now:
            _swap_in(scale)
            _move(ASIDE / LOCK_FILE.name, LOCKS / f"{now}.lock")
            shutil.rmtree(ASIDE)


def run(scale: str, command: list[str]) -> int:
    """Run `command` from the root at `scale`, signals passed on; returns its exit status."""
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            if child is not None and child.returncode is None:
                os.killpg(child.pid, number)

    with _exclusive() as lock:
        load_params(scale)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, forward)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        settings = {"cwd": ROOT, "env": os.environ | {"PATH": path}, "process_group": 0}
        try:
            if scale != load_params().scale:
                _swap_in(scale)
            elif PARAMS_FILE.read_bytes() != (PARAMS / f"{scale}.yaml").read_bytes():
                print(
                    f"params.yaml and params/{scale}.yaml differ: this run reads params.yaml",
                    file=sys.stderr,
                )
            # The child holds the lock too: nobody swaps back under a command that outlived us.
            child = subprocess.Popen(command, pass_fds=[lock], **settings)
            status = child.wait()
        finally:
            _swap_back()
    return status if status >= 0 else 128 - status


def main() -> int:
    """The command line; 2 for a bad name or a switch that is refused."""
    parser = argparse.ArgumentParser(prog="python -m tools.scale", description=__doc__)
    parser.add_argument("action", choices=("use", "run", "frozen"))
    parser.add_argument("scale", nargs="?", choices=SCALES, default="mini")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="after --")
    options = parser.parse_args()
    try:
        if options.action == "run":
            return run(options.scale, options.command[options.command[:1] == ["--"] :])
        if options.action == "use":
            use(options.scale)
        else:
            print(*frozen_stages())
    except (ParamsError, ScaleError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
