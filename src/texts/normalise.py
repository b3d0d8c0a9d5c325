"""What counts as a word: seed-tts-eval's text normalisation, and the syllable error beside it.

`kind="wer"` and `"wer_upstream"` follow process_one of run_wer.py in BytedanceSpeech/seed-tts-eval
(commit 752f429); they differ for mixed text only. Nothing is done about numbers, abbreviations or
spelling variants, as upstream's authors confirm (issue 12).
"""

import re
import string
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, get_args

import jiwer
import zhconv
from pypinyin import lazy_pinyin
from zhon import hanzi

Kind = Literal["wer", "wer_upstream", "error"]

WORD_LANGUAGES = ("en", "de", "fr")
CHARACTER_LANGUAGES = ("zh", "ja", "ko")
LANGUAGES = (*WORD_LANGUAGES, *CHARACTER_LANGUAGES, "mixed")
LIBRARIES = ("zhon", "zhconv", "pypinyin", "jiwer")
NORMALISER_VERSION = "1 " + " ".join(f"{name}-{version(name)}" for name in LIBRARIES)

_DELETED = str.maketrans("", "", (hanzi.punctuation + string.punctuation).replace("'", ""))
_HAN = re.compile(f"[{hanzi.characters}]")
_CHARACTER_OR_WORD = re.compile(rf"[{hanzi.characters}]|[^\s{hanzi.characters}]+")
_YEAR = re.compile(r"(?<!\d)\d{4}(?=年)")
_NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?:\.\d+)?(?![A-Za-z\d])")
_DIGITS = "零一二三四五六七八九"


@dataclass(frozen=True)
class Errors:
    """Edits that turn a reference of `length` units into the hypothesis."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def edits(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Edits a unit of the reference, in per cent; above 100 if much was inserted."""
        return 100 * self.edits / self.length


def clean(text: str) -> str:
    """Delete (not blank out) punctuation but the straight apostrophe, then two spaces become one.

    The list is zhon's and ASCII's: curly apostrophes go, hyphens join words, `%` and `$` vanish.
    """
    return text.translate(_DELETED).replace("  ", " ")


def wer_units(text: str, lang: str, kind: Kind = "wer") -> list[str]:
    """Tokens that upstream counts; "mixed" has upstream's and ours.

    en, de, fr: words, lower-cased. zh, ja, ko: every character, Latin letters and digits too, in
    their case; blanks do not count. mixed: "wer_upstream" is the Chinese branch as it stands,
    "wer" counts Chinese characters one by one and other words whole, lower-cased.
    Raises ValueError for an unknown language.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"unknown language {lang!r}; known are {', '.join(LANGUAGES)}")
    text = clean(text)
    if lang in WORD_LANGUAGES:
        text = text.lower()
    elif lang == "mixed" and kind == "wer":
        return _CHARACTER_OR_WORD.findall(text.lower())
    else:
        text = " ".join(text)
    return jiwer.transformations.wer_default(text)[0]


def matrix_language(text: str) -> Literal["en", "zh"]:
    """The language that most of a code-switched text is in, by characters and words."""
    units = wer_units(text, "mixed")
    return "zh" if 2 * sum(bool(_HAN.fullmatch(unit)) for unit in units) >= len(units) else "en"


def error_units(text: str, lang: str) -> list[str]:
    """What a listener hears: words, or toneless pinyin syllables for zh, both for mixed.

    In zh and mixed a free-standing number is read in Chinese (3 and 三 are equal; a year digit by
    digit), a run of Latin letters, with digits in it or not, is one lower-case word. Other
    languages: as `wer_units`.
    """
    if lang not in ("zh", "mixed"):
        return wer_units(text, lang)
    text = _YEAR.sub(lambda m: "".join(_DIGITS[int(d)] for d in m.group()), text)
    words = wer_units(_NUMBER.sub(lambda m: read_number(m.group()), text), "mixed")
    syllables = iter(lazy_pinyin("".join(w for w in words if _HAN.fullmatch(w))))
    return [next(syllables) if _HAN.fullmatch(w) else w for w in words]


def read_number(digits: str) -> str:
    """Chinese reading of a decimal number; digit by digit from a leading zero or 100,000,000 on."""
    whole, _, part = digits.partition(".")
    spelled = [_DIGITS[int(d)] for d in whole]
    if len(whole) <= 8 and whole[0] != "0":
        ten_thousands, rest = divmod(int(whole), 10_000)
        high = _below_ten_thousand(ten_thousands) + "万" if ten_thousands else ""
        gap = "零" if high and 0 < rest < 1000 else ""
        spelled = [high + gap + _below_ten_thousand(rest)]
    return "".join(spelled) + ("点" + "".join(_DIGITS[int(d)] for d in part) if part else "")


def _below_ten_thousand(number: int) -> str:
    text = "".join(
        _DIGITS[int(d)] + unit if d != "0" else "零"
        for d, unit in zip(f"{number:04d}", "千百十 ", strict=True)
    )
    text = re.sub("零+", "零", text.replace(" ", "")).strip("零")
    return text.removeprefix("一") if text.startswith("一十") else text


def count_errors(reference: str, hypothesis: str, lang: str, kind: Kind = "wer") -> Errors:
    """Compare a target text with a transcript, by jiwer.

    The transcript of zh and mixed speech goes through zhconv to zh-cn, the target does not
    (upstream). A transcript of nothing but punctuation counts as all deleted.
    Raises ValueError for an empty target, an unknown language or an unknown kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind of error {kind!r}; known are {', '.join(get_args(Kind))}")
    if lang in ("zh", "mixed"):
        hypothesis = zhconv.convert(hypothesis, "zh-cn")
    target, heard = (
        error_units(text, lang) if kind == "error" else wer_units(text, lang, kind)
        for text in (reference, hypothesis)
    )
    if not target:
        raise ValueError(f"target text {reference!r} ({lang}) has nothing to count in it")
    found = jiwer.process_words(" ".join(target), " ".join(heard))
    return Errors(found.substitutions, found.deletions, found.insertions, len(target))
