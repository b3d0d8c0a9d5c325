"""Rows become pairs, prompts, or recordings to draw prompts from."""

import random
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from intp.audio import mono
from intp.mining import PAIR_COLUMNS
from readers.reading import Reading, language
from readers.rows import Row, Span, called, checked, digest, read_bytes


def take(
    reading: Reading,
    rows: Iterable[tuple[str, dict[str, Any] | ValueError]],
    progress: bool = False,
) -> None:
    """Take (place, values) after (place, values); what could not be made into values is its fault."""
    spoken: list[Row] = []
    for where, values in tqdm(rows, reading.name, unit="row", disable=not progress):
        with reading.at(where):
            if isinstance(values, ValueError):
                raise values
            row = checked({k: v for k, v in values.items() if k not in reading.rules.ignore})
            if row.audio is not None:
                spoken.append(_recording(row))
            elif row.chosen is None:
                name = row.id or f"{reading.name}-{len(reading.prompts):05d}"
                if name in reading.prompts:
                    raise ValueError(f"id: {name!r} occurs twice")
                about = {"kind": row.text_type, "group": row.set}
                reference = reading.hear(row, lang=row.prompt_lang)
                reading.ask(name, reference, row.target_text, row.target_lang, **about)
            else:
                take_pair(reading, row)
    if spoken:
        draw(reading, spoken, progress)


def take_pair(reading: Reading, row: Row) -> None:
    """One preference with its prompt and its answers; what a source does not say stays empty."""
    spoken, _, target = (row.language_setting or "").partition("2")
    if row.perturbed_text and row.text_type in (None, "regular"):
        raise ValueError("text_type: needed with perturbed_text, to say what was perturbed")
    kind = row.text_type or "regular"
    meant = "regular" if row.perturbed_text else kind
    reference = reading.hear(row, lang=spoken or row.prompt_lang)
    target = target or row.target_lang
    name = row.prompt_id or "prompt-" + digest(f"{reference}/{meant}/{row.target_text}".encode())
    reading.ask(name, reference, row.target_text, target, kind=meant)
    read = name
    if row.perturbed_text:
        read = f"{name}-{kind}"
        reading.ask(read, reference, row.perturbed_text, target, kind=kind, base=name)
    w, l = reading.answer("chosen", name, row), reading.answer("rejected", read, row)
    if w["digest"] == l["digest"]:
        raise ValueError("rejected: the same recording as the chosen")
    alone = "intra" if w["model"] == l["model"] else "inter"
    made = {c: getattr(row, c, None) for c in PAIR_COLUMNS} | {
        "kind": row.kind or ("perturbed" if row.perturbed_text else alone), "prompt": name,
        "text_type": kind, "direction": reading.prompts[name]["direction"],
        "chosen": w["id"], "rejected": l["id"], "chosen_model": w["model"],
        "rejected_model": l["model"], "rule": row.rule or f"as given by {reading.name}",
    }  # fmt: skip
    made["pair"] = row.pair or f"{made['kind']}-{w['id']}-over-{l['id']}"
    if None not in (row.chosen_error, row.rejected_error):
        made["gap"] = row.rejected_error - row.chosen_error
        if made["gap"] < 0:
            raise ValueError("chosen_error: larger than rejected_error")
    if made["pair"] in reading.pairs:
        raise ValueError(f"pair: {made['pair']!r} occurs twice")
    reading.pairs[made["pair"]] = made


def _recording(row: Row) -> Row:
    """The row with everything that a draw asks for."""
    seconds = row.seconds
    if seconds is None:
        samples, rate = mono(read_bytes(row, "audio"), called(row, "audio"))
        seconds = len(samples) / rate
    lang = row.lang or language(row.text)
    language(row.text, lang)
    name = row.id or (row.audio.path.stem if isinstance(row.audio, Span) else digest(row.audio))
    filled = {"id": name, "lang": lang, "voice": row.voice or name, "seconds": seconds}
    return row.model_copy(update=filled)


def draw(reading: Reading, spoken: list[Row], progress: bool = False) -> None:
    """Prompts from a corpus (A.1): the text of a recording as long as a target may be, in the voice
    of one as long as a reference may be. Seeded; voices take turns."""
    rules = reading.rules
    twice = [name for name, n in Counter(r.id for r in spoken).items() if n > 1]
    if twice:
        reading.faults.append((reading.name, f"id: {', '.join(twice[:5])} more than once"))
        return
    langs = sorted({r.lang for r in spoken})
    both = [f"{a}2{b}" for a in langs for b in langs if a == b or {a, b} == {"en", "zh"}]
    for offset, direction in enumerate(rules.directions or both):
        source, _, target = direction.partition("2")
        seed = rules.seed + 2 * offset
        texts = _in_turn(spoken, target, rules.target_seconds, seed)
        pool = deque(_in_turn(spoken, source, rules.reference_seconds, seed + 1))
        if not texts or not pool:
            lacking = "reference" if texts else "target"
            fault = f"{direction}: no recording is as long as asked for (--{lacking}-seconds)"
            reading.faults.append((reading.name, fault))
            continue
        texts = tqdm(texts[: rules.per_direction], direction, unit="prompt", disable=not progress)
        for number, text in enumerate(texts):
            with reading.at(f"{direction}: {text.id}"):
                _say(reading, f"{reading.name}-{direction}-{number:05d}", text, pool)


def _say(reading: Reading, name: str, text: Row, pool: deque[Row]) -> None:
    """The prompt `name`: `text` in the next voice of `pool` that says something else."""
    for _ in range(len(pool)):
        pool.rotate(-1)
        if pool[-1].text not in text.text:
            break
    else:
        raise ValueError("no reference that says something else")
    heard = pool[-1].model_copy(update={"prompt": pool[-1].audio, "prompt_text": pool[-1].text})
    reading.ask(name, reading.hear(heard, heard.id, heard.lang), text.text, text.lang)


def _in_turn(spoken: list[Row], lang: str, limits: tuple[float, float], seed: int) -> list[Row]:
    rows = [r for r in spoken if r.lang == lang and limits[0] <= r.seconds <= limits[1]]
    random.Random(seed).shuffle(rows)
    met: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append(met[row.voice])
        met[row.voice] += 1
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]
