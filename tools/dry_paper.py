"""Walk `params/paper.yaml` end to end on tiny random checkpoints: `make dry-paper`.

In a copy of the tree under .work/dry-paper, with checkpoints and judges written in the published
layouts (tools/tiny), every stage of dvc.yaml runs its own command at scale `paper`, the language
model is a server on this machine, and upstream's packages are stand-ins. What comes out are tables
whose note says *random weights*: the path is tested, no number means anything. Nothing outside
.work/dry-paper is written.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from dvc.repo import Repo
from dvc.stage import PipelineStage
from ruamel.yaml import YAML

from intp.mining import selected
from intp.params import Params, read_params
from intp.paths import DATA, PARAMS, ROOT, WORK
from texts.targets import build_backend
from tools.tiny import judges, models
from tools.tiny.endpoint import served

WALK = WORK / "dry-paper"
NOTE = "random weights"
LEFT_OUT = ("store/", "results/", "tests/", "docs/", ".dvc/", "locks/")
KEPT = ("results/paper/", "results/pretraining")  # no stage of this scale makes them
NOTEBOOKS = {
    "intp.adapters.ar": "04_dpo_ar",
    "intp.adapters.flow_matching": "05_dpo_flow_matching",
    "intp.adapters.masked": "06_dpo_masked",
}
# Words and characters that the random recognisers may say: some are in the texts, so errors differ.
WORDS = (
    "the",
    "a",
    "to",
    "is",
    "I",
    "you",
    "of",
    "and",
    "in",
    "it",
    "my",
    "he",
    "was",
    "for",
    "we",
)
CHARACTERS = "的一是我不了在有人他这你们来上大"
SMALL = {"prompts.mining": 1, "prompts.development": 1, "prompts.evaluation": 1}
SMALL |= {"statistics.resamples": 200}
SMALL |= {"mining.clamp": 10_000.0}  # random answers are all babble: at 100 % few or none differ


@dataclass(frozen=True)
class Step:
    """One command, the files it makes and reads (from the root), and the stage it comes from."""

    name: str
    command: str
    outs: tuple[str, ...] = ()
    deps: tuple[str, ...] = ()
    frozen: bool = False


def overrides(endpoint: str, every: bool = False) -> dict[str, object]:
    """What differs from params/paper.yaml: the endpoint's address, sizes and the clamp, by dotted
    name; unless `every`, of each group of ablations only the first run."""
    paper = YAML(typ="safe").load((PARAMS / "paper.yaml").read_text("utf-8"))
    published = paper["models"]
    sizes = {f"models.{m}.config": published[m]["config"] | s for m, s in models.SIZES.items()}
    runs = {
        f"runs.{m}": first_of_each(names, paper["variants"]) for m, names in paper["runs"].items()
    }
    runs = {name: few for name, few in runs.items() if few != paper["runs"][name.partition(".")[2]]}
    return {"prompts.endpoint": endpoint} | SMALL | sizes | ({} if every else runs)


def first_of_each(names: list[str], variants: Mapping[str, Mapping]) -> list[str]:
    """The runs without a group, and the first of each group."""
    groups = [variants[name].get("group") for name in names]
    return [n for i, n in enumerate(names) if groups[i] is None or groups[i] not in groups[:i]]


def write_params(path: Path, changes: Mapping[str, object]) -> Params:
    """params/paper.yaml with `changes` as `path`; returns it, checked."""
    yaml = YAML()
    values = yaml.load(PARAMS / "paper.yaml")
    for name, value in changes.items():
        *above, last = name.split(".")
        block = values
        for key in above:
            block = block[key]
        block[last] = value
    yaml.dump(values, path)
    return read_params(path)


def copy_tree(tree: Path) -> None:
    """What git keeps, but for new results, tests and the store; data/ is a link, as nobody writes there."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, done.stdout.split("\0")):
        wanted = name.startswith(KEPT) or not name.startswith(LEFT_OUT)
        if wanted and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    (tree / "data").symlink_to(DATA)
    (tree / ".dvc").mkdir()
    (tree / ".dvc" / "config").write_text("[core]\n  no_scm = true\n  analytics = false\n")


def write_parts(tree: Path, params: Params) -> None:
    """Checkpoints and judges under the names that the parameters have for them."""
    checkpoints = tree / "checkpoints"
    models.write_all(checkpoints, params)
    judges.whisper(checkpoints / params.judges.recogniser, [f" {w}" for w in WORDS], ending=3.0)
    judges.paraformer(checkpoints / params.judges.recogniser_zh, CHARACTERS)
    judges.wavlm_tdnn(checkpoints / "wavlm_large_finetune.pth")
    hub = tree.parent / "torch" / "hub" / "tarepan_SpeechMOS_v1.2.0"
    shutil.copytree(models.STAND_INS / "hub", hub)


def environment(tree: Path) -> dict[str, str]:
    """What the commands find: the copy's code first, stand-ins of upstream's packages, no network."""
    folders = [tree / "src", tree, models.STAND_INS / "site"]
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "TORCH_HOME": str(tree.parent / "torch"),
        "HF_HUB_OFFLINE": "1",
        "INTP_LLM_KEY": "none-is-needed",
        "no_proxy": "*",
    }


def stages(tree: Path) -> list[Step]:
    """The stages of dvc.yaml as DVC expands them with the copy's parameters, in their order."""
    with Repo(str(tree)) as repo:
        found = [s for s in repo.index.stages if isinstance(s, PipelineStage)]
        return [
            Step(
                s.name,
                str(s.cmd),
                tuple(out.def_path for out in s.outs),
                tuple(dep.def_path for dep in s.deps),
                s.frozen,
            )
            for s in found
        ]


def needed(params: Params) -> list[Step]:
    """What the tables of all models need: speech of the mined ones, scores of all, each run."""
    made = []
    for model in params.mining.models:
        out = f"runs/paper/speech/{model}"
        prompts = "runs/paper/prompts/mining.parquet"
        command = f"python -m intp.speech --model {model} --prompts {prompts} --out {out}"
        made.append(Step(f"speech@{model}", command, (out,)))
    for model, variants in params.runs.items():
        scores, prompts = "results/paper/scores", "runs/paper/prompts/evaluation.parquet"
        command = f"python -m intp.evaluate --model {model} --prompts {prompts} --out {scores}"
        command += f" --speech runs/paper/spoken/{model}-base"
        made.append(Step(f"base@{model}", command, (f"{scores}/{model}-base.csv",)))
        notebook = NOTEBOOKS[params.models[model].adapter.partition(":")[0]]
        for variant in variants:
            command = f"python -m intp.nb notebooks/{notebook}.ipynb --name {model}-{variant}"
            command += f" -p model={model} -p variant={variant}"
            made.append(
                Step(f"dpo@{model}-{variant}", command, (f"{scores}/{model}-{variant}.csv",))
            )
    return made


def plan(tree: Path, params: Params) -> list[Step]:
    """dvc.yaml's stages, and behind those of their kind the commands for models it has none for."""
    steps = stages(tree)
    known = {out for step in steps for out in step.outs}
    for extra in needed(params):
        if extra.outs[0] in known:
            continue
        folder = str(Path(extra.outs[0]).parent)
        place = max(
            i for i, s in enumerate(steps) if folder in {str(Path(o).parent) for o in s.outs}
        )
        steps.insert(place + 1, extra)
        print(f"no stage of dvc.yaml makes {extra.outs[0]}: walked as {extra.name}")
    return steps


def unwalkable(step: Step, tree: Path, params: Params) -> str | None:
    """Why a step cannot run here, or None."""
    if step.frozen:
        return "a frozen stage: the checkpoints are the published ones"
    scores = [Path(o).stem for o in step.outs if o.startswith("results/paper/scores/")]
    variant = (scores or [""])[0].partition("-")[2]
    if variant not in params.variants:
        return None
    pairs = pd.read_parquet(tree / "runs" / "paper" / "pairs.parquet")
    if selected(pairs, params.variants[variant]).empty:
        return f"none of the {len(pairs)} pairs of random answers is one for variant {variant}"
    return None


def walk(step: Step, tree: Path, log: Path) -> str:
    """Run one step; "" if it went well, else what its own closing assertion said.

    Random weights may fail what a notebook asserts of its numbers, once all outputs are there; that
    is told. Raises SystemExit with the end of the log for any other failure.
    """
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            step.command, shell=True, cwd=tree, env=environment(tree) | {"DVC_STAGE": step.name},
            stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    lost = [out for out in step.outs if not (tree / out).exists()]
    if done.returncode == 0 and not lost:
        return ""
    lines = log.read_text("utf-8").splitlines()
    asserted = [line for line in lines if "AssertionError" in line]
    if lost or not asserted:
        raise SystemExit("\n".join([*lines[-30:], f"{step.name} failed; all of it: {log}"]))
    failed = [line.partition(" assert ")[2] for line in lines if line.startswith("----> ")]
    return f"all outputs made; its last cell does not hold of random weights: {failed[-1:]}"


def computed() -> float:
    """Seconds that this process and its finished children have computed; others may share a core."""
    return sum(os.times()[:4])


def marked_tables(tree: Path, out: Path) -> list[Path]:
    """The tables, `note` saying what they are made of, moved to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for path in sorted((tree / "results" / "paper" / "tables").glob("*.csv")):
        made.append(out / path.name)
        pd.read_csv(path).assign(note=NOTE).to_csv(made[-1], index=False, lineterminator="\n")
    return made


def show(path: Path) -> None:
    """A table as people read it, cut to the width of a page."""
    frame = pd.read_csv(path)
    print(f"\n{path.name}: {NOTE}")
    columns = [c for c in frame["column"].unique() if c in MAIN] or list(frame["column"].unique())[
        :6
    ]
    wide = frame[frame["column"].isin(columns)].pivot(index="row", columns="column", values="value")
    print(wide.reindex(index=frame["row"].unique(), columns=columns).to_string(max_colwidth=40))


MAIN = {f"{s} WER" for s in ("regular", "articulatory", "code-switching", "cross-lingual", "avg")}


def main() -> None:
    """Walk all of it; exits with 1 at the first step that fails."""
    parser = argparse.ArgumentParser(prog="python -m tools.dry_paper", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every ablation, not one of each group")
    parser.add_argument("--resume", action="store_true", help="go on in the copy that is there")
    options = parser.parse_args()
    began = time.monotonic()
    tree, logs = WALK / "tree", WALK / "logs"
    if not options.resume:
        shutil.rmtree(WALK, ignore_errors=True)
        copy_tree(tree)
    logs.mkdir(exist_ok=True)
    rules = build_backend("rules", 0, DATA / "sentences.jsonl", WALK)
    with served(rules) as endpoint:
        changes = overrides(endpoint, options.all)
        params = write_params(tree / "params.yaml", changes)
        print("params/paper.yaml, but for")
        for name, value in changes.items():
            print(f"  {name}: {value}")
        if not options.resume:
            write_parts(tree, params)
        print(f"tiny random checkpoints and judges: {time.monotonic() - began:.0f} s", flush=True)
        for step in plan(tree, params):
            absent = [d for d in step.deps if not step.frozen and not (tree / d).exists()]
            for name in absent:
                print(f"{step.name}: dvc.yaml asks for {name}, which no one makes at this scale")
            if reason := unwalkable(step, tree, params):
                print(f"{step.name}: skipped, {reason}", flush=True)
                continue
            if options.resume and step.outs and all((tree / o).exists() for o in step.outs):
                continue
            start, used = time.monotonic(), computed()
            said = walk(step, tree, logs / f"{step.name}.log")
            times = f"{time.monotonic() - start:.0f} s ({computed() - used:.0f} s of one core)"
            print(f"{step.name}: {times} {said}", flush=True)
    for path in marked_tables(tree, WALK / "tables"):
        show(path)
    times = f"{time.monotonic() - began:.0f} s ({computed():.0f} s of one core)"
    print(f"\n{times}; all of it in {WALK.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
