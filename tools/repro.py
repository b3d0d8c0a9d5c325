"""`dvc repro` with several stages at a time: `python -m tools.repro --jobs 2`.

DVC runs one stage after another, but its processes may share a workspace. Each process here
reproduces one stage whose dependencies are done; every stage keeps to one thread (`intp.nb`), so
tables do not depend on how many run beside each other. As with `dvc repro`, a stage runs if what it
reads has changed, not because a stage before it ran.
"""

import argparse
import csv
import os
import selectors
import shutil
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter

from dvc.exceptions import DvcException
from dvc.repo import Repo
from tqdm import tqdm

from intp.params import ParamsError, load_params
from intp.paths import results

GIVEN = "data and frozen stages"


def pipeline(repo: Repo) -> tuple[list[str], dict[str, set[str]]]:
    """Data and frozen stages, which are only checked, first and together; and what each stage
    waits for."""
    stages = repo.index.graph
    given = {s for s in stages if s.frozen or s.is_data_source}
    after: dict[str, set[str]] = {GIVEN: set()} if given else {}
    for stage in stages:
        if stage not in given:
            needs = {d.addressing for d in stages[stage] if d not in given}
            after[stage.addressing] = needs | after.keys() & {GIVEN}
    return sorted(stage.addressing for stage in given), after


def settled(repo: Repo, given: list[str], after: dict[str, set[str]]) -> set[str]:
    """Stages that did not change, nor did any before them: no process needs to say so."""
    stages = {stage.addressing: stage for stage in repo.index.stages}
    done: set[str] = set()
    with repo.lock:
        for name in TopologicalSorter(after).static_order():
            members = given if name == GIVEN else [name]
            if after[name] <= done and not any(stages[member].changed() for member in members):
                done.add(name)
    return done


def urgency(waits: dict[str, set[str]], seconds: dict[str, float]) -> dict[str, float]:
    """Seconds from the start of each stage to the end of all that waits for it, by the last run."""

    @cache
    def longest(name: str) -> float:
        return seconds.get(name, 1.0) + max(map(longest, waits[name]), default=0.0)

    return {name: longest(name) for name in waits}


def recorded_seconds() -> dict[str, float]:
    """What each stage took last time, at the scale in force where that is known, else at mini."""
    known: dict[str, float] = {}
    for scale in ("mini", load_params().scale):
        path = results(scale) / "timings.csv"
        rows = csv.DictReader(path.read_text("utf-8").splitlines()) if path.is_file() else []
        known |= {row["stage"]: float(row["seconds"]) for row in rows}
    return known


def single(names: list[str]) -> None:
    """Reproduce these stages if they changed, whatever others need."""
    with Repo(_wait_for_lock=True) as repo:
        repo.reproduce(names, single_item=True)


class Lanes:
    """Processes side by side; what they say appears line by line, with their stage's name."""

    def __init__(self, total: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.bar = tqdm(total=total, unit="stage", disable=None)  # on a terminal only
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.rest, self.doing = {}, {}  # what no line end has followed yet; the last progress bar

    def start(self, name: str, stages: list[str]) -> None:
        """Reproduce `stages`, known as `name`, in a process of its own."""
        command = [sys.executable, "-m", "tools.repro", "--single", *stages]
        # Its copy of the lock of `tools.scale` guards the swap for as long as it lives.
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "close_fds": False}
        self.running[name] = process = subprocess.Popen(command, **how)
        self.rest[name] = self.doing[name] = ""
        self.selector.register(process.stdout, selectors.EVENT_READ, name)

    def finished(self) -> list[tuple[str, int]]:
        """Wait for something to be said; the processes that have ended, with their exit status."""
        names = [key.data for key, _ in self.selector.select()]
        ended = [name for name in names if not self._show(name)]
        return [(name, self._close(name)) for name in ended]

    def _show(self, name: str) -> bool:
        """Pass on what a process said; false after its last word."""
        said = os.read(self.running[name].stdout.fileno(), 1 << 16)
        *lines, rest = (self.rest[name] + said.decode("utf-8", "replace")).split("\n")
        for line in lines:
            if kept := line.rpartition("\r")[2].rstrip():
                tqdm.write(f"{name}: {kept}")
        bars = [part for part in rest.split("\r") if part.strip()]
        self.rest[name] = rest[max(rest.rfind("\r"), 0) :]  # what comes next may write over a bar
        self.doing[name] = " ".join(bars[-1].split())[:40] if bars else ""
        told = ", ".join(f"{name} {doing}".rstrip() for name, doing in self.doing.items())
        self.bar.set_postfix_str(told, refresh=False)
        self.bar.update(0)
        return bool(said)

    def _close(self, name: str) -> int:
        process = self.running.pop(name)
        self.selector.unregister(process.stdout)
        process.stdout.close()
        del self.doing[name]
        self.bar.update()
        return process.wait()


def _all_after(name: str, waits: dict[str, set[str]]) -> set[str]:
    """The stages that wait for `name`, directly or not."""
    return waits[name].union(*(_all_after(other, waits) for other in waits[name]))


def reproduce(jobs: int, keep_going: bool = False) -> list[str]:
    """Bring the pipeline up to date; returns the stages that failed.

    After a failure nothing new starts, or with `keep_going` nothing that needs the stage.
    """
    with Repo(_wait_for_lock=True) as repo:
        given, after = pipeline(repo)
        done = settled(repo, given, after)
    waiting = {name: needs for name, needs in after.items() if name not in done}
    if not waiting:
        print("nothing to do: every stage is up to date")
    waits = {name: {other for other, needs in after.items() if name in needs} for name in after}
    urgent, lanes = urgency(waits, recorded_seconds()), Lanes(len(waiting))
    failed = []
    while waiting or lanes.running:
        ready = [name for name, needs in waiting.items() if needs <= done]
        ready.sort(key=urgent.__getitem__, reverse=True)
        for name in ready[: jobs - len(lanes.running)]:
            del waiting[name]
            lanes.start(name, given if name == GIVEN else [name])
        for name, status in lanes.finished():
            if status == 0:
                done.add(name)
                continue
            failed.append(name)
            lost = _all_after(name, waits) if keep_going else waiting.keys()
            waiting = {other: needs for other, needs in waiting.items() if other not in lost}
    lanes.bar.close()
    return failed


def main() -> int:
    """The command line; 1 if a stage failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.repro", description=__doc__)
    # A stage may take 4 GB, and one at a time the GPU.
    jobs = 1 if shutil.which("nvidia-smi") else min(os.cpu_count() or 1, 4)
    parser.add_argument("--jobs", type=int, default=jobs, help=f"stages at a time ({jobs})")
    parser.add_argument("--keep-going", action="store_true", help="do what no failure prevents")
    parser.add_argument("--single", nargs="+", metavar="STAGE", help="these and nothing else")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, got {options.jobs}")
    try:
        os.chdir(Repo.find_root())
        if options.single:
            single(options.single)
            return 0
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
