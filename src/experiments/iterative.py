"""The second round (Section 5.3, Appendix C.2): v1 speaks, v2 starts from v1 and learns from that."""

import pandas as pd

from intp.mining import check_pairs, intra_pairs
from intp.params import Params
from report.tables import count_cell, difference_cells, models_note, score_cells


class NoPairs(ValueError):
    """v1's answers to a prompt differ too little for a preference; the message says what to change."""


def hard_prompts(prompts: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The mining prompts of `iterative.text_types`, the challenging subset of C.2.

    Raises ValueError naming a text type without prompts, and one whose texts are perturbed: C.2 has
    intra pairs only, and a perturbed text is never the chosen's.
    """
    wanted = params.iterative.text_types
    kept = prompts[prompts["text_type"].isin(wanted)]
    if missing := sorted(set(wanted) - set(kept["text_type"])):
        raise ValueError(f"iterative.text_types: no mining prompts of {missing}")
    if strange := sorted(set(kept.loc[kept["base"] != kept["id"], "text_type"])):
        raise ValueError(f"iterative.text_types: {strange} are perturbed; C.2 has intra pairs only")
    return kept.reset_index(drop=True)


def own_pairs(judged: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Intra pairs (A.3.1) of v1's judged answers, whether or not its model is one that is mined.

    Raises NoPairs if no two answers differ enough.
    """
    rule = params.mining
    pairs = intra_pairs(
        judged, threshold=rule.threshold, measure=rule.measure, clamp=rule.clamp,
        chosen_at_most=rule.chosen_at_most,
    )  # fmt: skip
    if pairs.empty:
        raise NoPairs(
            f"{params.iterative.model} v1 mined no pair from {judged['prompt'].nunique()} prompts: "
            f"no two answers to one differ by {rule.threshold:g} {rule.threshold_unit}; more prompts "
            "(prompts.mining), a lower mining.threshold or other iterative.text_types may do"
        )
    check_pairs(pairs, judged, rule.threshold)
    return pairs


def table_6(scores: dict[str, pd.DataFrame], pairs: dict[str, int], params: Params) -> list[dict]:
    """Table 6: every cell of base, v1 and v2 (`scores`, in this order, by row); for each round how
    many `pairs` it learned from, and what it changes against the row before, paired by item."""
    base, first, _ = scores
    cells = []
    for row, frame in scores.items():
        cells += noted(score_cells(row, frame, params), params)
        if row != base:
            before, source = (base, "INTP") if row == first else (first, f"{first} generated")
            counted = count_cell(row, "Preference Data", pairs[row], "pairs")
            cells += noted([counted], params, source)
            cells += noted(
                difference_cells(row, scores[before], frame, params), params, f"minus {before}"
            )
    return cells


def noted(cells: list[dict], params: Params, note: str = "") -> list[dict]:
    """The cells with their note: whose they are and, after it, what `note` adds."""
    return [cell | {"note": "; ".join(filter(None, (models_note(params), note)))} for cell in cells]
