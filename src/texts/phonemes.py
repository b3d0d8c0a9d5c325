"""Text to phonemes in Kokoro's symbols: what the corpus was spoken from and what models read."""

import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from misaki.zh import ZHG2P
    from phonemizer.backend import EspeakBackend

LANGUAGES = ("en", "zh", "mixed")
HAN = re.compile(r"[\u4e00-\u9fff]")
LATIN = re.compile(r"[A-Za-z]")
# An English stretch of mixed text keeps its inner blanks, so that espeak sees words in context.
STRETCH = re.compile(r"[A-Za-z](?:[A-Za-z0-9' -]*[A-Za-z0-9'])?")
SILENT = "ˈˌ→↗↓↘ ,.!?;:—…\"'()“”"
ARTICLE = re.compile(r"\ba$", re.IGNORECASE)

# espeak's en-us with ties to Kokoro's symbols, longest first: misaki's table for English, but for
# "ʔn" (syllabic n after a glottal stop) and without its later "ɪə" to "iə". This, not
# `EspeakG2P.e2m` alone, is what gives the corpus manifest's phonemes back, British voices too.
ESPEAK_TO_KOKORO = (
    ("ʔn", "tᵊn"),
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("d^ʒ", "ʤ"),
    ("e^ɪ", "A"),
    ("t^ʃ", "ʧ"),
    ("ɔ^ɪ", "Y"),
    ("o^ʊ", "O"),
    ("ə^l", "ᵊl"),
    ("ʲo", "jo"),
    ("ʲə", "jə"),
    ("ɜːɹ", "ɜɹ"),
    ("ɜː", "ɜɹ"),
    ("ʲ", ""),
    ("ɚ", "əɹ"),
    ("r", "ɹ"),
    ("x", "k"),
    ("ç", "k"),
    ("ɐ", "ə"),
    ("ɬ", "l"),
    ("e", "A"),
    ("o", "ɔ"),
    ("ɾ", "T"),
    ("ʔ", "t"),
    ("ː", ""),
    ("\u0303", ""),
    ("^", ""),
    ("-", ""),
)


def phonemise(text: str, lang: str) -> str:
    """Phonemes of `text` in Kokoro's symbols, as in the corpus manifest (tones are arrows).

    `lang` is "en", "zh" or "mixed" (each stretch of Latin letters is read as English, the rest as
    Chinese). Raises ValueError for another language, a text with nothing to say, or one whose
    script does not fit its language.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"unknown language {lang!r}; known are {', '.join(LANGUAGES)}")
    if not any(character.isalnum() for character in text):
        raise ValueError(f"empty text: nothing to say in {text!r} ({lang})")
    if (lang == "en" and HAN.search(text)) or (lang == "zh" and LATIN.search(text)):
        raise ValueError(f"{text!r} is not {lang}: its scripts are mixed; say lang='mixed'")
    return {"en": _english, "zh": _chinese, "mixed": _mixed}[lang](text)


def _english(text: str) -> str:
    phonemes = _espeak().phonemize([text])[0].strip()
    for old, new in ESPEAK_TO_KOKORO:
        phonemes = phonemes.replace(old, new)
    return phonemes


def _chinese(text: str) -> str:
    return _zh_g2p()(text)[0]


def _mixed(text: str) -> str:
    """English and Chinese stretches in turn, a blank between them, punctuation where it stood."""
    text = _zh_g2p().map_punctuation(text)
    parts, position = [], 0
    for match in STRETCH.finditer(text):
        english = _english(match.group())
        # At the end of a stretch espeak takes the article for the letter.
        english = re.sub(r"ˈA$", "ə", english) if ARTICLE.search(match.group()) else english
        parts += [_rest(text[position : match.start()]), english]
        position = match.end()
    parts.append(_rest(text[position:]))
    joined = re.sub(r"\s+", " ", " ".join(parts)).strip()
    return re.sub(r" ([,.;:!?])", r"\1", joined)


def _rest(text: str) -> str:
    return _chinese(text) if any(c.isalnum() for c in text) else text.strip()


def sounding(phonemes: str) -> str:
    """Phonemes that a recogniser tells apart: without stress, tones, blanks and punctuation."""
    return "".join(c for c in phonemes if c not in SILENT)


@lru_cache
def _espeak() -> "EspeakBackend":
    # misaki points phonemizer at the espeak-ng that espeakng-loader ships; nothing is installed.
    from misaki.espeak import EspeakG2P

    return EspeakG2P("en-us").backend


@lru_cache
def _zh_g2p() -> "ZHG2P":
    import jieba
    from misaki.zh import ZHG2P

    jieba.setLogLevel(logging.WARNING)
    return ZHG2P()
