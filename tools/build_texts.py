"""Texts under data/: sentences, tongue twisters, unseen languages, and both sets of items.

Everything is drawn by seed from the HSK sentences of PyPI's `hsk-sentences-audio` and from what is
written by hand in tools/texts/, so that a second run writes the same bytes.
"""

import hashlib
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from intp.corpus import read_manifest
from intp.files import whole
from intp.paths import DATA, ROOT
from texts.phonemes import HAN, phonemise

VERSION = "1"
SEED = 20250
TEXTS = ROOT / "tools" / "texts"

# Items and references a direction or language; a smaller scale takes the first n of either.
SIZES = {"evaluation": (60, 24), "development": (16, 12)}
SHORT = {"evaluation": "eval", "development": "dev"}
DIRECTIONS = (
    ("regular", "en", "en", "en"),
    ("regular", "zh", "zh", "zh"),
    ("articulatory", "en", "en", "en"),
    ("articulatory", "zh", "zh", "zh"),
    ("code-switching", "en2mixed", "en", "mixed"),
    ("code-switching", "zh2mixed", "zh", "mixed"),
    ("cross-lingual", "zh2en", "zh", "en"),
    ("cross-lingual", "en2zh", "en", "zh"),
)
# Words or characters of a target: a joined text is filled up to a goal drawn from the inner pair.
LENGTHS = {"en": (6, 14), "zh": (9, 20), "mixed": (8, 20)}
GOALS = {"en": (7, 11), "zh": (10, 15)}
# Seconds a phoneme symbol and seconds a recording, fitted on the training corpus at speed 1.
PACE = {"en": (0.0464, 0.516), "zh": (0.0414, 0.317)}
REFERENCE_SECONDS = (2.7, 3.6)
SPEEDS = (0.92, 1.08)

# Sentences fit for one language only: transcripts write abbreviations and large numbers in other
# ways, and pypinyin misreads two words ("too long", "dirty").
UNFIT = {"en": r"Mr\.|PhD|\b[A-Z]\.|\b[A-Z]{2}\b|thousand|thirty|seven", "zh": "太长|脏"}

# Held out of all training; those of development are heard while models are chosen.
VOICES = {
    "evaluation": {
        "en": ("af_bella", "am_puck", "bf_lily", "bm_lewis"),
        "zh": ("zf_xiaoyi", "zm_yunyang"),
    },
    "development": {"en": ("af_nicole", "am_santa"), "zh": ()},
}


def stream(*names: object) -> random.Random:
    """A random stream of its own for each purpose, so that one draw never shifts another."""
    return random.Random("/".join(map(str, (SEED, *names))))


def plain(text: str) -> str:
    """A text without case, blanks and punctuation: what makes two texts the same."""
    return re.sub(r"[\W_]+", "", text.lower())


def units(text: str) -> int:
    """Length of a text: English words plus Chinese characters."""
    return len(HAN.findall(text)) + len(re.findall(r"[A-Za-z0-9']+", text))


def spread(rows: pd.DataFrame, key: str, *seed: object) -> pd.DataFrame:
    """Shuffle rows so that every prefix holds each value of `key` in about its overall share."""
    rng = stream("spread", *seed)
    rows = rows.sample(frac=1, random_state=rng.randrange(2**32))
    group = rows.groupby(key)[key]
    offset = rows[key].map({name: rng.random() for name in sorted(rows[key].unique())})
    place = (group.cumcount() + offset) / group.transform("size")
    return rows.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def sentences() -> pd.DataFrame:
    """Bilingual sentences with their part: training, development, evaluation or unused.

    Left out are some 80 rows whose translation is a placeholder or holds Chinese characters. Of the
    held-out sentences those stay unused that equal a training text or hold digits, dashes and
    hyphens, which normalisers of transcripts treat in different ways.
    """
    from hsk_sentences_audio import load_sentences

    frame = pd.DataFrame(
        {
            "id": row["id"],
            "zh": row["chinese"],
            "en": row["translation"]["en"],
            "pinyin": row["pinyin"],
            "glosses": [[t["word"], t["pinyin"], t["gloss_en"]] for t in row["tokens"]],
            "topic": row["topic"],
            "level": row["hsk_level"],
        }
        for row in load_sentences()
    )
    frame = frame[~frame.en.str.contains("placeholder|[\u4e00-\u9fff]")].reset_index(drop=True)
    held_out = set(json.loads((DATA / "corpus" / "held_out_ids.json").read_text()))
    trained = {plain(row.text) for row in read_manifest(DATA / "corpus")}
    frame["part"] = "training"
    frame.loc[frame.id.isin(held_out), "part"] = "unused"
    seen = frame.en.map(plain).isin(trained) | frame.zh.map(plain).isin(trained)
    twice = frame.en.map(plain).duplicated(keep=False) | frame.zh.map(plain).duplicated(keep=False)
    clean = frame.en.str.fullmatch(r"[A-Za-z ,.'?!;]+")
    usable = spread(frame[frame.id.isin(held_out) & ~seen & ~twice & clean], "topic", "parts")
    usable = usable.sort_values("topic", kind="stable").reset_index(drop=True)
    frame.loc[frame.id.isin(usable.id), "part"] = "evaluation"
    frame.loc[frame.id.isin(usable.id[usable.index % 4 == 3]), "part"] = "development"
    return frame


def join(
    rows: pd.DataFrame,
    lang: str,
    size: Callable[[str], float],
    limits: tuple[float, float],
    goals: tuple[float, float],
    rng: random.Random,
) -> list[dict[str, object]]:
    """Join sentences of one topic, in order, into texts at least as long as a goal drawn for each.

    `size` measures a text; what ends outside `limits` is left out.
    """
    texts = []
    rows = rows[~rows[lang].str.contains(UNFIT[lang])]
    for topic, group in rows.groupby("topic", sort=True):
        bag = list(group.itertuples())
        while bag:
            chosen = [bag.pop(0)]
            length, goal = size(getattr(chosen[0], lang)), rng.uniform(*goals)
            while length < goal:
                more = [(row, size(joined([*chosen, row], lang))) for row in bag]
                fits = next(((row, new) for row, new in more if new <= limits[1]), None)
                if fits is None:
                    break
                bag.remove(fits[0])
                chosen.append(fits[0])
                length = fits[1]
            if limits[0] <= length <= limits[1]:
                level = max(row.level for row in chosen)
                ids = [row.id for row in chosen]
                text = joined(chosen, lang)
                texts.append({"text": text, "sentences": ids, "topic": topic, "level": level})
    return texts


def joined(rows: Iterable, lang: str) -> str:
    """Whole sentences, one after the other."""
    return (" " if lang == "en" else "").join(getattr(row, lang) for row in rows)


def references(rows: pd.DataFrame, part: str, lang: str) -> list[dict[str, object]]:
    """What the reference recordings of one part and language say, and in which voice and tempo."""
    rng = stream("references", part, lang)

    def seconds(text: str) -> float:
        return PACE[lang][0] * len(phonemise(text, lang)) + PACE[lang][1]

    pooled = rows.assign(topic="all")
    texts = join(pooled, lang, seconds, REFERENCE_SECONDS, (REFERENCE_SECONDS[0],) * 2, rng)
    topics = rows.set_index("id").topic
    if len(texts) < SIZES[part][1]:
        raise ValueError(f"{part} {lang}: {len(texts)} reference texts of {SIZES[part][1]} wanted")
    return [
        {
            "id": f"{SHORT[part]}-ref-{lang}-{number:02d}",
            "lang": lang,
            "text": text["text"],
            "phonemes": phonemise(text["text"], lang),
            "voice": voice,
            "speed": round(rng.uniform(*SPEEDS), 2),
            "topic": topics[text["sentences"][0]],
            "level": text["level"],
            "sentences": text["sentences"],
        }
        for number, (voice, text) in enumerate(zip(voices(part, lang), texts, strict=False))
    ]


def voices(part: str, lang: str) -> list[dict[str, float]]:
    """One voice mixture a reference: each third (or sixth) a single voice, the others blends.

    Development adds blends of three training voices, which no training utterance has (it has single
    voices and pairs); evaluation uses voices of its own only.
    """
    rng, count = stream("voices", part, lang), SIZES[part][1]
    names = VOICES[part][lang]
    pairs = list(itertools.combinations(names, 2))
    triples = list(itertools.combinations(names, 3))
    blends = pairs + triples + pairs
    if part == "development":
        rows = read_manifest(DATA / "corpus")
        trained = sorted({name for row in rows if row.lang == lang for name in row.voice})
        blends += rng.sample(list(itertools.combinations(trained, 3)), count)
    # af_nicole whispers, at two thirds of the others' tempo: good in a blend, no reference alone.
    single = [name for name in names if name != "af_nicole"]
    every = 3 if len(single) > 1 else 6
    alone = [bool(single) and number % every == 0 for number in range(count)]
    singles, blends = itertools.cycle(single), itertools.cycle(blends)
    return [mixture((next(singles),) if one else next(blends), rng) for one in alone]


def mixture(names: tuple[str, ...], rng: random.Random) -> dict[str, float]:
    """Shares in whole per cent that sum to one, none of them small."""
    weights = [rng.uniform(1, 3) for _ in names]
    shares = [round(weight / sum(weights), 2) for weight in weights[1:]]
    return dict(zip(names, [round(1 - sum(shares), 2), *shares], strict=True))


def code_switching(frame: pd.DataFrame) -> pd.DataFrame:
    """Mixed texts, written by hand from the content of held-out sentences (ids before the text)."""
    table = pd.read_csv(TEXTS / "code_switching.tsv", sep="\t", names=["ids", "text"])
    by_id = frame.set_index("id")
    table["sentences"] = table.ids.str.split(",")
    table["part"] = [by_id.part[ids[0]] for ids in table.sentences]
    table["topic"] = [by_id.topic[ids[0]] for ids in table.sentences]
    table["level"] = [int(by_id.level[ids].max()) for ids in table.sentences]
    # Which language carries the sentence is balanced like the topic.
    chinese = table.text.map(lambda text: len(HAN.findall(text)) * 2 > units(text))
    return table.assign(kind=table.topic + chinese.map({True: "/zh", False: "/en"}))


def twisters() -> pd.DataFrame:
    """Tongue twisters and repeated words, traditional or written by hand, with their part."""
    names = ["part", "lang", "kind", "text"]
    table = pd.read_csv(TEXTS / "twisters.tsv", sep="\t", names=names)
    number = table.groupby(["part", "lang"]).cumcount()
    table["id"] = "twister-" + table.lang + "-" + table.part.map(SHORT)
    table["id"] += number.map("-{:02d}".format)
    return table[["id", "lang", "kind", "text", "part"]]


def targets(part: str, frame: pd.DataFrame, rows: pd.DataFrame) -> dict[str, list[dict]]:
    """Target texts of each direction, in an order whose prefixes are balanced over topics."""
    found = {}
    for lang, names in (("en", ("en", "zh2en")), ("zh", ("zh", "en2zh"))):
        texts = join(rows, lang, units, LENGTHS[lang], GOALS[lang], stream("join", part, lang))
        table = spread(pd.DataFrame(texts), "topic", "join", part, lang)
        for place, name in enumerate(names):
            found["regular" if name == lang else "cross-lingual", name] = table.iloc[place::2]
        hard = twisters().query("part == @part and lang == @lang")
        hard = spread(hard.assign(topic=hard.kind, level=0), "kind", "hard", part, lang)
        found["articulatory", lang] = hard.assign(sentences=[[]] * len(hard))
    mixed = code_switching(frame).query("part == @part")
    mixed = spread(mixed, "kind", "mixed", part)
    for place, name in enumerate(("en2mixed", "zh2mixed")):
        found["code-switching", name] = mixed.iloc[place::2]
    return {key: table.to_dict("records") for key, table in found.items()}


def items(part: str, frame: pd.DataFrame) -> tuple[list[dict], list[dict]]:
    """References and items of one part; item i of each direction has reference i of its language.

    References take their sentences first, so that no item's target holds a reference's sentence.
    """
    count, spoken = SIZES[part]
    rows = spread(frame[frame.part == part], "topic", "roles", part)
    taken = round(spoken * 2.5)
    spoken_by = {
        lang: references(rows[place * taken : (place + 1) * taken], part, lang)
        for place, lang in enumerate(("en", "zh"))
    }
    texts = targets(part, frame, rows[2 * taken :])
    out = []
    for kind, direction, prompt_lang, target_lang in DIRECTIONS:
        if len(texts[kind, direction]) < count:
            raise ValueError(f"{part} {kind} {direction}: {len(texts[kind, direction])} texts")
        for number, text in enumerate(texts[kind, direction][:count]):
            reference = spoken_by[prompt_lang][number % spoken]
            out.append(
                {
                    "id": f"{SHORT[part]}-{kind}-{direction}-{number:03d}",
                    "version": VERSION,
                    "split": part,
                    "set": kind,
                    "direction": direction,
                    "reference": reference["id"],
                    "prompt_text": reference["text"],
                    "prompt_lang": prompt_lang,
                    "target_text": text["text"],
                    "target_lang": target_lang,
                    "target_phonemes": phonemise(text["text"], target_lang),
                    "topic": text["topic"],
                    "level": text["level"],
                    "sentences": text["sentences"],
                }
            )
    return [*spoken_by["en"], *spoken_by["zh"]], out


def write_lines(path: Path, rows: Iterable[dict]) -> str:
    """Write JSON lines as a whole and return their sha256."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with whole(path) as partial:
        partial.write_text(text, "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def build_texts() -> None:
    """Write every text under data/."""
    frame = sentences()
    write_lines(DATA / "sentences.jsonl", frame.to_dict("records"))
    write_lines(DATA / "twisters.jsonl", twisters().to_dict("records"))
    unseen = pd.read_csv(TEXTS / "unseen.tsv", sep="\t", names=["lang", "text"])
    number = unseen.groupby("lang").cumcount().map("-{:02d}".format)
    unseen.insert(0, "id", "unseen-" + unseen.lang + number)
    write_lines(DATA / "unseen.jsonl", unseen.to_dict("records"))
    shutil.copy(TEXTS / "ATTRIBUTION.md", DATA / "ATTRIBUTION.md")
    for part in SIZES:
        spoken, rows = items(part, frame)
        version = {
            "version": VERSION,
            "items": len(rows),
            "sha256": write_lines(DATA / part / "items.jsonl", rows),
            "references_sha256": write_lines(DATA / part / "references.jsonl", spoken),
        }
        with whole(DATA / part / "VERSION.json") as partial:
            partial.write_text(json.dumps(version, indent=2) + "\n")
