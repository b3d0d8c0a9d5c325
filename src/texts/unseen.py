"""Phonemes of languages that no model has seen (Appendix E.2): espeak's, each as the nearest seen one.

`python -m texts.unseen` prints the table of docs/unseen-languages.md.
"""

import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from texts.phonemes import HAN

if TYPE_CHECKING:
    from phonemizer.backend import EspeakBackend

TABLES = Path(__file__).resolve().parents[2] / "configs" / "unseen"
VOICES = {"ja": "ja", "ko": "ko", "de": "de", "fr": "fr-fr"}
# What the corpus is written in (`phonemise`), but for tones, which no unseen language has.
SEEN = frozenset("abdefhijklmnopstuvwxyzAIOTWYæðŋɑɔɕəɛɜɡɤɥɨɪɹɻʂʃʊʌʒʤʦʧʨʰθᵊᵻꭧ ˈˌ,.;!?—")


@lru_cache
def nearest() -> pd.DataFrame:
    """configs/unseen/phonemes.csv: espeak's symbol, languages, nearest seen symbols, and why."""
    return pd.read_csv(TABLES / "phonemes.csv", keep_default_na=False)


@lru_cache
def readings() -> dict[str, str]:
    """Japanese sentences by id in kana as they are said: espeak spells kanji letter by letter."""
    return pd.read_csv(TABLES / "readings.csv").set_index("id")["reading"].to_dict()


def phonemise_unseen(text: str, lang: str) -> str:
    """Seen phonemes (Kokoro's symbols) of a text in ja (in kana), ko, de or fr.

    Raises ValueError for another language, for kanji, and naming espeak's symbols that are neither
    seen nor in the table of nearest ones.
    """
    if lang not in VOICES:
        raise ValueError(f"unknown language {lang!r}; known are {', '.join(VOICES)}")
    if lang == "ja" and HAN.search(text):
        raise ValueError(f"{text!r} (ja) has kanji, which espeak cannot read: give its kana")
    spoken = _espeak(VOICES[lang]).phonemize([text])[0].strip()
    rows = nearest()
    rows = rows[[lang in languages.split() for languages in rows["languages"]]]
    table = dict(zip(rows["symbol"], rows["nearest"], strict=True))
    # In one pass, longest first: what a row gives is never read again.
    symbols = "|".join(re.escape(symbol) for symbol in sorted(table, key=len, reverse=True))
    unknown = set(re.sub(symbols, "", spoken)) - SEEN
    if unknown:
        raise ValueError(f"{sorted(unknown)} of {text!r} ({lang}): neither seen nor in the table")
    phonemes = re.sub(symbols, lambda found: table[found.group()], spoken)
    return re.sub(r" ([,.;!?])", r"\1", phonemes)


@lru_cache
def _espeak(voice: str) -> "EspeakBackend":
    import misaki.espeak  # points phonemizer at the espeak-ng that espeakng-loader ships  # noqa: F401
    from phonemizer.backend import EspeakBackend

    quiet = logging.getLogger("espeak")
    quiet.setLevel(logging.ERROR)  # it warns of every English word in a German text
    return EspeakBackend(
        voice, preserve_punctuation=True, with_stress=True, tie="^",
        language_switch="remove-flags", logger=quiet,
    )  # fmt: skip


def as_markdown() -> str:
    """The table of nearest symbols as the docs show it."""
    lines = ["| espeak | in | read as | differs in | why |", "|---|---|---|---|---|"]
    for row in nearest().itertuples():
        read = f"`{row.nearest}`" if row.nearest else "nothing"
        lines.append(
            f"| `{row.symbol}` | {row.languages} | {read} | {row.differs} | {row.reason} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
