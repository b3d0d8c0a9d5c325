"""Does dvc.lock tell the truth? `python -m tools.verify [STAGE]` reruns one stage and compares.

The stage, picked at random if none is named, runs in a scratch copy of the project, on the inputs
that dvc.lock recorded for it; neither the project nor its record is touched.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from intp.paths import ROOT, WORK
from tools.scale import frozen_stages


class VerifyError(RuntimeError):
    """The stage could not be rerun on its recorded inputs."""


def recorded(root: Path) -> dict[str, dict[str, Any]]:
    """What dvc.lock says of every stage that is not frozen."""
    path, frozen = root / "dvc.lock", frozen_stages()
    stages = YAML(typ="safe").load(path)["stages"] if path.is_file() else {}
    return {name: stage for name, stage in stages.items() if name.split("@")[0] not in frozen}


def scratch_copy(folder: Path) -> None:
    """What git knows of the working tree, with a DVC that reads this project's cache."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.split("\0"):
        if (ROOT / name).is_file() and not name.startswith("store/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    config = {"core.no_scm": "true", "cache.dir": str(ROOT / ".dvc" / "cache")}
    for name, value in (config | {"cache.type": "hardlink,copy"}).items():
        dvc(folder, "config", "--local", name, value)


def dvc(folder: Path, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run DVC in a copy of the project, on the code of that copy."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    settings = {"PATH": path, "PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | settings, text=True, **how)


def rerun(name: str, folder: Path) -> pd.DataFrame:
    """The stage's outputs, recorded and rerun. Raises VerifyError, or KeyError for its name."""
    before = recorded(ROOT)[name]
    scratch_copy(folder)
    dvc(folder, "checkout", "--quiet", "--allow-missing", stderr=subprocess.DEVNULL)
    status = dvc(folder, "status", "--json", name, stdout=subprocess.PIPE).stdout
    for change in json.loads(status).get(name, []):
        # Outputs may be gone; what the command reads must be what was recorded.
        if change == "changed command" or "changed deps" in change:
            raise VerifyError(f"{name}: not what dvc.lock recorded, or not here: {change}")
    how = ("--single-item", "--force", "--no-commit", "--no-run-cache")
    if dvc(folder, "repro", *how, name).returncode:
        raise VerifyError(f"{name}: the command failed")
    after = {out["path"]: out["md5"] for out in recorded(folder)[name]["outs"]}
    rows = [(out["path"], out["md5"], after[out["path"]]) for out in before["outs"]]
    return pd.DataFrame(rows, columns=["output", "recorded", "rerun"])


def main() -> int:
    """Report on one stage; 1 if an output differs or the stage cannot be rerun."""
    stages = recorded(ROOT)
    name = sys.argv[1] if len(sys.argv) > 1 else random.choice(sorted(stages) or [""])
    if name not in stages:
        known = ", ".join(sorted(stages)) or "nothing yet: run `dvc repro` first"
        print(f"VerifyError: {name or 'no stage'}: dvc.lock records {known}", file=sys.stderr)
        return 1
    print(f"verifying {name}", file=sys.stderr)
    WORK.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=WORK, prefix="verify-") as folder:
        try:
            table = rerun(name, Path(folder))
        except VerifyError as error:
            print(f"VerifyError: {error}", file=sys.stderr)
            return 1
    table["same"] = table["recorded"] == table["rerun"]
    print(table.to_string(index=False))
    return int(not table["same"].all())


if __name__ == "__main__":
    sys.exit(main())
