"""What the raw-text models read before speech holds nothing of the development and evaluation sets."""

import json
import re
from itertools import islice

import pytest

from intp.params import load_params
from intp.paths import DATA
from zoo import texts
from zoo.texts import Line

PARTS = ("evaluation", "development")


def plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


@pytest.fixture(scope="module")
def said() -> set[str]:
    """What the two sets say, read from their items and recordings and not by the code under test."""
    rows = [
        json.loads(line)
        for part in PARTS
        for name in ("items", "references")
        for line in (DATA / part / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    found = {row.get("target_text", row.get("text")) for row in rows}
    ids = {name for row in rows for name in row["sentences"]}
    for line in (DATA / "sentences.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["id"] in ids:
            found |= {row["zh"], row["en"]}
    return {plain(text) for text in found}


def clash(lines: list[str], said: set[str]) -> list[str]:
    """What lines say of the two sets' texts: as a whole, as a sentence, or a long one inside."""
    long = [text for text in said if len(text) > 30]
    whole = "\n".join(plain(line) for line in lines)
    found = [text for text in long if text in whole]
    for line in lines:
        found += [part for part in (line, *re.split(r"[.!?。！？]", line)) if plain(part) in said]
    return found


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_source_in_this_repository_says_an_evaluation_text(lang: str, said: set[str]):
    sources = [*texts.own_sentences(lang), *(texts.glosses() if lang == "zh" else [])]
    sources += islice(texts.chinese_words(), 3000) if lang == "zh" else []
    kept = texts.separate(sources, texts.kept_out())
    assert len(kept) > 0.9 * len(sources)
    assert not clash(kept, said)


def test_a_text_kept_out_is_found_wherever_it_stands(said: set[str]):
    forbidden = texts.kept_out()
    assert said <= forbidden
    held = texts.json_lines(DATA / "evaluation" / "items.jsonl")[::40]
    hidden = [f"He said: {row['target_text']} Then he left." for row in held]
    lines = ["A line of no set.", *(row["target_text"].upper() for row in held), *hidden]
    assert texts.separate(lines, forbidden) == ["A line of no set."]


def test_the_lines_collected_here_hold_none_either(said: set[str]):
    collected = texts.lines_file(load_params())
    if not collected.is_file():
        pytest.skip("not collected here: python -m zoo.texts")
    lines = [Line(**row) for row in texts.json_lines(collected)]
    assert not clash([line.text for line in lines], said)
    assert {line.lang for line in lines if line.kind == "word"} == {"en", "zh"}
    assert all(len(line.places) == len(line.phonemes) for line in lines)


def test_a_gloss_gives_its_definition_and_its_examples():
    gloss = 'move in a gentle way; "she glided across the floor"; "go slowly" (usually 3 parts)'
    assert texts.sentences_of_gloss(gloss) == [
        "Move in a gentle way.", "She glided across the floor.",
    ]  # fmt: skip


def test_texts_of_another_script_are_left_out():
    assert texts.once(["Hi there.", "Hi 你.", "...", "Hi there."], "en") == ["Hi there."]
    assert texts.once(["你好。", "打开 CSS 文件。", "，"], "zh") == ["你好。"]


def test_what_has_no_phonemes_or_strange_ones_is_left_out():
    found = list(texts.pronounced("word", "zh", ["瓧", "你好", "老师"], set("ni↓xau")))
    assert [line.text for line in found] == ["你好"]
    assert found[0].places == (0, 0, 0, 1, 1, 1, 1)
