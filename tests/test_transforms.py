"""Every text type changes what a model reads, hangs on its seed alone, and refuses what is none."""

import json
import re
from pathlib import Path

import pytest

from intp.paths import DATA, ROOT
from networks.f5 import pinyin
from texts.glosses import Lexicon, base_forms, build_lexicon, read_lexicon, senses
from texts.homophones import Reader, changed_marks, changed_share, heard, sounds_like
from texts.phonemes import HAN, LATIN, phonemise
from texts.regular import clean
from texts.transforms import KINDS, Refused, Rules, check, show

PANDA = {"en": "A panda eats shoots and leaves.", "zh": "熊猫吃竹笋和叶子。"}
TEXTS = {
    "en": [
        "The landlord raised the rent.",
        "Don't spill the water, it is hot. The courier picks up tomorrow.",
        "I will never forget your help with my little brother.",
    ],
    "zh": [
        "房东把房租提高了。",
        "他喝醉了，我永远不会忘记你的帮助。",
        "水果要吃新鲜的，请你尝尝。",
    ],
}
EVERY = [(lang, text) for lang in TEXTS for text in [PANDA[lang], *TEXTS[lang]]]


def f5_reading(text: str, lang: str) -> list[str]:
    return pinyin(text)


READERS = {"phonemes": heard, "F5-TTS as published": f5_reading}


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return read_lexicon(DATA / "sentences.jsonl")


@pytest.fixture(scope="module")
def rules(lexicon: Lexicon) -> Rules:
    return Rules(1, lexicon)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_hangs_on_seed_and_text_alone(lexicon: Lexicon, rules: Rules, kind: str):
    alone = [rules.transform(text, lang, kind) for lang, text in EVERY]
    again = [Rules(1, lexicon).transform(text, lang, kind) for lang, text in EVERY[::-1]]
    assert alone == again[::-1]
    if kind != "regular":
        other = Rules(2, lexicon)
        assert alone != [other.transform(text, lang, kind) for lang, text in EVERY]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_type_reaches_every_models_input(lexicon: Lexicon, kind: str, reader: str):
    read = READERS[reader]
    backend = Rules(3, lexicon, read)
    for lang, text in EVERY:
        made = backend.transform(text, lang, kind)
        assert made.kind == kind and made.text.strip() and made.note
        assert made.lang == ("mixed" if kind == "code-switching" else lang)
        assert phonemise(made.text, made.lang) != phonemise(text, lang)
        assert made.changed == check(kind, text, made.text, lang, read) > 0
        if kind == "pronunciation-perturbed":
            assert made.changed >= 0.2
        if kind == "punctuation-perturbed":
            assert changed_marks(text, made.text, lang, read) >= 1


def test_code_switching_goes_both_ways_and_follows_the_translation(rules: Rules):
    for lang, text in EVERY:
        made = rules.transform(text, lang, "code-switching")
        assert HAN.search(made.text) and LATIN.search(made.text)
    made = rules.transform(PANDA["en"], "en", "code-switching", PANDA["zh"])
    assert set(re.findall(r"[\u4e00-\u9fff]+", made.text)) <= {"吃", "叶子"}
    made = rules.transform(PANDA["zh"], "zh", "code-switching", PANDA["en"])
    assert set(re.findall("[A-Za-z]+", made.text)) <= {"eats", "leaves"}
    with pytest.raises(Refused, match="has a gloss"):
        rules.transform("It is what it is.", "en", "code-switching")


def test_repeated_words_stand_behind_the_first_and_never_across_a_mark(rules: Rules):
    made = rules.transform("A cat, a dog, a fish.", "en", "repeated")
    assert len(made.text) > len("A cat, a dog, a fish.")
    assert made.text.count(",") == 2 and made.text.endswith(".")


@pytest.mark.parametrize(
    ("lang", "before", "after", "unheard_by"),
    [
        pytest.param("zh", "他在那儿等她。", "她再那儿等他。", list(READERS), id="homophones"),
        pytest.param("zh", "我今天很高兴", "窝今天很高兴", list(READERS), id="one of six"),
        pytest.param("en", "The knight was here.", "The night was here.", ["phonemes"], id="en"),
        pytest.param("en", "Two for me.", "Too for me.", list(READERS), id="one letter"),
    ],
)
def test_what_a_model_does_not_read_is_refused(
    lang: str, before: str, after: str, unheard_by: list[str]
):
    for name, read in READERS.items():
        if name in unheard_by:
            with pytest.raises(Refused, match="only .*% of what the model reads"):
                check("pronunciation-perturbed", before, after, lang, read)
    assert changed_share("他在那儿", "她再那儿", "zh") == 0
    assert changed_share("我今天很高兴", "窝锦添狠搞醒", "zh") == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("kind", "lang", "after", "reason"),
    [
        ("pronunciation-perturbed", "en", PANDA["en"], "only 0%"),
        ("pronunciation-perturbed", "en", "I am sorry, I cannot help you with that.", "it changed"),
        ("pronunciation-perturbed", "zh", "对不起，这个我做不到。", "it changed"),
        ("pronunciation-perturbed", "zh", "Sorry.", "mixed"),
        ("punctuation-perturbed", "en", "A panda, eats and shoots leaves.", "its words"),
        ("punctuation-perturbed", "zh", PANDA["zh"], "no mark"),
        ("repeated", "en", PANDA["en"], "words of"),
        ("repeated", "zh", "熊猫熊猫吃吃竹笋。", "in their order"),
        ("repeated", "en", "A panda eats eats eats bamboo shoots and leaves.", "in their order"),
        ("code-switching", "en", PANDA["zh"], "one language"),
        ("code-switching", "en", "猫 a", "another text"),
        ("regular", "en", "Here is the text that you wanted to have.", "it changed"),
        ("regular", "en", "", "empty"),
    ],
)
def test_what_is_no_text_of_its_type_is_refused(kind: str, lang: str, after: str, reason: str):
    with pytest.raises(Refused, match=reason) as caught:
        check(kind, PANDA[lang], after, lang)
    assert str(caught.value).startswith(kind)


def test_the_papers_own_examples_are_accepted():
    check("pronunciation-perturbed", PANDA["en"], "A pan duh eights shots n leafs.", "en")
    check("punctuation-perturbed", PANDA["en"], "A panda eats, shoots, and leaves.", "en")
    check("code-switching", PANDA["en"], "熊猫吃 shoots 和 leaves。", "en")
    check("regular", "a panda eats shoes and leaves", PANDA["en"], "en")


def test_unknown_kinds_languages_and_hopeless_texts_are_named(rules: Rules):
    with pytest.raises(ValueError, match="no text type 'sung'"):
        rules.transform("A song.", "en", "sung")
    with pytest.raises(ValueError, match="'mixed'"):
        rules.transform("一首 song。", "mixed", "repeated")
    with pytest.raises(Refused, match="none of 40 variants"):
        rules.transform("A.", "en", "pronunciation-perturbed")
    for kind in KINDS:
        with pytest.raises(Refused):
            rules.transform(" ", "en", kind)


@pytest.mark.parametrize(
    ("lang", "raw", "regular"),
    [
        ("en", "a panda eats  shoes and leaves", "A panda eats shoes and leaves."),
        ("en", "i dont know , teh the car", "I don't know, the car."),
        ("en", "red !!  he left", "Red! He left."),
        ("en", "Well… it’s 3.14 dollars,ok?!", "Well, it's 3.14 dollars, ok?"),
        ("en", "It's 5:30 p.m. now", "It's 5:30 p.m. now."),
        ("en", "I think that that is all,", "I think that that is all."),
        ("zh", "今天 天气 很好,我們去 公園 吧!!", "今天天气很好，我们去公园吧！"),
        ("zh", "你好吗", "你好吗？"),
        ("zh", "他说：“谢谢你。”", "他说：“谢谢你。”"),
        ("zh", "我我想吃,,苹果。。3.5元,好嗎?", "我想吃，苹果。3.5元，好吗？"),
    ],
)
def test_cleaning(lang: str, raw: str, regular: str):
    assert clean(raw, lang) == regular
    assert clean(regular, lang) == regular


def test_what_the_corpus_says_is_clean_already(lexicon: Lexicon):
    for lang, texts in TEXTS.items():
        assert [clean(text, lang) for text in texts] == texts


def test_the_lexicon_believes_a_sense_only_with_a_translation():
    rows = [
        {"zh": "他坐下", "en": "He sits down.", "glosses": [["坐", "", "surname Zuo; to sit"]]},
        {"zh": "错", "en": "Wrong.", "glosses": [["错", "", "mistake"], ["他", "", "him"]]},
    ]
    built = build_lexicon(rows)
    assert built.english == {"坐": ("sit",)} and built.chinese == {"sit": ("坐",)}
    assert senses("(of sth) to move; to set in movement; Bo; the arm (CL:只[zhi1])") == [
        "move",
        "arm",
    ]
    assert {"leaf", "leave"} <= set(base_forms("leaves")) and "stop" in base_forms("stopped")


def test_held_out_sentences_lend_no_word(tmp_path: Path):
    row = {"zh": "坐", "en": "I sit.", "glosses": [["坐", "", "to sit"]]}
    path = tmp_path / "sentences.jsonl"
    for part, size in (("evaluation", 0), ("training", 1)):
        path.write_text(json.dumps(row | {"part": part}), "utf-8")
        assert len(read_lexicon(path).english) == size


def test_near_sounds_are_common_characters_with_one_reading():
    ways = sounds_like("shi4")
    assert "四" in ways["near"] and "十" in ways["tone"] and "试" in ways["homophone"]
    assert sounds_like("?") == {}


def test_the_page_shows_what_the_code_does(rules: Rules):
    page = (ROOT / "docs" / "transforms.md").read_text("utf-8")
    missing = [line for line in show(rules).splitlines() if line not in page]
    assert not missing, "run `python -m texts.transforms data/sentences.jsonl`"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_marks_count_as_the_model_reads_them(read: Reader):
    assert changed_marks("好，走。", "好走。", "zh", read) == 1
    assert changed_marks("Go, now.", "Go now.", "en", read) == 1
    assert changed_marks("Go, now then.", "Go now, then.", "en", read) == 2
    # Kokoro's phonemes know one comma, F5-TTS two.
    assert changed_marks("好，走。", "好、走。", "zh", read) == (read is not heard)
