"""Words that sound nearly alike, and how much of what a model reads a change of text changes.

Pronunciation perturbation is Section 3.3 and Appendices A.1 and A.3.3 of the paper; there a language
model writes it, here rules do, and each of their proposals is heard through `phonemise` first.
"""

import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import jiwer
from pypinyin import Style, lazy_pinyin, pinyin

from texts.phonemes import HAN, phonemise

Reader = Callable[[str, str], Sequence[str]]

TONES = "→↗↘↓"
STRESS = "ˈˌ"
VOWEL = "jwɥaeiouyəɚɛɤɨʊɔ"
# misaki writes a syllable's tone before its final n or ŋ; ŋ is always final, n before a vowel never.
SYLLABLE = re.compile(
    rf"(?:[ʨꭧʦtpk]ʰ?|[mnflxɕʂɻs])?[{VOWEL}ɻ]+[{TONES}]?(?:n(?![{VOWEL}])|ŋ)?|[^\s]"
)

# GB 2312 orders its first 3,755 characters, the common ones, in rows 16 to 55.
COMMON_ROWS = (0xB0, 0xD7)
PER_READING = 6
PINYIN = re.compile(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?([a-zü]+)([1-5])")
INITIALS = (
    "zh z", "ch c", "sh s", "n l", "f h", "r l", "b p", "d t", "g k", "j q", "zh ch", "z c", "x sh",
)  # fmt: skip
FINALS = (
    "an ang", "en eng", "in ing", "ian iang", "uan uang", "ong eng", "ei ai", "ou uo", "ie ia",
    "ian ie", "ui un", "e o", "ao ou", "i ei", "a e",
)  # fmt: skip
# Chances of the ways to write a Chinese character wrong. A homophone alone changes no phoneme, but
# the paper's examples have them among the others.
WAYS = {"tone": 5, "near": 4, "homophone": 1}

# Spellings that readers of English take for one another, each tried at one place of a word; what
# they do to the sound is found by listening, not assumed.
VOWEL_LETTERS = set("aeiouy")
SINGLE_VOWELS = ("a e", "e i", "i e", "i ee", "o u", "u o", "a u", "o a")
SPELLINGS = (
    ("oo", "o"), ("oo", "u"), ("ee", "i"), ("ee", "e"), ("ea", "e"), ("ea", "ay"), ("ai", "e"),
    ("ay", "ee"), ("ou", "oo"), ("ow", "oo"), ("igh", "i"), ("oa", "aw"), ("ie", "y"), ("ey", "ay"),
    *((rf"(?<![aeiou]){old}(?![aeiou])", new) for old, new in map(str.split, SINGLE_VOWELS)),
    ("y\\b", "ay"), ("(?<=[a-z]{2})e\\b", ""), ("(?<=[bdfgklmnprstvz])\\b", "e"),
    ("th", "d"), ("th", "t"), ("th", "f"), ("sh", "s"), ("ch", "sh"), ("ck", "g"), ("ph", "p"),
    ("wh", "v"), ("w", "v"), ("v", "w"), ("v", "b"), ("ve(?=s?\\b)", "f"), ("p", "b"), ("b", "p"),
    ("t", "d"), ("d", "t"), ("k", "g"), ("g", "k"), ("c(?=[aoulr])", "g"), ("l", "r"), ("r", "l"),
    ("s\\b", "z"), ("s(?=[aeiou])", "sh"), ("z", "s"), ("ng\\b", "n"), ("m", "n"), ("n", "m"),
    ("f", "v"), ("(?<=[aeiou])r", ""), ("j", "ch"),
)  # fmt: skip
# Contractions, numbers with letters and single letters stay: espeak reads their pieces as names.
EN_WORD = re.compile(r"(?<![A-Za-z0-9'’])[A-Za-z]{2,}(?![A-Za-z0-9'’])")


def heard(text: str, lang: str) -> list[str]:
    """What a phoneme model reads: Chinese syllables with tone, English phonemes, punctuation marks.

    Blanks and stress do not count. In mixed text a word with no tone is taken for English.
    Raises ValueError as `phonemise` does.
    """
    units: list[str] = []
    for word in phonemise(text, lang).translate(dict.fromkeys(map(ord, STRESS))).split():
        chinese = lang == "zh" or (lang == "mixed" and any(t in word for t in TONES))
        units += SYLLABLE.findall(word) if chinese else word
    return units


def is_mark(unit: str) -> bool:
    """Whether a unit is punctuation (IPA's tone arrows are not)."""
    return all(unicodedata.category(c)[0] == "P" for c in unit)


def edits(before: Sequence[str], after: Sequence[str]) -> int:
    """Substitutions, deletions and insertions between two sequences of units, each without blanks."""
    if not before or not after:
        return len(before) + len(after)
    done = jiwer.process_words(" ".join(before), " ".join(after))
    return done.substitutions + done.deletions + done.insertions


def changed_share(
    before: str, after: str, lang: str, read: Reader = heard, marks: bool = False
) -> float:
    """Edits a unit of what the model reads in `before`: 0 is unheard, above 1 if much came in.

    Units are syllables (zh) or phonemes (en), or what another `read` gives; punctuation counts only
    with `marks`. Raises ValueError for a text that cannot be read as `lang` or has no units.
    """
    units = [
        [u for u in read(text, lang) if u.strip() and (marks or not is_mark(u))]
        for text in (before, after)
    ]
    if not units[0]:
        raise ValueError(f"{before!r} ({lang}): nothing is read of it")
    return edits(*units) / len(units[0])


def changed_marks(before: str, after: str, lang: str, read: Reader = heard) -> int:
    """Punctuation marks that were put in, taken out, moved or exchanged, as the model reads them."""
    full = [[u for u in read(text, lang) if u.strip()] for text in (before, after)]
    bare = [[u for u in units if not is_mark(u)] for units in full]
    return edits(*full) - edits(*bare)


def _pairs(table: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for pair in table:
        a, b = pair.split()
        found[a].append(b)
        found[b].append(a)
    return found


@lru_cache
def common_characters() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """(toneless pinyin, tone) → the commonest characters with no other reading, commonest first."""
    import jieba

    jieba.dt.check_initialized()
    first, last = COMMON_ROWS
    codes = (bytes([row, cell]) for row in range(first, last + 1) for cell in range(0xA1, 0xFF))
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for character in (code.decode("gb2312", "ignore") for code in codes):
        if not character:
            continue
        style = {"style": Style.TONE3, "neutral_tone_with_five": True, "v_to_u": True}
        readings = pinyin(character, heteronym=True, **style)[0]
        if len(set(readings)) == 1:
            found[readings[0][:-1], readings[0][-1]].append(character)
    often = jieba.dt.FREQ
    return {
        sound: tuple(sorted(them, key=lambda c: -(often.get(c) or 0))[:PER_READING])
        for sound, them in found.items()
    }


@lru_cache(maxsize=4096)
def sounds_like(reading: str) -> Mapping[str, tuple[str, ...]]:
    """Common characters for a pinyin with tone number ("shi4"), by how they differ (keys of WAYS)."""
    match = PINYIN.fullmatch(reading)
    if match is None:
        return {}
    initial, final, tone = match[1] or "", match[2], match[3]
    table = common_characters()
    near = [other + final for other in _pairs(INITIALS)[initial]]
    near += [initial + other for other in _pairs(FINALS)[final]]
    found = {
        "homophone": table.get((initial + final, tone), ()),
        "tone": sum((table.get((initial + final, t), ()) for t in "1234" if t != tone), ()),
        "near": sum((table.get((syllable, tone), ()) for syllable in near), ()),
    }
    return {way: characters for way, characters in found.items() if characters}


def mispronounce_chinese(text: str, rng: random.Random) -> tuple[str, str]:
    """Some characters become homophones, near homophones or characters in another tone.

    Returns the text and a note; measuring what is heard of it is the caller's part.
    """
    import jieba

    style = {"style": Style.TONE3, "neutral_tone_with_five": True, "v_to_u": True}
    words = [(word, lazy_pinyin(word, errors=list, **style)) for word in jieba.lcut(text)]
    read = [pair for word, readings in words for pair in zip(word, readings, strict=True)]
    places = [i for i, (c, _) in enumerate(read) if HAN.fullmatch(c)]
    rng.shuffle(places)
    written, notes = [character for character, _ in read], []
    for place in sorted(places[: max(1, round(rng.uniform(0.3, 0.6) * len(places)))]):
        character, reading = read[place]
        ways = {
            way: [c for c in found if c != character] for way, found in sounds_like(reading).items()
        }
        ways = {way: found for way, found in ways.items() if found}
        if not ways:
            continue
        way = rng.choices(list(ways), [WAYS[w] for w in ways])[0]
        written[place] = rng.choice(ways[way])
        notes.append(f"{character}→{written[place]} {way}")
    return "".join(written), ", ".join(notes)


class EnglishSounds:
    """English words by sound: which spellings are heard as nearly the same, never as the same."""

    def __init__(self, words: Sequence[str]):
        self.said = {word: self._say(word) for word in words if EN_WORD.fullmatch(word)}
        self.symbols = set("".join(self.said.values()))
        self.index: dict[str, list[str]] = defaultdict(list)
        for word, sound in self.said.items():
            for key in self._keys(sound):
                self.index[key].append(word)
        self.near = lru_cache(maxsize=8192)(self._near)

    @staticmethod
    def _say(word: str) -> str:
        return "".join(u for u in heard(word, "en") if not is_mark(u))

    @staticmethod
    def _keys(sound: str) -> set[str]:
        # Two sounds at distance one share a key: one of them less a symbol, or both less one.
        return {sound, *(sound[:i] + "_" + sound[i + 1 :] for i in range(len(sound)))} | {
            sound[:i] + sound[i + 1 :] for i in range(len(sound))
        }

    def _near(self, word: str) -> tuple[tuple[str, int, str], ...]:
        """(spelling, symbols that differ, way) of a lower-case word; ways: word, spelling, split."""
        sound = self._say(word)
        proposals = [(w, "word") for key in sorted(self._keys(sound)) for w in self.index[key]]
        for old, new in SPELLINGS:
            for match in re.finditer(old, word):
                proposals.append((word[: match.start()] + new + word[match.end() :], "spelling"))
        # Both pieces can be said: each has a vowel, no pair of vowels or of consonants opens one.
        cuts = range(2, len(word) - 1) if len(word) > 4 else ()
        pieces = [(word[:i], word[i:]) for i in cuts]
        proposals += [
            (f"{left} {right}", "split")
            for left, right in pieces
            if set(left) & VOWEL_LETTERS
            and set(right) & VOWEL_LETTERS
            and len(set(right[:2]) & VOWEL_LETTERS) == 1
            and not {left[-1], right[0]} <= VOWEL_LETTERS
        ]
        found: dict[str, tuple[str, int, str]] = {}
        for spelling, way in proposals:
            if spelling == word or spelling in found or len(spelling) < 2:
                continue
            other = self._say(spelling)
            # One symbol, two of a long word: more would be another word altogether.
            if set(other) <= self.symbols:
                distance = edits(list(sound), list(other))
                if 0 < distance <= (1 if len(sound) < 4 else 2):
                    found[spelling] = (spelling, distance, way)
        return tuple(found.values())


def mispronounce_english(text: str, rng: random.Random, sounds: EnglishSounds) -> tuple[str, str]:
    """Most words that have one become a near homophone: another word, a misspelling or two words.

    Returns the text and a note; measuring what is heard of it is the caller's part.
    """
    matches = [m for m in EN_WORD.finditer(text) if sounds.near(m.group().lower())]
    count = max(1, round(rng.uniform(0.6, 1) * len(matches)))
    chosen = {m.start() for m in rng.sample(matches, min(count, len(matches)))}
    written, notes, position = [], [], 0
    for match in matches:
        if match.start() not in chosen:
            continue
        word = match.group()
        ways: dict[str, list[str]] = defaultdict(list)
        for spelling, _, way in sounds.near(word.lower()):
            ways[way].append(spelling)
        other = rng.choice(ways[rng.choice(sorted(ways))])
        other = other[0].upper() + other[1:] if word[0].isupper() else other
        written += [text[position : match.start()], other]
        position = match.end()
        notes.append(f"{word}→{other}")
    return "".join([*written, text[position:]]), ", ".join(notes)
