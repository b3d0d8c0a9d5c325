"""Prompts x: a target text and a reference recording (Section 3.1, Appendix A.1)."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pandas as pd

from intp.adapters.base import Prompt
from intp.corpus import Utterance, read_audio, read_manifest
from intp.params import Params
from intp.paths import DATA, ROOT, WORK
from texts.phonemes import phonemise
from texts.targets import build_backend, target_texts, typed_texts
from texts.transforms import Backend

DIRECTIONS = {
    "en2en": ("en", "en"),
    "zh2zh": ("zh", "zh"),
    "zh2en": ("zh", "en"),
    "en2zh": ("en", "zh"),
}
# Text types that are written together: a perturbed text and the regular one it perturbs.
WRITTEN = (
    ("regular", "pronunciation-perturbed", "punctuation-perturbed"),
    ("repeated",),
    ("code-switching",),
)
PROMPT_COLUMNS = [
    "id", "split", "text_type", "base", "set", "direction", "target_text", "target_lang",
    "target_phonemes", "prompt_text", "prompt_lang", "prompt_phonemes", "reference",
    "reference_corpus", "voice", "topic", "level", "note",
]  # fmt: skip


def training_sentences(rows: Sequence[Utterance]) -> pd.DataFrame:
    """The bilingual sentences that the training corpus speaks (mining may use them, as the paper's
    prompts come from the corpus its models were trained on)."""
    table = pd.read_json(DATA / "sentences.jsonl", lines=True)
    held_out = set(json.loads((DATA / "corpus" / "held_out_ids.json").read_text()))
    spoken = {row.id.rsplit("-", 1)[0] for row in rows}
    return table[table["id"].isin(spoken - held_out)]


def pair_references(texts: pd.Series, candidates: list[Utterance], seed: int) -> list[Utterance]:
    """A reference for each text, none used twice before all were, none that says the text itself.

    Raises ValueError where no candidate says something else.
    """
    left: list[Utterance] = []
    chosen = []
    for text in (written.text for written in texts):
        if not any(r.text not in text for r in left):
            left += pd.Series(candidates).sample(frac=1, random_state=seed + len(chosen)).tolist()
        pick = next((i for i, r in enumerate(left) if r.text not in text), None)
        if pick is None:
            raise ValueError(
                f"prompts.reference_seconds: none of {len(candidates)} recordings of such a length "
                f"can stand before {text!r}; allow others"
            )
        chosen.append(left.pop(pick))
    return chosen


def text_backend(params: Params) -> Backend:
    """Who writes the text types, as `prompts` in the parameters say."""
    asked = params.prompts
    return build_backend(
        asked.backend, params.seed, DATA / "sentences.jsonl", WORK / "texts",
        asked.endpoint, asked.language_model,
    )  # fmt: skip


def mining_prompts(params: Params) -> pd.DataFrame:
    """Prompts for mining: each text type in four balanced directions, references of training voices.

    The two perturbed types are the regular prompts again with another text to read; `base` names
    the prompt whose text was meant and, in their pairs, is the prompt (A.3.3).
    """
    limits = params.prompts
    rows = read_manifest(DATA / "corpus")
    low, high = limits.reference_seconds
    references = {
        lang: [r for r in rows if r.lang == lang and low <= r.duration <= high]
        for lang in ("en", "zh")
    }
    sentences = training_sentences(rows)
    backend = text_backend(params)
    readers = [resolve_name(name) for name in limits.readers]
    made = []
    for number, (kinds, (direction, (spoken, lang))) in enumerate(
        product(WRITTEN, DIRECTIONS.items())
    ):
        size, seed = limits.words if lang == "en" else limits.characters, params.seed + number
        texts = target_texts(sentences, lang, size, seed)
        texts = typed_texts(texts, lang, kinds, limits.mining, size[1], backend, readers)
        pool = pair_references(texts[kinds[0]], references[spoken], seed)
        for kind in kinds:
            made += [
                _mining_row(f"{direction}-{n:05d}", kind, kinds[0], text, reference)
                for n, (text, reference) in enumerate(
                    zip(texts.to_dict("records"), pool, strict=True)
                )
            ]
    return pd.DataFrame(made, columns=PROMPT_COLUMNS)


def _mining_row(
    name: str, kind: str, base: str, text: dict[str, Any], reference: Utterance
) -> dict[str, object]:
    written, direction = text[kind], name.rpartition("-")[0]
    monolingual = len(set(DIRECTIONS[direction])) == 1
    plain = "regular" if monolingual else "cross-lingual"
    return {
        "id": f"{kind}-{name}",
        "split": "mining",
        "text_type": kind,
        "base": f"{base}-{name}",
        "set": {"repeated": "articulatory", "code-switching": "code-switching"}.get(kind, plain),
        "direction": direction,
        "target_text": written.text,
        "target_lang": written.lang,
        "target_phonemes": phonemise(written.text, written.lang),
        "prompt_text": reference.text,
        "prompt_lang": reference.lang,
        "prompt_phonemes": reference.phonemes,
        "reference": reference.id,
        "reference_corpus": "data/corpus",
        "voice": reference.voice_name,
        "topic": text["topic"],
        "level": text["level"],
        "note": written.note,
    }


def held_out_prompts(split: str, per_direction: int, sets: Sequence[str]) -> pd.DataFrame:
    """The first items of each set and direction, all of them if there are fewer: `split` is
    development or evaluation."""
    folder = DATA / split
    items = pd.read_json(folder / "items.jsonl", lines=True)
    items = items[items["set"].isin(sets)]
    items = items.groupby(["set", "direction"], sort=False).head(per_direction)
    references = {r.id: r for r in read_manifest(folder / "references")}
    missing = sorted(set(items["reference"]) - references.keys())
    if missing:
        raise ValueError(f"{folder}/items.jsonl: references {missing[:5]} are not in its manifest")
    items = items.assign(
        text_type=items["set"],
        base=items["id"],
        note="",
        prompt_phonemes=[references[r].phonemes for r in items["reference"]],
        voice=[references[r].voice_name for r in items["reference"]],
        reference_corpus=f"data/{split}/references",
    )
    return items.reset_index(drop=True)[PROMPT_COLUMNS]


def load_prompts(frame: pd.DataFrame) -> list[Prompt]:
    """Prompts with their reference recordings, in the order of `frame`.

    Raises ValueError naming a reference that its corpus does not hold.
    """
    audio = {}
    for corpus, rows in frame.groupby("reference_corpus"):
        for name, samples in read_audio(ROOT / corpus, set(rows["reference"])):
            audio[corpus, name] = samples
    prompts = []
    for row in frame.itertuples():
        key = (row.reference_corpus, row.reference)
        if key not in audio:
            raise ValueError(f"prompt {row.id}: {row.reference} is not in {row.reference_corpus}")
        prompts.append(
            Prompt(
                id=row.id, target_text=row.target_text, target_phonemes=row.target_phonemes,
                target_lang=row.target_lang, prompt_text=row.prompt_text,
                prompt_phonemes=row.prompt_phonemes, prompt_lang=row.prompt_lang,
                reference_speech=audio[key],
            )
        )  # fmt: skip
    return prompts


def read_prompts(path: Path) -> pd.DataFrame:
    """A prompt table; raises ValueError naming columns that are missing."""
    frame = pd.read_parquet(path)
    missing = [c for c in PROMPT_COLUMNS if c not in frame.columns]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; see docs/intp-schema.md")
    return frame
