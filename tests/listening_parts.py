"""What the tests of the listening test share: prompts and pairs made of recordings."""

import pandas as pd

from intp.corpus import read_manifest
from intp.params import Listening
from intp.paths import DATA
from listening.design import Plan, build_plan

SIZES = Listening(reading_pairs=10, preference_pairs=12, listeners=6, ratings=3)


def prompts() -> pd.DataFrame:
    """Prompts whose references are recordings of the corpus, three of each direction."""
    rows = [r for r in read_manifest(DATA / "corpus") if r.shard == "audio-00.tar"]
    rows = {lang: [r for r in rows if r.lang == lang and r.duration > 1] for lang in ("en", "zh")}
    made = []
    for direction in ("en2en", "zh2zh", "zh2en", "en2zh"):
        spoken, target = direction.split("2")
        for k in range(3):
            reference, said = rows[spoken].pop(), rows[target].pop()
            made.append(
                {"id": f"regular-{direction}-{k}", "target_text": said.text, "target_lang": target,
                 "prompt_text": reference.text, "prompt_lang": spoken, "said": said.id,
                 "reference": reference.id, "reference_corpus": "data/corpus"}
            )  # fmt: skip
    return pd.DataFrame(made)


def pairs_of(frame: pd.DataFrame, models: tuple[str, ...] = ("ars", "f5")) -> pd.DataFrame:
    """An intra pair a prompt and model: a recording of the text is chosen, another one rejected."""
    made = []
    for model in models:
        for row, wrong in zip(frame.itertuples(), frame["said"].iloc[::-1].tolist(), strict=True):
            made.append(
                {"pair": f"intra-{model}-{row.id}", "kind": "intra", "text_type": "regular",
                 "prompt": row.id, "direction": row.id.split("-")[1], "chosen": row.said,
                 "rejected": wrong, "chosen_model": model, "rejected_model": model}
            )  # fmt: skip
    return pd.DataFrame(made)


def small_plan(asked: pd.DataFrame) -> Plan:
    """A plan with every question on `asked`."""
    return build_plan(pairs_of(asked), asked, SIZES, seed=3, similarity=True)
