"""Regenerate data/ (but for data/corpus) from packages: `texts`, then `references`, `recordings`.

    python tools/build_data.py texts
    python tools/build_data.py references
    python tools/build_data.py recordings --limit 14

Recording is resumable: what has been spoken is kept in .work/recordings/, and `recordings
--limit 0` only puts the shards together from it.
"""

import argparse

from build_texts import SIZES, build_texts
from record import PARTS, build_recordings, build_references


def main() -> None:
    """Read the command line and run one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("texts", "references", "recordings"))
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument(
        "--limit",
        type=int,
        default=max(count for count, _ in SIZES.values()),
        help="recordings: items a direction, in the order of the items (default: all)",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="recordings: of")
    options = parser.parse_args()
    if options.step == "texts":
        build_texts()
    elif options.step == "references":
        build_references(options.workers)
    else:
        build_recordings(options.workers, options.limit, options.parts)


if __name__ == "__main__":
    main()
