"""Preference pairs from judged speech (Sections 3.2 and 3.3, Appendix A.3)."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from intp.params import Params, Variant

PAIR_COLUMNS = [
    "pair", "kind", "prompt", "text_type", "direction", "chosen_model", "rejected_model",
    "chosen", "rejected", "chosen_error", "rejected_error", "gap", "rule",
    "chosen_transcript", "rejected_transcript", "chosen_sampling", "rejected_sampling",
    "chosen_seed", "rejected_seed", "judge", "normaliser",
]  # fmt: skip
COMPARISONS = (("chosen", "chosen"), ("chosen", "rejected"), ("rejected", "chosen"))


def answers(judged: pd.DataFrame, measure: str, clamp: float) -> pd.DataFrame:
    """The judged answers with their error rate `clamped`, so that babble does not dominate."""
    return judged.assign(clamped=judged[measure].clip(upper=clamp))


def intra_pairs(
    judged: pd.DataFrame,
    *,
    threshold: float,
    measure: str = "error",
    clamp: float = 100.0,
    chosen_at_most: float | None = None,
) -> pd.DataFrame:
    """Lowest against highest error among one model's samplings of one prompt (A.3.1).

    `judged` has one row a sampling: prompt and the `base` whose text was meant, model, sample,
    sampling, seed, transcript, and the rates in per cent; answers to perturbed texts take no part.
    A pair is kept if the gap is at least `threshold` percentage points. Ties go to the lower
    sampling index. An empty transcript has every unit deleted, so it can be rejected and never wins
    over speech.
    """
    rule = f"gap of {measure} >= {threshold:g} percentage points, clamped at {clamp:g}"
    if chosen_at_most is not None:
        rule += f", chosen at most {chosen_at_most:g}"
    plain = answers(judged, measure, clamp)[judged["base"] == judged["prompt"]]
    rows = []
    for (model, prompt), group in plain.groupby(["model", "prompt"], sort=True):
        group = group.sort_values(["clamped", "sample"])
        best, worst = group.iloc[0], group[group["clamped"] == group["clamped"].max()].iloc[0]
        good = chosen_at_most is None or best["clamped"] <= chosen_at_most
        differ = best["id"] != worst["id"] and worst["clamped"] - best["clamped"] >= threshold
        if differ and good:
            rows.append(_pair("intra", f"{model}-{prompt}", best, worst, rule))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def inter_pairs(
    intra: pd.DataFrame,
    judged: pd.DataFrame,
    *,
    threshold: float,
    measure: str = "error",
    clamp: float = 100.0,
) -> pd.DataFrame:
    """Two models' intra pairs of one prompt compared (A.3.2): winner with winner and each winner
    with the other's loser, never loser with loser. The lower error is chosen, whosever it is."""
    known = answers(judged, measure, clamp).set_index("id", drop=False).to_dict("index")
    least = f"gap of {measure} >= {threshold:g} percentage points, clamped at {clamp:g}"
    rows = []
    for _, group in intra.groupby("prompt", sort=True):
        for a, b in combinations(group.sort_values("chosen_model").itertuples(), 2):
            for one, two in COMPARISONS:
                both = known[getattr(a, one)], known[getattr(b, two)]
                w, l = sorted(both, key=lambda answer: answer["clamped"])
                rule = f"{one} of {a.chosen_model} with {two} of {b.chosen_model}, {least}"
                if l["clamped"] - w["clamped"] >= threshold and l["clamped"] > w["clamped"]:
                    rows.append(_pair("inter", f"{w['id']}-over-{l['id']}", w, l, rule))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def perturbed_pairs(
    judged: pd.DataFrame,
    *,
    threshold: float = 0.0,
    measure: str = "error",
    clamp: float = 100.0,
    chosen_at_most: float | None = None,
) -> pd.DataFrame:
    """The answer to a perturbed text is rejected against the best answer to the regular text that
    was meant (A.3.3): the best of the same model, and the best of all other models.

    Its error counts against the text that was meant; `threshold` may be 0, since knowing what was
    done to the text is the preference.
    """
    judged = answers(judged, measure, clamp)
    plain = judged["base"] == judged["prompt"]
    best = judged[plain].sort_values(["clamped", "model", "sample"])
    best = best.drop_duplicates(["prompt", "model"])
    if chosen_at_most is not None:
        best = best[best["clamped"] <= chosen_at_most]
    rule = (
        f"perturbed text, gap of {measure} >= {threshold:g} percentage points, clamped at {clamp:g}"
    )
    rows = []
    for _, l in judged[~plain].sort_values("id").iterrows():
        found = best[best["prompt"] == l["base"]]
        own = found["model"] == l["model"]
        for _, w in pd.concat([found[own], found[~own].head(1)]).iterrows():
            if l["clamped"] - w["clamped"] >= threshold:
                rows.append(_pair("perturbed", f"{w['id']}-over-{l['id']}", w, l, rule))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def _pair(kind: str, name: str, w: Mapping, l: Mapping, rule: str) -> dict:
    row = {
        "pair": f"{kind}-{name}", "kind": kind, "prompt": w["prompt"], "text_type": l["text_type"],
        "direction": w["direction"], "gap": l["clamped"] - w["clamped"], "rule": rule,
        "judge": w["judge"], "normaliser": w["normaliser"],
    }  # fmt: skip
    for role, sample in (("chosen", w), ("rejected", l)):
        row |= {
            role: sample["id"],
            f"{role}_model": sample["model"],
            f"{role}_error": sample["clamped"],
            f"{role}_transcript": sample["transcript"],
            f"{role}_sampling": sample["sampling"],
            f"{role}_seed": sample["seed"],
        }
    return row


def check_pairs(
    pairs: pd.DataFrame, judged: pd.DataFrame, threshold: float, perturbed_threshold: float = 0.0
) -> None:
    """An independent check of mined pairs against the judgements; raises ValueError on a breach."""
    known = judged.set_index("id").to_dict("index")
    losers = set(pairs.loc[pairs["kind"] == "intra", "rejected"])
    for row in pairs.itertuples():
        w, l = known[row.chosen], known[row.rejected]
        least = perturbed_threshold if row.kind == "perturbed" else threshold
        faults = {
            f"gap {row.gap} is below the threshold {least}": (
                row.chosen_error + least > row.rejected_error + 1e-9
            ),
            "chosen and rejected answer different prompts": w["prompt"] != l["base"],
            "the chosen read a perturbed text": w["prompt"] != w["base"],
            "only a perturbed pair's rejected may read a perturbed text": (
                (row.kind == "perturbed") != (l["prompt"] != l["base"])
            ),
            f"an {row.kind} pair of {w['model']} and {l['model']}": (
                row.kind in ("intra", "inter")
                and (row.kind == "intra") != (w["model"] == l["model"])
            ),
            "two losers compared": (row.kind == "inter" and {row.chosen, row.rejected} <= losers),
        }
        if found := [text for text, wrong in faults.items() if wrong]:
            raise ValueError(f"{row.pair}: {'; '.join(found)}")
    if pairs.duplicated(["chosen", "rejected"]).any():
        raise ValueError("a pair occurs twice")


def arena(inter: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Table 2: per inter pair, 100 in the column "winner>loser" it belongs to and 0 in all others.

    Means are shares of all pairs in per cent; a model's win rate is the sum of its columns.
    """
    met = inter["chosen_model"] + ">" + inter["rejected_model"]
    names = [f"{a}>{b}" for a in models for b in models if a != b]
    return pd.DataFrame({name: 100.0 * (met == name) for name in names}).assign(
        voice=inter["prompt"], set="inter", direction="all"
    )


def shuffled_preferences(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The negative control: the roles exchanged in a random half of the pairs."""
    flip = pairs.sample(frac=0.5, random_state=seed).index
    swapped = pairs.copy()
    for column in [c for c in pairs.columns if c.startswith("chosen")]:
        other = column.replace("chosen", "rejected")
        swapped.loc[flip, [column, other]] = pairs.loc[flip, [other, column]].to_numpy()
    return swapped


def known_variant(params: Params, variant: str) -> Variant:
    """`variants.<variant>`; raises ValueError with the names there are."""
    if variant not in params.variants:
        raise ValueError(f"variants.{variant}: unknown; there are {sorted(params.variants)}")
    return params.variants[variant]


def selected(pairs: pd.DataFrame, rule: Variant) -> pd.DataFrame:
    """The pairs that `rule` asks for, before any limit on how many."""
    own = pairs["chosen_model"] == pairs["rejected_model"]
    kept = own | ~own
    if rule.of is not None:
        kept &= own if rule.of == "one model" else ~own
    if rule.models is not None:
        kept &= pairs["chosen_model"].isin(rule.models) & pairs["rejected_model"].isin(rule.models)
    if rule.directions is not None:
        kept &= pairs["direction"].isin(rule.directions)
    pairs = pairs[kept]
    if rule.positives is not None:
        of_type = [set(pairs.loc[pairs["text_type"] == t, "chosen"]) for t in rule.positives]
        pairs = pairs[pairs["chosen"].isin(set.intersection(*of_type))]
    if rule.text_types is not None:
        pairs = pairs[pairs["text_type"].isin(rule.text_types)]
    return pairs


def variant_pairs(pairs: pd.DataFrame, model: str, variant: str, params: Params) -> pd.DataFrame:
    """The pairs of one run: what its variant selects, at most `dpo.<model>.pairs`, as many as the
    smallest of its group that selects any if `equal_pairs`; for the negative control shuffled.

    Raises ValueError if the variant selects nothing.
    """
    rule = known_variant(params, variant)
    kept = selected(pairs, rule)
    if kept.empty:
        raise ValueError(f"variants.{variant}: none of the {len(pairs)} pairs is of this kind")
    limits = [len(kept), params.dpo[model].pairs or len(kept)]
    if rule.group is not None and params.equal_pairs:
        group = [other for other in params.variants.values() if other.group == rule.group]
        limits += [size for other in group if (size := len(selected(pairs, other)))]
    kept = kept.sample(n=min(limits), random_state=params.seed).sort_index()
    return shuffled_preferences(kept, params.seed) if rule.shuffled else kept


def sampling_label(sampling: dict) -> str:
    """A sampling's settings as stable JSON, for provenance columns."""
    return json.dumps(sampling, sort_keys=True)
