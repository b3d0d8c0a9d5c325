"""The five text types of Section 3.1 and Appendix A.1, written by rules (Table 1b).

Everything is drawn from a seed keyed to the text and its type, so that one text's result hangs on
no other text. `texts.llm` has the same `transform` before a language model.
`python -m texts.transforms data/sentences.jsonl` shows Table 1b's sentence through each type.
"""

import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, get_args

from texts.glosses import FUNCTION, Lexicon, base_forms, read_lexicon
from texts.homophones import (
    TONES,
    EnglishSounds,
    Reader,
    changed_marks,
    changed_share,
    edits,
    heard,
    mispronounce_chinese,
    mispronounce_english,
)
from texts.normalise import wer_units
from texts.phonemes import HAN, LATIN, phonemise
from texts.regular import clean

Kind = Literal[
    "regular", "repeated", "code-switching", "pronunciation-perturbed", "punctuation-perturbed"
]
KINDS: tuple[str, ...] = get_args(Kind)

SMALLEST_SHARE = 0.2  # a fifth of the syllables or phonemes (our rule; the paper has none)
LARGEST_SHARE = {"regular": 0.6, "pronunciation-perturbed": 0.85}
LARGEST_GROWTH = 4  # a repeated text in lengths of the regular one
SWITCHED_LENGTH = (0.4, 2.5)  # words and characters of a mixed text, likewise
VARIANTS = 40

MARKS = {"en": ",.!?;", "zh": "，。！？；"}


class Refused(ValueError):
    """A text that is no text of its type: nothing a model hears has changed, or too much has."""


@dataclass(frozen=True)
class Transformed:
    """A text of one type. `changed`: see `check`; `note`: what was done, for provenance."""

    text: str
    lang: str
    kind: str
    changed: float
    note: str


class Backend(Protocol):
    """What writes texts of a type: `Rules` here, `texts.llm.Chat` beside it."""

    def transform(
        self, text: str, lang: str, kind: str, translation: str | None = None
    ) -> Transformed:
        """A text of type `kind` made from `text`; raises Refused or another ValueError."""
        ...


@dataclass
class _Words:
    """Words of a text, the marks behind each, and what stands before the first."""

    words: list[str]
    marks: list[str]
    glue: str

    def join(self) -> str:
        return self.glue.join(w + m for w, m in zip(self.words, self.marks, strict=True))


def split_words(text: str, lang: str) -> _Words:
    """Words with the marks that follow them: at blanks (en) or by jieba (zh)."""
    if lang == "en":
        parts = [re.fullmatch(r"(.*?)([,.!?;:]*)", word) for word in text.split()]
        return _Words([p[1] for p in parts if p], [p[2] for p in parts if p], " ")
    import jieba

    found = _Words([], [], "")
    for word in jieba.lcut(text):
        if found.words and not any(c.isalnum() for c in word):
            found.marks[-1] += word
        else:
            found.words.append(word)
            found.marks.append("")
    return found


def repeat(text: str, lang: str, rng: random.Random) -> tuple[str, str]:
    """Words, or phrases of two or three words, said two to four times (3.1: repeated, redundant).

    About one place in five words; a phrase never spans a mark. Returns the text and a note.
    """
    said = split_words(text, lang)
    size = len(said.words)
    starts = rng.sample(range(size), max(1, round(size / 5)))
    words, marks, notes, position = [], [], [], 0
    for start in sorted(starts):
        if start < position:
            continue
        length = rng.choices((1, 2, 3), (6, 3, 1))[0]
        while start + length > size or any(said.marks[start : start + length - 1]):
            length -= 1
        times = rng.choice((1, 1, 2, 3)) if length == 1 else 1
        span = said.words[start : start + length]
        words += [*said.words[position : start + length], *span * times]
        marks += [*said.marks[position : start + length - 1], *[""] * length * times]
        marks.append(said.marks[start + length - 1])
        notes.append(f"{said.glue.join(span)} ×{times + 1}")
        position = start + length
    words, marks = words + said.words[position:], marks + said.marks[position:]
    return _Words(words, marks, said.glue).join(), ", ".join(notes)


def repunctuate(text: str, lang: str, rng: random.Random) -> tuple[str, str]:
    """Marks put in, taken out, moved to another word, exchanged for another (3.3, A.1).

    Only marks that the corpus knows are used. Returns the text and a note.
    """
    said, notes = split_words(text, lang), []
    for _ in range(rng.randint(1, max(2, len(said.words) // 3))):
        inner = range(len(said.words) - 1)
        marked = [i for i in inner if said.marks[i]]
        bare = [i for i in inner if not said.marks[i]]
        ways = ["insert"] * 4 * bool(bare) + ["remove", "move"] * bool(marked) + ["exchange"]
        way = rng.choice(ways)
        if way == "insert" or (way == "move" and not bare):
            place = rng.choice(bare or marked)
            said.marks[place] = rng.choice(MARKS[lang][0] * 3 + MARKS[lang])
        elif way == "exchange":
            place = rng.choice([*marked, len(said.words) - 1])
            others = [m for m in MARKS[lang] if m != said.marks[place][:1]]
            said.marks[place] = rng.choice(others)
        else:
            place = rng.choice(marked)
            mark, said.marks[place] = said.marks[place], ""
            if way == "move":
                said.marks[rng.choice(bare)] = mark
        notes.append(way)
    return said.join(), ", ".join(notes)


def switch_code(
    text: str, lang: str, rng: random.Random, lexicon: Lexicon, translation: str | None = None
) -> tuple[str, str]:
    """A fifth to a half of the words, plain content words, said in the other language (3.1).

    Words that stand in `translation` go before all others, in the form they have there. Returns the text and
    a note. Raises Refused if the lexicon knows none of the words.
    """
    said = split_words(text, lang)
    other = _to_chinese if lang == "en" else _to_english
    found = {i: other(word, lexicon, translation) for i, word in enumerate(said.words)}
    known = {i: pair for i, pair in found.items() if pair}
    if not known:
        raise Refused(f"no word of {text!r} has a gloss")
    # A dictionary's guess where the translation says nothing is for texts without a better word.
    meant = [i for i in known if known[i][1]]
    places = rng.sample(meant or list(known), len(meant or known))
    count = max(1, round(rng.uniform(0.2, 0.5) * len(said.words)))
    chosen = sorted(places[: min(count, max(1, len(said.words) - 1))])
    notes = [f"{said.words[i]}→{known[i][0]}" for i in chosen]
    for i in chosen:
        said.words[i] = known[i][0] if lang == "en" else f" {known[i][0]} "
    mixed = re.sub(r" +(?=[^\w ]|$)", "", said.join().strip())
    blanks = r"(?<=[，。！？；：、“（]) +| +(?= )|(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])"
    return re.sub(blanks, "", mixed), ", ".join(notes)


def _to_chinese(word: str, lexicon: Lexicon, translation: str | None) -> tuple[str, bool] | None:
    if not word.isalpha() or word.lower() in FUNCTION:
        return None
    found = [zh for form in base_forms(word.lower()) for zh in lexicon.chinese.get(form, ())]
    meant = [zh for zh in found if translation and zh in translation]
    return ((meant or found)[0], bool(meant)) if found else None


def _to_english(word: str, lexicon: Lexicon, translation: str | None) -> tuple[str, bool] | None:
    found = lexicon.english.get(word, ())
    for spoken in re.findall(r"[A-Za-z]+", translation or ""):
        if set(base_forms(spoken.lower())) & set(found):
            return spoken.lower(), True
    return (found[0], False) if found else None


def _known(kind: str, lang: str) -> None:
    if kind not in KINDS or lang not in ("en", "zh"):
        raise ValueError(f"no text type {kind!r} for {lang!r}; types: {', '.join(KINDS)}; en, zh")


def check(kind: str, before: str, after: str, lang: str, read: Reader = heard) -> float:
    """The share of the model's input that changed, if `after` is a text of its kind made of `before`.

    Edits a syllable (zh), phoneme (en, and for code-switching) or, for punctuation, mark as well;
    `read` is the model's own reading. One rule for both back ends. Raises Refused with the reason,
    ValueError for an unknown kind or a language other than en and zh.
    """
    _known(kind, lang)
    spoken = "mixed" if kind == "code-switching" else lang
    try:
        share = changed_share(before, after, spoken, read, marks=kind == "punctuation-perturbed")
    except ValueError as error:
        raise Refused(f"{kind}: {error}") from error
    reason = _CHECKS[kind](before, after, lang, read, share)
    if reason:
        raise Refused(f"{kind}: {reason}; {before!r} became {after!r}")
    return share


def _not_regular(before: str, after: str, lang: str, read: Reader, share: float) -> str:
    return f"{share:.0%} of it changed" if share > LARGEST_SHARE["regular"] else ""


def _not_repeated(before: str, after: str, lang: str, read: Reader, share: float) -> str:
    old, new = wer_units(before, lang), wer_units(after, lang)
    left = iter(new)
    if not all(word in left for word in old) or set(new) - set(old):
        return "its words are not the text's own, in their order"
    fits = len(old) < len(new) <= LARGEST_GROWTH * len(old) and share
    return "" if fits else f"{len(new)} words of {len(old)}"


def _not_switched(before: str, after: str, lang: str, read: Reader, share: float) -> str:
    if not (HAN.search(after) and LATIN.search(after)):
        return "it is in one language"
    if lang == "zh" and set(re.findall("[A-Za-z]+", after)) <= set(re.findall("[A-Za-z]+", before)):
        return "nothing was switched"
    low, high = (bound * len(wer_units(before, "mixed")) for bound in SWITCHED_LENGTH)
    return "" if low <= len(wer_units(after, "mixed")) <= high else "its length is another text's"


def _not_perturbed(before: str, after: str, lang: str, read: Reader, share: float) -> str:
    if share < SMALLEST_SHARE:
        return f"only {share:.0%} of what the model reads changed"
    # Every syllable of a text may get another tone; with as many other sounds it is another text.
    bare = [[s for s in "".join(heard(text, lang)) if s not in TONES] for text in (before, after)]
    share = edits(*bare) / len(bare[0])
    return f"{share:.0%} of it changed" if share > LARGEST_SHARE["pronunciation-perturbed"] else ""


def _not_repunctuated(before: str, after: str, lang: str, read: Reader, share: float) -> str:
    if wer_units(before.lower(), lang) != wer_units(after.lower(), lang):
        return "its words changed"
    return (
        "" if changed_marks(before, after, lang, read) else "no mark that the model reads changed"
    )


_CHECKS: dict[str, Callable[[str, str, str, Reader, float], str]] = {
    "regular": _not_regular,
    "repeated": _not_repeated,
    "code-switching": _not_switched,
    "pronunciation-perturbed": _not_perturbed,
    "punctuation-perturbed": _not_repunctuated,
}


@dataclass(frozen=True)
class Rules:
    """The offline back end. `seed` is keyed to each text and type; `read` is the model's reading."""

    seed: int
    lexicon: Lexicon
    read: Reader = field(default=heard)

    @cached_property
    def sounds(self) -> EnglishSounds:
        """English words by sound."""
        return EnglishSounds(self.lexicon.words)

    def transform(
        self, text: str, lang: str, kind: str, translation: str | None = None
    ) -> Transformed:
        """A text of type `kind` made from the regular text `text` (en or zh).

        Variants are drawn from one stream until one passes `check`. `translation` helps
        code-switching. Raises Refused for an empty text or if none of 40 variants passes,
        ValueError for an unknown kind or language.
        """
        _known(kind, lang)
        if not any(c.isalnum() for c in text):
            raise Refused(f"nothing to say in {text!r}")
        rng = random.Random(f"{self.seed}/{kind}/{lang}/{text}")
        reason: Exception | None = None
        for _ in range(VARIANTS):
            try:
                after, note = self._write(text, lang, kind, translation, rng)
                share = check(kind, text, after, lang, self.read)
            except Refused as error:
                reason = error
                continue
            spoken = "mixed" if kind == "code-switching" else lang
            return Transformed(after, spoken, kind, share, note)
        raise Refused(f"none of {VARIANTS} variants passes, the last for: {reason}") from reason

    def _write(
        self, text: str, lang: str, kind: str, translation: str | None, rng: random.Random
    ) -> tuple[str, str]:
        match kind:
            case "regular":
                return clean(text, lang), "cleaned"
            case "repeated":
                return repeat(text, lang, rng)
            case "code-switching":
                return switch_code(text, lang, rng, self.lexicon, translation)
            case "punctuation-perturbed":
                return repunctuate(text, lang, rng)
        if lang == "en":
            return mispronounce_english(text, rng, self.sounds)
        return mispronounce_chinese(text, rng)


EXAMPLES = {
    "en": (" a panda eats  shoots and leaves", "熊猫吃竹笋和叶子。"),
    "zh": ("熊貓 吃竹笋和叶子", "A panda eats shoots and leaves."),
}


def show(backend: Backend) -> str:
    """Table 1b: its sentence, and a Chinese one of the same content, through each type (Markdown)."""
    lines = []
    for lang, (raw, translation) in EXAMPLES.items():
        lines += ["| type | text | what the model reads | changed |", "|---|---|---|---|"]
        regular = backend.transform(raw, lang, "regular")
        lines.append(f"| as it came | `{raw}` | | |")
        for kind in KINDS:
            made = regular
            if kind != "regular":
                made = backend.transform(regular.text, lang, kind, translation)
            read = phonemise(made.text, made.lang)
            lines.append(f"| {kind} | {made.text} | {read} | {made.changed:.0%} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(show(Rules(1, read_lexicon(Path(sys.argv[1])))), end="")
