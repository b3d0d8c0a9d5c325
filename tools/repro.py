"""`dvc repro` with several stages at a time: `python -m tools.repro --jobs 2`.

DVC runs one stage after another, but its processes may share a workspace. Each process here
reproduces one stage whose dependencies are done; every stage keeps to one thread (`intp.nb`), so
tables do not depend on how many run beside each other. A stage is forced if one it depends on ran:
`--force-downstream` of `dvc repro`.
"""

import argparse
import csv
import os
import selectors
import sys
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.ui import ui
from tqdm import tqdm

from intp.params import ParamsError, load_params
from intp.paths import ROOT, results

UNCHANGED = 3  # exit status of a process that found nothing to do
FORK = get_context("fork")  # DVC is imported once


def pipeline(repo: Repo) -> tuple[list[str], dict[str, set[str]]]:
    """Data and frozen stages, which are only checked, and what each other stage waits for."""
    stages = repo.index.graph
    given = {s for s in stages if s.frozen or s.is_data_source}
    after = {s.addressing: {d.addressing for d in stages[s] if d not in given} for s in stages}
    names = sorted(stage.addressing for stage in given)
    return names, {name: needs for name, needs in after.items() if name not in names}


def urgency(after: dict[str, set[str]], seconds: dict[str, float]) -> dict[str, float]:
    """Seconds from the start of each stage to the end of all that waits for it, by the last run."""
    before = {name: {n for n, needs in after.items() if name in needs} for name in after}

    @cache
    def longest(name: str) -> float:
        return seconds.get(name, 1.0) + max(map(longest, before[name]), default=0.0)

    return {name: longest(name) for name in after}


def recorded_seconds() -> dict[str, float]:
    """What each stage took last time at the scale in force."""
    path = results(load_params().scale) / "timings.csv"
    rows = csv.DictReader(path.read_text("utf-8").splitlines()) if path.is_file() else []
    return {row["stage"]: float(row["seconds"]) for row in rows}


def _reproduce(names: list[str], force: bool, out: int) -> None:
    os.dup2(out, 1)
    os.dup2(out, 2)
    ui.enable()
    try:
        with Repo(_wait_for_lock=True) as repo:
            ran = repo.reproduce(names, single_item=True, force=force)
    except DvcException as error:
        sys.exit(f"ERROR: {error}")
    sys.exit(0 if ran else UNCHANGED)


class Lanes:
    """Processes side by side; what they say appears line by line, with their stage's name."""

    def __init__(self, total: int) -> None:
        self.selector, self.bar = selectors.DefaultSelector(), tqdm(total=total, unit="stage")
        self.running: dict[str, tuple[BaseProcess, int]] = {}
        self.rest, self.doing = {}, {}  # what no line end has followed yet; the last progress bar

    def start(self, name: str, stages: list[str], force: bool) -> None:
        """Reproduce `stages`, known as `name`, in a process of its own."""
        reads, writes = os.pipe()
        process = FORK.Process(target=_reproduce, args=(stages, force, writes))
        process.start()
        os.close(writes)
        os.set_blocking(reads, False)
        self.running[name], self.rest[name], self.doing[name] = (process, reads), "", ""
        self.selector.register(process.sentinel, selectors.EVENT_READ, name)
        self.selector.register(reads, selectors.EVENT_READ, name)

    def finished(self) -> list[tuple[str, int]]:
        """Wait for something to happen; the processes that have ended, with their exit status."""
        names = {key.data for key, _ in self.selector.select()}
        for name in names:
            self._show(name)
        ended = [name for name in names if self.running[name][0].exitcode is not None]
        return [(name, self._close(name)) for name in ended]

    def _show(self, name: str) -> None:
        pipe = self.running[name][1]
        said = b""
        try:
            while block := os.read(pipe, 1 << 16):
                said += block
            self.selector.unregister(pipe)
        except (BlockingIOError, KeyError):
            pass
        *lines, self.rest[name] = (self.rest[name] + said.decode("utf-8", "replace")).split("\n")
        for line in lines:
            if kept := line.rpartition("\r")[2].rstrip():
                tqdm.write(f"{name}: {kept}")
        bars = [part for part in self.rest[name].split("\r") if part.strip()]
        self.rest[name] = bars[-1] if bars else ""
        self.doing[name] = " ".join(self.rest[name].split())[:40]
        told = ", ".join(f"{name} {doing}".rstrip() for name, doing in self.doing.items())
        self.bar.set_postfix_str(told, refresh=False)
        self.bar.update(0)

    def _close(self, name: str) -> int:
        self._show(name)
        process, pipe = self.running.pop(name)
        self.selector.unregister(process.sentinel)
        if pipe in self.selector.get_map():
            self.selector.unregister(pipe)
        os.close(pipe)
        del self.doing[name]
        self.bar.update()
        return process.exitcode


def _all_after(name: str, after: dict[str, set[str]]) -> set[str]:
    """The stages that need `name`, directly or not."""
    direct = {other for other, needs in after.items() if name in needs}
    return direct.union(*(_all_after(other, after) for other in direct))


def reproduce(jobs: int, keep_going: bool = False) -> list[str]:
    """Bring the pipeline up to date; returns the stages that failed.

    After a failure nothing new starts, or with `keep_going` nothing that needs the stage.
    """
    with Repo() as repo:
        given, after = pipeline(repo)
    urgent, waiting, forced = urgency(after, recorded_seconds()), dict(after), set()
    done, failed, lanes = set(), [], Lanes(len(after) + 1)
    lanes.start("data", given, force=False)
    while lanes.running:
        for name, status in lanes.finished():
            if status in (0, UNCHANGED):
                done.add(name)
                forced |= {n for n, needs in after.items() if status == 0 and name in needs}
                continue
            failed.append(name)
            alive = keep_going and name in after
            waiting = {n: waiting[n] for n in waiting if alive and n not in _all_after(name, after)}
        ready = [n for n, needs in waiting.items() if "data" in done and needs <= done]
        ready.sort(key=urgent.__getitem__, reverse=True)
        for name in ready[: jobs - len(lanes.running)]:
            del waiting[name]
            lanes.start(name, [name], name in forced)
    lanes.bar.close()
    return failed


def main() -> int:
    """The command line; 1 if a stage failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.repro", description=__doc__)
    cores = min(os.cpu_count() or 1, 4)  # a stage may take 4 GB
    parser.add_argument("--jobs", type=int, default=cores, help=f"stages at a time ({cores})")
    parser.add_argument("--keep-going", action="store_true", help="do what no failure prevents")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, got {options.jobs}")
    tqdm.monitor_interval = 0  # a thread, which would not survive a fork
    os.chdir(ROOT)
    try:
        failed = reproduce(options.jobs, options.keep_going)
    except (DvcException, ParamsError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if failed:
        print(f"failed: {', '.join(failed)}; see above; run again to go on", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
