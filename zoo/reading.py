"""Which character of a raw text each of its phonemes sounds."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from texts.phonemes import HAN, phonemise

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9'’-]*")
MARKS = dict(zip("，、。！？：；", ",,.!?:;", strict=True))  # as `phonemise` writes them
STRESS = "ˈˌ"
HAN_STRETCH = re.compile(f"{HAN.pattern}+")


@dataclass(frozen=True)
class Unit:
    """An English word or a Chinese character: where it stands in a text, and its own sounds."""

    start: int
    end: int
    sounds: str

    @property
    def characters(self) -> list[int]:
        """The character of the text that each sound stands for: evenly over a word.

        A stress mark goes with the sound behind it.
        """
        marked = [symbol in STRESS for symbol in self.sounds]
        count, length = max(1, marked.count(False)), self.end - self.start
        before = [min(marked[:i].count(False), count - 1) for i in range(len(marked))]
        return [self.start + (2 * n + 1) * length // (2 * count) for n in before]


@lru_cache(maxsize=200_000)
def word_sounds(word: str) -> str:
    """Phonemes of an English word on its own."""
    return phonemise(word, "en")


def english_units(text: str) -> Iterator[Unit]:
    """The words of an English text."""
    for match in WORD.finditer(text):
        yield Unit(match.start(), match.end(), word_sounds(match.group()))


def chinese_units(text: str) -> Iterator[Unit]:
    """The characters of a Chinese text, read in their words as `phonemise` reads them."""
    import jieba
    from misaki.zh import ZHG2P
    from pypinyin import Style, lazy_pinyin

    for stretch in HAN_STRETCH.finditer(text):
        place = stretch.start()
        for word in jieba.lcut(stretch.group()):
            for syllable in lazy_pinyin(word, Style.TONE3, neutral_tone_with_five=True):
                sounds = ZHG2P.py2ipa(syllable).replace("\u032f", "")
                yield Unit(place, place + 1, sounds)
                place += 1


def with_marks(text: str, units: list[Unit]) -> Iterator[Unit]:
    """Units, and each character between them as a unit that stands for itself."""
    end = 0
    for unit in [*units, Unit(len(text), len(text), "")]:
        for place in range(end, unit.start):
            mark = text[place]
            yield Unit(place, place + 1, MARKS.get(mark, mark))
        yield unit
        end = unit.end


def places(text: str, phonemes: str, lang: str) -> list[int]:
    """For each symbol of `phonemes`, which are those of `text`, the character that it sounds.

    Words read one by one are matched with words read in their sentence, which may differ by a
    stress, a weak form or a missing blank. The result never decreases. Raises ValueError for a text
    without a word of its language.
    """
    units = list({"en": english_units, "zh": chinese_units}[lang](text))
    if not units:
        raise ValueError(f"{text!r} has no word of {lang} in it")
    read = list(with_marks(text, units))
    expected = "".join(unit.sounds for unit in read)
    characters = [place for unit in read for place in unit.characters]
    found = []
    for _, i, i_end, j, j_end in SequenceMatcher(None, expected, phonemes, False).get_opcodes():
        for k in range(j_end - j):
            place = i + k * (i_end - i) // (j_end - j)
            found.append(characters[min(place, len(characters) - 1)])
    return found
