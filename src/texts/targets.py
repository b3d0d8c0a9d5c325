"""Target texts: joined from sentences of one topic to a length, then written in each type (A.1)."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from texts.glosses import read_lexicon
from texts.homophones import Reader
from texts.llm import Chat, Nonsense
from texts.transforms import Backend, Refused, Rules, Transformed, check

LONGEST = 2  # a repeated text may have so many times the words or characters that were asked for


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
    `translation` is the same in the other language. Raises ValueError where no text is so long.
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
                        "translation": join_texts(open_parts, "zh" if lang == "en" else "en"),
                        "topic": topic,
                        "level": int(max(s["level"] for s in open_parts)),
                    }
                )
                open_parts = []
    if not made:
        unit = "words" if lang == "en" else "characters"
        raise ValueError(f"prompts.{unit}: no {lang} text of {low} to {high} {unit}; allow others")
    frame = pd.DataFrame(made)
    frame["turn"] = frame.groupby("topic").cumcount()
    return frame.sort_values(["turn", "topic"], ignore_index=True).drop(columns="turn")


def typed_texts(
    texts: pd.DataFrame,
    lang: str,
    kinds: Sequence[str],
    count: int,
    high: int,
    backend: Backend,
    readers: Sequence[Reader] = (),
) -> pd.DataFrame:
    """The first `count` of `texts` that can be written in every one of `kinds`, cleaned first.

    One row a text: topic, level, and under each kind its `Transformed`. A text that one kind
    refuses is passed over, as is one that any of `readers` (what each model reads) finds unchanged
    or that grew beyond twice `high` words or characters. Raises ValueError if too few are left.
    """
    made: list[dict[str, object]] = []
    for text in texts.itertuples():
        if len(made) == count:
            break
        try:
            row = _every_kind(text, lang, kinds, high, backend, readers)
        except (Refused, Nonsense):
            continue
        made.append({"topic": text.topic, "level": text.level} | row)
    if len(made) < count:
        raise ValueError(
            f"prompts.mining: {count} {lang} texts as {', '.join(kinds)} were asked for, the "
            f"{len(texts)} texts give {len(made)}; ask for fewer or widen the length limits"
        )
    return pd.DataFrame(made)


def _every_kind(
    text: object,
    lang: str,
    kinds: Sequence[str],
    high: int,
    backend: Backend,
    readers: Sequence[Reader],
) -> dict[str, Transformed]:
    regular = backend.transform(text.target_text, lang, "regular")
    row = {}
    for kind in kinds:
        made = regular
        if kind != "regular":
            made = backend.transform(regular.text, lang, kind, text.translation)
            for read in readers:
                check(kind, regular.text, made.text, lang, read)
        if text_length(made.text, lang) > LONGEST * high:
            raise Refused(f"{kind}: {made.text!r} is too long to be spoken in one go")
        row[kind] = made
    return row


@lru_cache
def build_backend(
    backend: str, seed: int, sentences: Path, cache: Path, endpoint: str = "", model: str = ""
) -> Backend:
    """`rules`, or `llm`: a language model behind an OpenAI-compatible `endpoint`, the key from the
    environment (`INTP_LLM_KEY`), its answers kept in `cache`."""
    rules = Rules(seed, read_lexicon(sentences))
    if backend == "rules":
        return rules
    return Chat(endpoint=endpoint, model=model, cache=cache, rules=rules)
