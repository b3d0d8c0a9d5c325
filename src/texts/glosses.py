"""A word list in two languages, made from the glosses and translations of bilingual sentences."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
HAN_WORD = re.compile(r"[\u4e00-\u9fff]{1,4}")
# A gloss is one plain lower-case word once brackets, articles and "to" are gone: surnames, names
# and explanations drop out.
BRACKETS = re.compile(r"\([^()]*\)")
LEADING = re.compile(r"^(?:to be|to|a|an|the|be)\s+")
PLAIN = re.compile(r"[a-z]{3,12}")
FUNCTION = frozenset({
    "about", "above", "across", "after", "again", "ago", "all", "along", "also", "although",
    "always", "among", "and", "another", "any", "are", "around", "away", "because", "been",
    "before", "behind", "being", "below", "besides", "between", "both", "but", "can", "could",
    "did", "does", "doing", "done", "down", "during", "each", "either", "else", "even", "ever",
    "every", "few", "for", "from", "get", "got", "had", "has", "have", "having", "here", "her",
    "hers", "him", "his", "how", "however", "into", "its", "itself", "just", "least", "less",
    "let", "lot", "many", "may", "might", "more", "most", "much", "must", "neither", "never",
    "next", "nor", "not", "now", "off", "often", "once", "one", "ones", "only", "other", "our",
    "out", "over", "own", "per", "quite", "rather", "same", "shall", "she", "should", "since",
    "some", "still", "such", "than", "that", "the", "their", "them", "then", "there", "these",
    "they", "thing", "this", "those", "though", "through", "thus", "together", "too", "toward",
    "towards", "two", "under", "until", "upon", "used", "very", "via", "was", "well", "were",
    "what", "when", "where", "whether", "which", "while", "who", "whom", "whose", "why", "will",
    "with", "within", "without", "would", "yes", "yet", "you", "your",
})  # fmt: skip
IRREGULAR = {
    "ate": "eat", "bought": "buy", "came": "come", "children": "child", "drank": "drink",
    "drove": "drive", "feet": "foot", "flew": "fly", "found": "find", "gave": "give", "grew": "grow",
    "heard": "hear", "held": "hold", "knew": "know", "left": "leave", "lost": "lose", "made": "make",
    "met": "meet", "men": "man", "paid": "pay", "ran": "run", "said": "say", "sang": "sing",
    "saw": "see", "sent": "send", "slept": "sleep", "sold": "sell", "spoke": "speak", "spent": "spend",
    "taught": "teach", "teeth": "tooth", "thought": "think", "told": "tell", "took": "take",
    "understood": "understand", "went": "go", "women": "woman", "won": "win", "wore": "wear",
    "written": "write", "wrote": "write",
}  # fmt: skip
ENDINGS = (
    ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""),
    ("ed", "e"), ("ing", ""), ("ing", "e"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Lexicon:
    """What the sentences say of single words, best first.

    `english`: Chinese word → English words; `chinese`: English base form → Chinese words;
    `words`: every English word that stands in at least two sentences, lower-case.
    """

    english: Mapping[str, tuple[str, ...]]
    chinese: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]


def base_forms(word: str) -> tuple[str, ...]:
    """A lower-case English word and what it may be an inflection of, likeliest first."""
    forms = [word, *([IRREGULAR[word]] if word in IRREGULAR else [])]
    for ending, replacement in ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1:
            forms.append(stem + replacement)
            if len(stem) > 3 and stem[-1] == stem[-2] and not replacement:
                forms.append(stem[:-1])
    return tuple(dict.fromkeys(forms))


def senses(gloss: str) -> list[str]:
    """The single plain content words of a dictionary gloss: "(of sth) to move; to stir" gives two."""
    found = []
    for part in re.split(r"[;,/]", BRACKETS.sub(" ", gloss)):
        word = LEADING.sub("", part.strip())
        if PLAIN.fullmatch(word) and word not in FUNCTION:
            found.append(word)
    return found


def build_lexicon(sentences: Iterable[Mapping[str, Any]]) -> Lexicon:
    """The lexicon of rows with `zh`, `en` and `glosses` ([word, pinyin, gloss] each).

    A sense counts only if a translation of a sentence with that word bears it out; senses and words
    are ranked by how much they keep each other's company (cosine of their sentence sets).
    """
    together: Counter[tuple[str, str]] = Counter()
    in_chinese: Counter[str] = Counter()
    in_english: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for row in sentences:
        said = {word.lower() for word in WORD.findall(row["en"])}
        forms = {form for word in said for form in base_forms(word)}
        glosses = {word: gloss for word, _, gloss in row["glosses"] if HAN_WORD.fullmatch(word)}
        words.update(said)
        in_english.update(forms)
        in_chinese.update(glosses.keys())
        together.update((zh, en) for zh, g in glosses.items() for en in set(senses(g)) & forms)
    weight = {
        (zh, en): count / math.sqrt(in_chinese[zh] * in_english[en])
        for (zh, en), count in together.items()
    }
    english: dict[str, list[str]] = {}
    chinese: dict[str, list[str]] = {}
    for zh, en in sorted(weight, key=lambda pair: (-weight[pair], pair)):
        english.setdefault(zh, []).append(en)
        chinese.setdefault(en, []).append(zh)
    return Lexicon(
        {zh: tuple(found) for zh, found in english.items()},
        {en: tuple(found) for en, found in chinese.items()},
        tuple(sorted(word for word, count in words.items() if count > 1)),
    )


def read_lexicon(path: Path) -> Lexicon:
    """The lexicon of the training sentences of a JSON-lines file (`part` "training" or absent).

    Held-out sentences lend no word. Raises FileNotFoundError.
    """
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return build_lexicon(row for row in rows if row.get("part", "training") == "training")
