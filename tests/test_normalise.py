"""Every rule of seed-tts-eval's normalisation and every trap of it, on examples."""

import pytest

from texts.normalise import (
    NORMALISER_VERSION,
    Errors,
    count_errors,
    error_units,
    matrix_language,
    read_number,
    wer_units,
)


@pytest.mark.parametrize(
    ("text", "lang", "units"),
    [
        pytest.param("It's me", "en", ["it's", "me"], id="straight apostrophe stays"),
        pytest.param("It’s me", "en", ["its", "me"], id="curly apostrophe goes"),
        pytest.param("a well-known fact", "en", ["a", "wellknown", "fact"], id="hyphen joins"),
        pytest.param("so — and…  on", "en", ["so", "and", "on"], id="dash and ellipsis go"),
        pytest.param("50% of $3+4", "en", ["50", "of", "34"], id="signs vanish"),
        pytest.param("Fifty, NOT 50!", "en", ["fifty", "not", "50"], id="numbers stay"),
        pytest.param("Mr. O.K.", "en", ["mr", "ok"], id="no abbreviation is spelled out"),
        pytest.param("a   b\u3000c", "en", ["a", "bc"], id="wide blank is punctuation"),
        pytest.param("Straße, Öl", "de", ["straße", "öl"], id="German by words"),
        pytest.param("L'été", "fr", ["l'été"], id="French by words"),
        pytest.param("你好，世界。", "zh", list("你好世界"), id="Chinese by characters"),
        pytest.param("我用Apple 15 个", "zh", list("我用Apple15个"), id="Latin and digits too"),
        pytest.param("（你）《好》“吗”？", "zh", list("你好吗"), id="Chinese brackets and quotes"),
        pytest.param("今日は。", "ja", list("今日は"), id="Japanese by characters"),
        pytest.param("안녕 하세요", "ko", list("안녕하세요"), id="Korean, blanks do not count"),
        pytest.param("請用Wi-Fi上網", "mixed", ["請", "用", "wifi", "上", "網"], id="mixed, ours"),
    ],
)
def test_wer_units(text: str, lang: str, units: list[str]) -> None:
    assert wer_units(text, lang) == units


def test_mixed_upstream_counts_letters_in_their_case() -> None:
    assert wer_units("用Wi-Fi", "mixed", "wer_upstream") == ["用", *"WiFi"]
    ours = count_errors("我爱Apple", "我爱 apple", "mixed")
    upstream = count_errors("我爱Apple", "我爱 apple", "mixed", "wer_upstream")
    assert (ours.edits, ours.length) == (0, 3)
    assert (upstream.edits, upstream.length) == (1, 7)


def test_traditional_is_converted_in_the_transcript_only() -> None:
    assert count_errors("学习", "學習", "zh").edits == 0
    assert count_errors("學習", "学习", "zh").edits == 2
    assert count_errors("用电脑", "用電腦", "mixed").edits == 0
    assert count_errors("電話", "電話", "ja").edits == 0


@pytest.mark.parametrize(
    ("text", "lang", "units"),
    [
        ("绿色的。", "zh", ["lv", "se", "de"]),
        ("我还在，还书", "zh", ["wo", "hai", "zai", "huan", "shu"]),
        ("3点10分", "zh", ["san", "dian", "shi", "fen"]),
        ("2024年", "zh", ["er", "ling", "er", "si", "nian"]),
        ("买MP3和iPhone 15", "mixed", ["mai", "mp3", "he", "iphone", "shi", "wu"]),
        ("Don’t stop", "en", ["dont", "stop"]),
        ("今日は", "ja", ["今", "日", "は"]),
    ],
)
def test_error_units(text: str, lang: str, units: list[str]) -> None:
    assert error_units(text, lang) == units


def test_homophones_are_no_syllable_error() -> None:
    assert count_errors("他在那儿", "她再那儿", "zh").rate == 50.0
    assert count_errors("他在那儿", "她再那儿", "zh", "error").rate == 0.0


@pytest.mark.parametrize(
    ("digits", "read"),
    [
        ("0", "零"), ("10", "十"), ("15", "十五"), ("20", "二十"), ("101", "一百零一"),
        ("1010", "一千零一十"), ("10500", "一万零五百"), ("100001", "十万零一"), ("007", "零零七"),
        ("3.14", "三点一四"), ("123456789", "一二三四五六七八九"),
    ],
)  # fmt: skip
def test_read_number(digits: str, read: str) -> None:
    assert read_number(digits) == read


@pytest.mark.parametrize("heard", ["", "   ", "?! … 。，—", "“”"])
@pytest.mark.parametrize(("target", "lang", "length"), [("one two", "en", 2), ("你好吗", "zh", 3)])
@pytest.mark.parametrize("kind", ["wer", "wer_upstream", "error"])
def test_nothing_heard_is_all_deleted(
    heard: str, target: str, lang: str, length: int, kind: str
) -> None:
    assert count_errors(target, heard, lang, kind) == Errors(0, length, 0, length)


def test_edits_are_told_apart_and_may_exceed_the_length() -> None:
    errors = count_errors("the cat sat", "a cat", "en")
    assert (errors.substitutions, errors.deletions, errors.insertions) == (1, 1, 0)
    assert errors.rate == pytest.approx(200 / 3)
    assert count_errors("one", "one and one more", "en").rate == 300.0


@pytest.mark.parametrize("target", ["", " ", "。！？", "- – —"])
def test_an_empty_target_is_an_error_that_shows_it(target: str) -> None:
    with pytest.raises(ValueError, match="nothing to count") as caught:
        count_errors(target, "hello", "en")
    assert repr(target) in str(caught.value)


def test_unknown_language_and_kind() -> None:
    with pytest.raises(ValueError, match="'xx'; known are en"):
        count_errors("a", "a", "xx")
    with pytest.raises(ValueError, match="'cer'; known are wer"):
        count_errors("a", "a", "en", "cer")


def test_the_version_names_what_the_counts_depend_on() -> None:
    for name in ("zhon", "zhconv", "pypinyin", "jiwer"):
        assert name in NORMALISER_VERSION


def test_matrix_language() -> None:
    assert matrix_language("Old people like 安静 places with good 空气.") == "en"
    assert matrix_language("吃两片 medicine，你就 feel better 了。") == "zh"
    assert matrix_language("我 agree 你") == "zh"
