"""Regular text: Appendix A.1's first step, typos and punctuation set right, by rules."""

import re

import zhconv

FULL_STOP = {"en": ".", "zh": "。"}
END = {"en": re.compile(r"[.!?…]['\")\]]*$"), "zh": re.compile(r"[。！？…][”’）》」』]*$")}
FULL_WIDTH = str.maketrans({",": "，", ".": "。", "!": "！", "?": "？", ";": "；", ":": "："})
PLAIN_WIDTH = str.maketrans({chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)})
STRAIGHT = str.maketrans("“”„‘’`´\u3000\u00a0。、", "\"\"\"''''  .,")
CONTRACTIONS = {
    word.replace("'", ""): word
    for word in (
        "aren't", "can't", "couldn't", "didn't", "doesn't", "don't", "hadn't", "hasn't", "haven't",
        "he's", "I'm", "I've", "isn't", "she's", "shouldn't", "that's", "there's", "they're",
        "they've", "wasn't", "weren't", "what's", "wouldn't", "you're", "you've",
    )
} | {"i": "I"}  # fmt: skip
TYPOS = {
    "accomodate": "accommodate", "adress": "address", "alot": "a lot", "becuase": "because",
    "beleive": "believe", "definately": "definitely", "enviroment": "environment",
    "freind": "friend", "goverment": "government", "happend": "happened", "neccessary": "necessary",
    "occured": "occurred", "recieve": "receive", "seperate": "separate", "suprise": "surprise",
    "taht": "that", "teh": "the", "thier": "their", "tommorow": "tomorrow", "truely": "truly",
    "untill": "until", "wich": "which", "wierd": "weird",
}  # fmt: skip
# Doubled by a slip of the tongue or of a recogniser; "that that" and "谢谢" can be meant.
STUTTERED = {
    "en": re.compile(r"\b(a|an|the|of|to|in|on|at|and|for|with|i|we|they)(?:\s+\1\b)+", re.I),
    "zh": re.compile(r"(的|是|在|我|你|他|她|和|把|被|就)\1+"),
}


def clean(text: str, lang: str) -> str:
    """Regular text: blanks, quotes, marks and width of one kind, typos, stutters, a full stop.

    Chinese becomes simplified. Words are not chosen anew, as the paper's language model may (A.1).
    """
    text = re.sub(r"\s+", " ", text.translate(PLAIN_WIDTH if lang == "en" else {})).strip()
    text = _clean_english(text) if lang == "en" else _clean_chinese(text)
    return text if END[lang].search(text) else text.rstrip(",;:，；：、 -") + FULL_STOP[lang]


def _clean_english(text: str) -> str:
    text = text.translate(STRAIGHT)
    text = re.sub(r"\s*(?:\.{2,}|…+)\s*(?=[A-Za-z])", ", ", re.sub(r"(?:\.{2,}|…+)\s*$", ".", text))
    text = re.sub(r"\s+([,.!?;:])", r"\1", text)
    text = re.sub(r"[,.!?;:]{2,}", _one_mark, text)
    text = re.sub(r"(?<=[a-z])([,!?;:]|\.(?=[A-Z]))(?=[A-Za-z])", r"\1 ", text)
    repairs = TYPOS | CONTRACTIONS

    def repair(match: re.Match[str]) -> str:
        word = match.group()
        right = repairs.get(word.lower(), word)
        return right[0].upper() + right[1:] if word[0].isupper() else right

    text = STUTTERED["en"].sub(r"\1", re.sub(r"(?<![\w'])[A-Za-z]+(?![\w'])", repair, text))
    start = r"(?:^|(?<=[a-z]{2}[.!?] ))(?<!\betc\. )(?<!\bvs\. )['\"]?[a-z]"
    return re.sub(start, lambda match: match.group().upper(), text)


def _one_mark(run: re.Match[str]) -> str:
    """The strongest mark of a run; what follows an abbreviation's full stop stays."""
    marks = run.group()
    if marks[0] == "." and marks[1] != ".":
        return marks[:2]
    return next((mark for mark in "?!." if mark in marks), marks[0])


def _clean_chinese(text: str) -> str:
    text = zhconv.convert(text, "zh-cn")
    text = re.sub(r"(?<=[^\x00-\x7f]) (?=[^\x00-\x7f])| (?=[，。！？；：、])", "", text)
    text = re.sub(
        r"(?<![\dA-Za-z])[,.!?;:]+|[,!?;:.]+$", lambda m: m[0].translate(FULL_WIDTH), text
    )
    text = re.sub(r"(?<=[，。！？；：]) +| +(?=[，。！？；：])", "", text)
    text = re.sub(r"[，、；：]+(?=[。！？])|(?<=[，。！？；：、])[，；：、。]+", "", text)
    text = re.sub(r"([！？])\1+", r"\1", text)
    text = STUTTERED["zh"].sub(r"\1", text)
    return re.sub(r"(?<=[吗呢])$", "？", text)
