"""Prompts x: a target text and a reference recording (Section 3.1, Appendix A.1)."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from intp.adapters.base import Prompt
from intp.corpus import Utterance, read_audio, read_manifest
from intp.params import Params
from intp.paths import DATA, ROOT
from texts.phonemes import phonemise

DIRECTIONS = {
    "en2en": ("en", "en"),
    "zh2zh": ("zh", "zh"),
    "zh2en": ("zh", "en"),
    "en2zh": ("en", "zh"),
}
PROMPT_COLUMNS = [
    "id", "split", "text_type", "set", "direction", "target_text", "target_lang", "target_phonemes",
    "prompt_text", "prompt_lang", "prompt_phonemes", "reference", "reference_corpus", "voice",
    "topic", "level",
]  # fmt: skip


def text_length(text: str, lang: str) -> int:
    """Words of an English text, characters of a Chinese one (punctuation not counted)."""
    if lang == "en":
        return len(text.split())
    return sum(c.isalnum() for c in text)


def join_texts(sentences: list[pd.Series], lang: str) -> str:
    """Sentences as one text; a blank between English ones."""
    return (" " if lang == "en" else "").join(s[lang].strip() for s in sentences)


def target_texts(sentences: pd.DataFrame, lang: str, limits: list[int], seed: int) -> pd.DataFrame:
    """Texts within `limits` (words or characters), joined from sentences of one topic.

    Each sentence is used once; the order is seeded and alternates topics, so any prefix is spread.
    """
    low, high = limits
    made = []
    shuffled = sentences.sample(frac=1, random_state=seed)
    for topic, group in shuffled.groupby("topic", sort=True):
        open_parts: list[pd.Series] = []
        for _, sentence in group.iterrows():
            size = text_length(join_texts([*open_parts, sentence], lang), lang)
            if size > high:
                open_parts = [sentence]
                size = text_length(sentence[lang], lang)
            else:
                open_parts.append(sentence)
            if low <= size <= high:
                made.append(
                    {
                        "target_text": join_texts(open_parts, lang),
                        "sentences": [s["id"] for s in open_parts],
                        "topic": topic,
                        "level": int(max(s["level"] for s in open_parts)),
                    }
                )
                open_parts = []
    frame = pd.DataFrame(made)
    frame["turn"] = frame.groupby("topic").cumcount()
    return frame.sort_values(["turn", "topic"], ignore_index=True).drop(columns="turn")


def training_sentences(rows: Sequence[Utterance]) -> pd.DataFrame:
    """The bilingual sentences that the training corpus speaks (mining may use them, as the paper's
    prompts come from the corpus its models were trained on)."""
    table = pd.read_json(DATA / "sentences.jsonl", lines=True)
    held_out = set(json.loads((DATA / "corpus" / "held_out_ids.json").read_text()))
    spoken = {row.id.rsplit("-", 1)[0] for row in rows}
    return table[table["id"].isin(spoken - held_out)]


def pair_references(texts: pd.DataFrame, candidates: list[Utterance], seed: int) -> list[Utterance]:
    """A reference for each text, none used twice before all were, none that says the text itself."""
    left: list[Utterance] = []
    chosen = []
    for text in texts["target_text"]:
        if not any(r.text not in text for r in left):
            left += pd.Series(candidates).sample(frac=1, random_state=seed + len(chosen)).tolist()
        pick = next(i for i, r in enumerate(left) if r.text not in text)
        chosen.append(left.pop(pick))
    return chosen


def mining_prompts(params: Params) -> pd.DataFrame:
    """Regular prompts for mining: four directions in balance, references of training voices."""
    limits = params.prompts
    rows = read_manifest(DATA / "corpus")
    low, high = limits.reference_seconds
    references = {
        lang: [r for r in rows if r.lang == lang and low <= r.duration <= high]
        for lang in ("en", "zh")
    }
    sentences = training_sentences(rows)
    made = []
    for offset, (direction, (spoken, lang)) in enumerate(DIRECTIONS.items()):
        size = limits.words if lang == "en" else limits.characters
        texts = target_texts(sentences, lang, size, params.seed + offset)
        texts = texts.head(limits.mining)
        pool = pair_references(texts, references[spoken], params.seed + offset)
        for number, (text, reference) in enumerate(zip(texts.itertuples(), pool, strict=True)):
            made.append(
                {
                    "id": f"regular-{direction}-{number:05d}",
                    "split": "mining",
                    "text_type": "regular",
                    "set": "regular" if spoken == lang else "cross-lingual",
                    "direction": direction,
                    "target_text": text.target_text,
                    "target_lang": lang,
                    "target_phonemes": phonemise(text.target_text, lang),
                    "prompt_text": reference.text,
                    "prompt_lang": spoken,
                    "prompt_phonemes": reference.phonemes,
                    "reference": reference.id,
                    "reference_corpus": "data/corpus",
                    "voice": reference.voice_name,
                    "topic": text.topic,
                    "level": text.level,
                }
            )
    return pd.DataFrame(made, columns=PROMPT_COLUMNS)


def held_out_prompts(split: str, per_direction: int, sets: Sequence[str]) -> pd.DataFrame:
    """The first items of each set and direction: `split` is development or evaluation."""
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
                id=row.id,
                target_text=row.target_text,
                target_phonemes=row.target_phonemes,
                target_lang=row.target_lang,
                prompt_text=row.prompt_text,
                prompt_phonemes=row.prompt_phonemes,
                prompt_lang=row.prompt_lang,
                reference_speech=audio[key],
            )
        )
    return prompts


def read_prompts(path: Path) -> pd.DataFrame:
    """A prompt table; raises ValueError naming columns that are missing."""
    frame = pd.read_parquet(path)
    missing = [c for c in PROMPT_COLUMNS if c not in frame.columns]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; see docs/intp-schema.md")
    return frame
