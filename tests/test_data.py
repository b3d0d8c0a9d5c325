"""The data keep apart what must be apart, and are what their versions say."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from intp.corpus import Utterance, read_manifest
from intp.paths import DATA
from texts.phonemes import phonemise
from tools.mix import plan

PARTS = {"evaluation": 60, "development": 16}
DIRECTIONS = {
    ("regular", "en"): ("en", "en"),
    ("regular", "zh"): ("zh", "zh"),
    ("articulatory", "en"): ("en", "en"),
    ("articulatory", "zh"): ("zh", "zh"),
    ("code-switching", "en2mixed"): ("en", "mixed"),
    ("code-switching", "zh2mixed"): ("zh", "mixed"),
    ("cross-lingual", "zh2en"): ("zh", "en"),
    ("cross-lingual", "en2zh"): ("en", "zh"),
}
EVALUATION_VOICES = {"af_bella", "am_puck", "bf_lily", "bm_lewis", "zf_xiaoyi", "zm_yunyang"}
DEVELOPMENT_VOICES = {"af_nicole", "am_santa"}
LIMITS = {"en": (6, 14), "zh": (9, 20), "mixed": (8, 20)}
HAN = re.compile(r"[\u4e00-\u9fff]")
WORD = re.compile(r"[A-Za-z0-9']+")
# Symbols of target phonemes that no training utterance has; none so far.
UNSEEN_SYMBOLS: set[str] = set()


def lines(path: Path) -> list[dict]:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def plain(text: str) -> str:
    """A text without case, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", text.lower())


@pytest.fixture(scope="module")
def training() -> list[Utterance]:
    """The training corpus, with whatever it has grown by."""
    return [
        row
        for path in sorted(DATA.glob("corpus*/manifest.jsonl"))
        for row in read_manifest(path.parent)
    ]


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict]]:
    """Items of both parts."""
    return {part: lines(DATA / part / "items.jsonl") for part in PARTS}


@pytest.fixture(scope="module")
def references() -> dict[str, list[dict]]:
    """What the references of both parts say, and in which voice."""
    return {part: lines(DATA / part / "references.jsonl") for part in PARTS}


@pytest.fixture(scope="module")
def sentences() -> dict[str, dict]:
    """Bilingual sentences by id."""
    return {row["id"]: row for row in lines(DATA / "sentences.jsonl")}


def used(items: list[dict], references: list[dict]) -> set[str]:
    """Ids of all sentences that a part's items and references are made of."""
    return {name for row in [*items, *references] for name in row["sentences"]}


def test_sentences_are_disjoint(training, items, references, sentences):
    """Training, development and evaluation share neither a sentence nor its text."""
    held_out = set(json.loads((DATA / "corpus" / "held_out_ids.json").read_text()))
    spoken = {row.id.removeprefix("mixed-").rsplit("-", 1)[0] for row in training}
    # A grown corpus may join sentences, so each sentence of a text counts as well as the whole.
    texts = {plain(row.text) for row in training}
    texts |= {plain(piece) for row in training for piece in re.split(r"[.!?。！？]", row.text)}
    parts = {part: used(items[part], references[part]) for part in PARTS}
    assert not parts["evaluation"] & parts["development"]
    for part, names in parts.items():
        assert names <= held_out and not names & spoken
        assert {sentences[name]["part"] for name in names} == {part}
        for name in names:
            assert not {plain(sentences[name]["zh"]), plain(sentences[name]["en"])} & texts, name
    said = {
        part: {plain(row["target_text"]) for row in items[part]}
        | {plain(row["text"]) for row in references[part]}
        | {plain(sentences[name][lang]) for name in parts[part] for lang in ("en", "zh")}
        for part in PARTS
    }
    assert not said["evaluation"] & said["development"]
    assert not (said["evaluation"] | said["development"]) & texts
    long = [text for part in said.values() for text in part if len(text) > 30]
    assert not [text for text in long for other in texts if text in other]


def test_speech_across_languages_is_what_its_tool_plans():
    def said(rows: list[Utterance]) -> list[Utterance]:
        return [replace(row, duration=0.0, shard="") for row in rows]

    rows = read_manifest(DATA / "corpus-mixed")
    assert len(rows) == 2400 and said(rows[:60]) == plan(60, seed=0)


def test_twisters_are_disjoint():
    """No tongue twister stands in both parts; there are at least 70 a language for evaluation."""
    rows = lines(DATA / "twisters.jsonl")
    counts = Counter(plain(row["text"]) for row in rows)
    assert not [text for text, count in counts.items() if count > 1]
    per_language = Counter((row["part"], row["lang"]) for row in rows)
    assert min(per_language["evaluation", lang] for lang in ("en", "zh")) >= 70
    assert min(per_language["development", lang] for lang in ("en", "zh")) >= 16


def test_voices_are_disjoint(training, references):
    """Nothing of an evaluation voice is heard in training or development; a development voice is a
    blend that no training utterance has, but for its parts."""
    trained = {name for row in training for name in row.voice}
    mixtures = {frozenset(row.voice) for row in training}
    assert not trained & (EVALUATION_VOICES | DEVELOPMENT_VOICES)
    for row in references["evaluation"]:
        assert set(row["voice"]) <= EVALUATION_VOICES, row["id"]
    for row in references["development"]:
        assert set(row["voice"]) <= DEVELOPMENT_VOICES | trained, row["id"]
        assert frozenset(row["voice"]) not in mixtures, row["id"]
    for row in [*references["evaluation"], *references["development"]]:
        assert sum(row["voice"].values()) == pytest.approx(1)
        assert 0.9 <= row["speed"] <= 1.1


@pytest.mark.parametrize("part", PARTS)
def test_items(part, items, references):
    """Counts, languages, lengths, scripts and prompts of every direction."""
    rows, by_id = items[part], {row["id"]: row for row in references[part]}
    assert Counter((row["set"], row["direction"]) for row in rows) == dict.fromkeys(
        DIRECTIONS, PARTS[part]
    )
    assert len({row["id"] for row in rows}) == len(rows)
    targets = Counter((row["set"], plain(row["target_text"])) for row in rows)
    assert max(targets.values()) == 1
    for row in rows:
        reference, text = by_id[row["reference"]], row["target_text"]
        assert row["split"] == part
        assert DIRECTIONS[row["set"], row["direction"]] == (row["prompt_lang"], row["target_lang"])
        assert (row["prompt_lang"], row["prompt_text"]) == (reference["lang"], reference["text"])
        assert plain(row["prompt_text"]) != plain(text)
        assert not set(row["sentences"]) & set(reference["sentences"]), row["id"]
        han, words = len(HAN.findall(text)), len(WORD.findall(text))
        low, high = LIMITS[row["target_lang"]]
        assert low <= han + words <= high, text
        assert (han > 0, words > 0) == (row["target_lang"] != "en", row["target_lang"] != "zh"), (
            text
        )


@pytest.mark.parametrize("part", PARTS)
def test_prefixes_are_balanced(part, items, references):
    """The first 14 items of a direction hear 12 references or more and both kinds of twister."""
    for key in DIRECTIONS:
        rows = [row for row in items[part] if (row["set"], row["direction"]) == key][:14]
        assert len({row["reference"] for row in rows}) >= 12
        topics = Counter(row["topic"] for row in rows)
        assert len(topics) == 2 if key[0] == "articulatory" else len(topics) >= 6
        assert max(topics.values()) <= 7


@pytest.mark.parametrize("part", PARTS)
def test_version(part, items):
    """VERSION.json names the version of every item and the hash of the file."""
    version = json.loads((DATA / part / "VERSION.json").read_text())
    assert {row["version"] for row in items[part]} == {version["version"]}
    assert len(items[part]) == version["items"]
    for name, key in (("items", "sha256"), ("references", "references_sha256")):
        content = (DATA / part / f"{name}.jsonl").read_bytes()
        assert hashlib.sha256(content).hexdigest() == version[key]


@pytest.mark.parametrize("part", PARTS)
def test_recordings(part, items, references):
    """References last 2 to 5 seconds; what was recorded is what the items say, in that voice."""
    if not (DATA / part / "references" / "manifest.jsonl").is_file():
        pytest.skip("not recorded yet: python tools/build_data.py references")
    voices = {row["id"]: row for row in references[part]}
    recorded = {row.id: row for row in read_manifest(DATA / part / "references")}
    assert recorded.keys() == voices.keys()
    for name, row in recorded.items():
        assert 2.0 <= row.duration <= 5.0, name
        assert (row.text, row.voice) == (voices[name]["text"], voices[name]["voice"])
    if not (DATA / part / "recordings" / "manifest.jsonl").is_file():
        pytest.skip("no topline yet: python tools/build_data.py recordings")
    by_id = {row["id"]: row for row in items[part]}
    toplines = read_manifest(DATA / part / "recordings")
    for row in toplines:
        assert row.text == by_id[row.id]["target_text"]
        assert row.voice == voices[by_id[row.id]["reference"]]["voice"]
    numbers = {row.id: int(row.id.rsplit("-", 1)[1]) for row in toplines}
    count = Counter(name.rsplit("-", 1)[0] for name in numbers)
    for direction, size in count.items():
        prefix = {number for name, number in numbers.items() if name.startswith(f"{direction}-")}
        assert prefix == set(range(size)), direction


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_phonemes_are_the_corpus(lang, training):
    """`phonemise` gives the manifest's phonemes back."""
    rows = [row for row in training if row.lang == lang]
    for row in rows[:: len(rows) // 40][:40]:
        assert phonemise(row.text, lang) == row.phonemes


def test_phonemes_of_items(training, items, references):
    """All symbols occur in training, and the items hold what `phonemise` says."""
    known = {symbol for row in training for symbol in row.phonemes} | UNSEEN_SYMBOLS
    for part in PARTS:
        for row in items[part]:
            assert set(row["target_phonemes"]) <= known, row["target_text"]
        for row in references[part]:
            assert set(row["phonemes"]) <= known, row["text"]
        for row in items[part][::7]:
            assert phonemise(row["target_text"], row["target_lang"]) == row["target_phonemes"]


def test_phonemes_of_mixed_text():
    """Stretches keep their reading; an article before Chinese stays an article."""
    assert phonemise("我有一个 meeting，明天见。", "mixed") == (
        f"{phonemise('我有一个', 'zh')} {phonemise('meeting', 'en')}, {phonemise('明天见。', 'zh')}"
    )
    assert "hæv ə k" in phonemise("We have a 考试.", "mixed")


@pytest.mark.parametrize(
    ("text", "lang", "said"),
    [
        ("Bonjour.", "fr", "unknown language 'fr'"),
        ("", "en", "empty text"),
        ("。！", "zh", "empty text"),
        ("I like 茶.", "en", "not en"),
        ("我喜欢 tea。", "zh", "not zh"),
    ],
)
def test_phonemise_refuses(text, lang, said):
    """What cannot be read is named."""
    with pytest.raises(ValueError, match=said):
        phonemise(text, lang)


def test_unseen_languages():
    """At least 30 sentences each, of 5 to 14 words or, in Japanese, 10 to 30 characters."""
    rows = lines(DATA / "unseen.jsonl")
    counts = Counter(row["lang"] for row in rows)
    assert counts.keys() == {"ja", "ko", "de", "fr"} and min(counts.values()) >= 30
    for row in rows:
        if row["lang"] == "ja":
            assert 10 <= len(row["text"]) <= 30
        else:
            assert 5 <= len(re.findall(r"[\w'’-]+", row["text"])) <= 14, row["text"]
