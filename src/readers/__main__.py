"""Sets into our files, and ours into a folder for the hub.

python -m readers NAME SOURCE --out DIR                     a set of docs/your-own-pairs.md
python -m readers export --pairs FILE --prompts FILE --speech MODEL=DIR … --out DIR --licence ID
"""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd

from intp.prompts import read_prompts
from readers.export import export
from readers.reading import Rules
from readers.rows import ReadError
from readers.sets import SETS, read_set


def named(text: str) -> tuple[str, str]:
    """OURS=THEIRS or MODEL=DIR."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m readers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, kind in SETS.items():
        sub = names.add_parser(name, help=kind.rows.__doc__.split("\n")[0])
        sub.add_argument("source", type=Path)
        sub.add_argument("--out", type=Path, required=True)
        licence = {"default": kind.licence} if kind.licence else {"required": True}
        sub.add_argument("--licence", help="of what is read", **licence)
        sub.add_argument(
            "--leave-out", action="store_true", help="list rows at fault, read the rest"
        )
        sub.add_argument(
            "--split", default=kind.split, choices=("mining", "development", "evaluation")
        )
        sub.add_argument("--seed", type=int, default=0)
        longest = {"reference": (0.0, kind.longest_reference)}
        for what in ("reference", "target", "answer"):
            usual = longest.get(what, getattr(Rules(), f"{what}_seconds"))
            two = {"nargs": 2, "type": float, "metavar": ("LOW", "HIGH")}
            sub.add_argument(f"--{what}-seconds", default=usual, **two)
        sub.add_argument(
            "--per-direction", type=int, help="prompts drawn from a corpus, a direction"
        )
        sub.add_argument("--directions", nargs="+", default=[], metavar="en2zh")
        sub.add_argument("--columns", nargs="+", type=named, default=[], metavar="OURS=THEIRS")
        sub.add_argument("--ignore", nargs="+", default=[], metavar="COLUMN")
    sub = names.add_parser("export", help="pairs into Hugging Face datasets' layout")
    for what in ("pairs", "prompts", "out"):
        sub.add_argument(f"--{what}", type=Path, required=True)
    sub.add_argument("--speech", nargs="+", type=named, required=True, metavar="MODEL=DIR")
    sub.add_argument("--licence", required=True, help="as the hub spells it: cc-by-sa-4.0")
    return parser.parse_args()


def main() -> str:
    """Do what the command line says; returns what was done."""
    given = parse()
    # Every recording may be of two channels; the README says what was done to them.
    logging.getLogger("intp.audio").setLevel(logging.ERROR)
    if given.name == "export":
        pairs, speech = pd.read_parquet(given.pairs), {m: Path(d) for m, d in given.speech}
        export(pairs, read_prompts(given.prompts), speech, given.out, given.licence, progress=True)
        return f"{given.out}: {len(pairs)} pairs"
    options = {f.name: getattr(given, f.name) for f in fields(Rules)}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    rules = Rules(**options | {"columns": dict(given.columns)})
    keep = {"leave_out": given.leave_out, "progress": True}
    found = read_set(given.name, given.source, given.out, rules, given.licence, **keep)
    left = f", {len(found.faults)} rows left out" if found.faults else ""
    return f"{given.out}: {len(found.prompts)} prompts, {len(found.pairs)} pairs{left}"


if __name__ == "__main__":
    try:
        print(main())
    except (ReadError, OSError) as error:
        sys.exit(str(error))
