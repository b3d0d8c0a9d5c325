"""Annotations to Tables 3, 7 and 8 and to Figure 2, with intervals over listeners and items.

The paper prints shares alone. Here both the listeners and the items are resampled (a crossed
bootstrap), since both were drawn and either could have been others, and Krippendorff's alpha says
how far the listeners agree.
"""

from collections.abc import Mapping

import krippendorff
import numpy as np
import pandas as pd

from intp.params import Params
from listening.design import Plan
from listening.schema import QUESTIONS, SCORES, AnnotationError
from report.statistics import Estimate
from report.tables import cell, models_note

CHUNK = 200  # resamples at once
GOLD_RIGHT = 0.75  # share of gold items that a listener must get right; of traps: all
OUTCOMES = {"Winner": 1, "Tie": 0, "Loser": -1}


def joined(answers: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Answers with what the test knows of their items, and `score`: -2 to 2 for `first`.

    Training items are left out. Raises AnnotationError for answers to another test or item.
    """
    if set(answers["test"]) != {plan.id}:
        raise AnnotationError(f"field test: expected {plan.id}, found {sorted(set(answers.test))}")
    known = plan.frame().rename(columns={"id": "item"})
    known = known[["item", "stratum", "label", "lang", "first", "second", "expected"]]
    if unknown := sorted(set(answers["item"]) - set(known["item"])):
        raise AnnotationError(f"field item: {unknown[:3]} are not in test {plan.id}")
    rows = answers[answers["role"] != "training"].merge(known, on="item", validate="many_to_one")
    side = np.where(rows["shown_a"] == rows["first"], 1, -1)
    score = rows["answer"].map(SCORES) * side
    return rows.assign(score=score, model=rows["stratum"].str.rpartition(" ")[0])


def right(rows: pd.DataFrame) -> pd.Series:
    """Whether each answer to a check is the expected one; a tie may be one step off (P.808)."""
    won = (rows["expected"] == "first") & (rows["score"] > 0)
    even = (rows["expected"] == "Tie") & (rows["score"].abs() <= 1)
    return won | even | (rows["answer"] == rows["expected"])


def exclusions(rows: pd.DataFrame) -> pd.DataFrame:
    """Listeners that do not count, and why: a trap missed, too few gold items right, or always the
    same answer to a question of comparison. The rule is fixed before anybody listens.
    """
    faults: list[dict[str, str]] = []
    for listener, mine in rows.groupby("listener", sort=True):
        gold, trap = (mine[mine["role"] == role] for role in ("gold", "trap"))
        reasons = []
        if len(trap) and not right(trap).all():
            reasons.append(f"{(~right(trap)).sum()} of {len(trap)} traps missed")
        if len(gold) and right(gold).mean() < GOLD_RIGHT:
            reasons.append(f"{right(gold).sum()} of {len(gold)} gold items right")
        compared = mine[(mine["role"] == "main") & (mine["question"] != "reading")]
        for question, answers in compared.groupby("question"):
            if len(answers) > 5 and answers["answer"].nunique() == 1:
                reasons.append(f"{question}: always {answers['answer'].iloc[0]!r}")
        if reasons:
            faults.append({"listener": listener, "reason": "; ".join(reasons)})
    return pd.DataFrame(faults, columns=["listener", "reason"])


def counted(rows: pd.DataFrame, question: str) -> pd.DataFrame:
    """The answers to one question that count: main items, listeners that are not excluded."""
    barred = exclusions(rows)["listener"]
    kept = rows["role"].eq("main") & rows["question"].eq(question) & ~rows["listener"].isin(barred)
    return rows[kept]


def share(rows: pd.DataFrame, hit: pd.Series, params: Params) -> Estimate:
    """How many per cent of the answers `hit` is true for; n is the number of answers."""
    return crossed_mean(100.0 * hit.to_numpy(float), rows["listener"], rows["pair"], params)


def crossed_mean(
    values: np.ndarray, listeners: pd.Series, items: pd.Series, params: Params
) -> Estimate:
    """Mean of `values` [N] with its interval, listeners and items resampled independently.

    An answer weighs as often as its listener and its item were drawn. Raises ValueError if empty.
    """
    if len(values) == 0:
        raise ValueError("no answers to average")
    rule, (who, people), (what, things) = (
        params.statistics, pd.factorize(listeners), pd.factorize(items)
    )  # fmt: skip
    generator, means = np.random.default_rng(params.seed), []
    for start in range(0, rule.resamples, CHUNK):
        size = min(CHUNK, rule.resamples - start)
        weight = _drawn(generator, len(people), size)[:, who]
        weight = weight * _drawn(generator, len(things), size)[:, what]
        with np.errstate(invalid="ignore"):
            means.append((weight @ values) / weight.sum(axis=1))
    tail = (1 - rule.level) / 2
    low, high = np.nanquantile(np.concatenate(means), [tail, 1 - tail])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values))


def _drawn(generator: np.random.Generator, count: int, size: int) -> np.ndarray:
    """How often each of `count` is drawn, in `size` bootstraps [size, count]."""
    return generator.multinomial(count, np.full(count, 1 / count), size=size).astype(float)


def alpha(rows: pd.DataFrame, params: Params) -> Estimate | None:
    """Krippendorff's alpha of one question, with its interval over items; n is the items.

    Ordinal for comparisons (on what the answer says of `first`), nominal for reading. None where
    it has no value: nobody shares an item with another, or all answers are the same.
    """
    nominal = rows["score"].isna().all()
    value = rows["answer"] if nominal else rows["score"].astype(int)
    counts = pd.crosstab(rows["item"], value)
    counts = counts[counts.sum(axis=1) > 1]
    if counts.empty or (counts.sum() > 0).sum() < 2:
        return None
    level = "nominal" if nominal else "ordinal"
    domain = list(range(counts.shape[1])) if nominal else list(counts.columns)

    def of(table: np.ndarray) -> float:
        if (table.sum(axis=0) > 0).sum() < 2:
            return np.nan
        return krippendorff.alpha(
            value_counts=table, value_domain=domain, level_of_measurement=level
        )

    table, rule = counts.to_numpy(), params.statistics
    generator = np.random.default_rng(params.seed)
    picks = generator.integers(len(table), size=(rule.resamples, len(table)))
    tail = (1 - rule.level) / 2
    low, high = np.nanquantile([of(table[pick]) for pick in picks], [tail, 1 - tail])
    return Estimate(float(of(table)), float(low), float(high), len(table))


def by_language(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All answers (""), and those to each language that there is."""
    return {"": rows} | dict(iter(rows.groupby("lang")))


def reading_cells(rows: pd.DataFrame, labels: Mapping[str, str], params: Params) -> list[dict]:
    """Table 3: reading accuracy of chosen and rejected clips, by model, and by its languages.

    `labels` maps a model to its column. `rows` as `joined` gives them.
    """
    rows, cells = counted(rows, "reading"), []
    chosen = rows["label"] == "chosen"
    parts = {"Positive Samples": chosen, "Negative Samples": ~chosen, "All": chosen | ~chosen}
    for row, mask in parts.items():
        for model, label in labels.items():
            for lang, mine in by_language(rows[mask & (rows["model"] == model)]).items():
                if len(mine):
                    hit = share(mine, mine["answer"] == "No Error", params)
                    cells.append(cell(row, f"{label} {lang}".strip(), hit, "% of answers"))
    return cells + _agreement(rows, "reading", params)


def preference_cells(rows: pd.DataFrame, params: Params) -> list[dict]:
    """Table 7: how often each answer is given, by the sides as they were shown."""
    rows, cells = counted(rows, "naturalness"), []
    for lang, mine in by_language(rows).items():
        for answer in QUESTIONS["naturalness"].answers:
            hit = share(mine, mine["answer"] == answer, params)
            cells.append(cell(f"preference {lang}".strip(), answer, hit, "% of answers"))
    return cells + _agreement(rows, "naturalness", params)


def agreement_cells(rows: pd.DataFrame, params: Params) -> list[dict]:
    """Table 8: what listeners think of the clip that the pair prefers."""
    rows, cells = counted(rows, "naturalness"), []
    for lang, mine in by_language(rows).items():
        for name, sign in OUTCOMES.items():
            hit = share(mine, np.sign(mine["score"]) == sign, params)
            row = f"INTP winner {lang}".strip()
            cells.append(cell(row, f"Naturalness {name}", hit, "% of answers"))
        mean = crossed_mean(mine["score"].to_numpy(float), mine["listener"], mine["pair"], params)
        cells.append(cell(f"INTP winner {lang}".strip(), "N-CMOS", mean, "-2 to 2"))
    return cells


def answered_cells(rows: pd.DataFrame, label: str, run: str, params: Params) -> list[dict]:
    """Figure 2 and Table 4's N-CMOS from answers to a test of F.3: row `label` before, "`label`
    w/ `run`" after; by set where it says so. `rows` as `joined` gives them."""
    after, cells = f"{label} w/ {run}", []
    reading = counted(rows, "reading")
    for row, name in ((label, "before"), (after, "after")):
        for lang, mine in by_language(reading[reading["label"] == name]).items():
            if len(mine):
                hit = share(mine, mine["answer"] == "No Error", params)
                cells.append(cell(row, f"reading accuracy {lang}".strip(), hit, "% of answers"))
    compared = counted(rows, "naturalness")
    settings = compared["stratum"].str.partition(" ")[2].str.partition("|")[0]
    for name, mine in [*compared.groupby(settings, sort=False), ("avg", compared)]:
        score = mine["score"].to_numpy(float)
        mean = crossed_mean(score, mine["listener"], mine["pair"], params)
        cells.append(cell(after, f"{name} N-CMOS", mean, "-2 to 2"))
    nearer = counted(rows, "similarity")
    for name, sign in (("win", 1), ("tie", 0), ("lose", -1)):
        hit = share(nearer, np.sign(nearer["score"]) == sign, params)
        cells.append(cell(after, f"similarity {name}", hit, "% of answers"))
    return cells


def _agreement(rows: pd.DataFrame, question: str, params: Params) -> list[dict]:
    found = alpha(rows, params)
    return [cell("listeners", "alpha", found, f"Krippendorff, {question}")] if found else []


def decided(rows: pd.DataFrame, question: str, params: Params) -> Estimate | None:
    """How many per cent of the answers that take a side agree with the pair's label."""
    rows = counted(rows, question)
    rows = rows[rows["score"] != 0]
    return share(rows, rows["score"] > 0, params) if len(rows) else None


def note(answers: pd.DataFrame, instrument: str, barred: int, params: Params) -> str:
    """What a table must say of its listeners: simulated or human, languages, how many."""
    kind, people = answers["kind"].iloc[0], answers["listener"].nunique()
    by = f" ({instrument})" if kind == "simulated" else ""
    parts = [f"{kind}{by}", f"{people} listeners, {barred} excluded", models_note(params)]
    return "; ".join(filter(None, [*parts, "n counts answers"]))
