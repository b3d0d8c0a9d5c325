"""From speech to a pair file: judge every answer, mine the pairs, check them (Sections 3.2, 3.3).

    python -m intp.mine --prompts FILE.parquet --speech ars=DIR … --pairs OUT.parquet

`--speech` names a folder that `python -m intp.speech` wrote, once for each model.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from intp.evaluate import judge
from intp.files import whole
from intp.mining import check_pairs, inter_pairs, intra_pairs, perturbed_pairs
from intp.params import Params, load_params
from intp.prompts import read_prompts
from intp.speech import read_speech


def judge_answers(
    speech: Mapping[str, Path], prompts: pd.DataFrame, params: Params, *, progress: bool = True
) -> pd.DataFrame:
    """One row an answer: prompt, sampling, transcript and error rates in per cent.

    `speech` maps a model to the folder of its answers. Raises FileNotFoundError naming a folder
    without a manifest, and ValueError naming a prompt without an answer.
    """
    judged = []
    meant = prompts.set_index("id")["target_text"]
    # What was read may be perturbed; what counts is the text that was meant.
    asked = prompts.rename(columns={"id": "prompt"})
    asked["target_text"] = meant.reindex(asked["base"]).to_numpy()
    for model, folder in speech.items():
        path = folder / "manifest.parquet"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no speech; run `python -m intp.speech` first")
        manifest = pd.read_parquet(path).drop(columns=["target", "bands"])
        missing = sorted(set(prompts["id"]) - set(manifest["prompt"]))
        if missing:
            raise ValueError(f"{folder}: no answer to prompts {missing[:5]}")
        rows = manifest.merge(asked, on="prompt", validate="many_to_one")
        label = f"judging {model}" if progress else None
        scores = judge(dict(read_speech(folder)), rows, params, label, quality=False)
        kept = [c for c in scores if c not in ("set", "direction", "voice", "target_lang")]
        judged.append(
            rows.drop(columns="seconds").merge(scores[kept], on="id", validate="one_to_one")
        )
    return pd.concat(judged, ignore_index=True)


def mine(judged: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The pairs that `mining` in the parameters asks for, of its models, checked independently."""
    rule = params.mining
    judged = judged[judged["model"].isin(rule.models)]
    count = {"measure": rule.measure, "clamp": rule.clamp}
    bound = {"chosen_at_most": rule.chosen_at_most}
    intra = intra_pairs(judged, threshold=rule.threshold, **count, **bound)
    inter = inter_pairs(intra, judged, threshold=rule.threshold, **count)
    perturbed = perturbed_pairs(judged, threshold=rule.perturbed_threshold, **count, **bound)
    found = [kind for kind in (intra, inter, perturbed) if len(kind)]
    pairs = pd.concat(found, ignore_index=True) if found else intra
    check_pairs(pairs, judged, rule.threshold, rule.perturbed_threshold)
    return pairs


def contest(judged: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Inter pairs of all models with speech, mined or not: the arena of Table 2."""
    rule = params.mining
    count = {"threshold": rule.threshold, "measure": rule.measure, "clamp": rule.clamp}
    return inter_pairs(intra_pairs(judged, **count), judged, **count)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all."""
    with whole(path) as partial:
        frame.to_parquet(partial, index=False)


def main() -> None:
    """Judge speech and write the pairs mined from it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--speech", nargs="+", required=True, metavar="MODEL=DIR")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--judgements", type=Path, help="keep what the judges said here")
    options = parser.parse_args()
    wrong = [entry for entry in options.speech if "=" not in entry]
    if wrong:
        parser.error(f"--speech: expected MODEL=DIR, got {wrong[0]!r}")
    speech = {name: Path(folder) for name, folder in (e.split("=", 1) for e in options.speech)}
    params = load_params()
    judged = judge_answers(speech, read_prompts(options.prompts), params)
    if options.judgements:
        write_parquet(judged, options.judgements)
    pairs = mine(judged, params)
    write_parquet(pairs, options.pairs)
    print(f"{len(pairs)} pairs of {judged['prompt'].nunique()} prompts: {options.pairs}")


if __name__ == "__main__":
    main()
