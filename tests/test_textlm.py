"""Models that read raw text: what is read where, that they learn it, and that they speak from it."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from conftest import make_prompt
from test_conformance import checks

from intp.adapters.ar import ARAdapter
from intp.adapters.base import Example, Prompt
from intp.corpus import Utterance
from intp.params import SCALES, load_params
from texts.phonemes import phonemise
from zoo import pieces
from zoo.ars import Segment
from zoo.muon import optimizers
from zoo.reading import places
from zoo.textlm import SpeechTask, TextTask, new_adapter
from zoo.texts import Line

MODELS = {
    "ints": "networks.ar_upstream:IntsFrontend",
    "cosyvoice2": "networks.ar_upstream:CosyVoice2Frontend",
}
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip
SAID = {
    "en": ["Hello, teacher!", "It is a nice day.", "The cat sat down."],
    "zh": ["你好，老师。", "我们去银行。", "今天天气很好。"],
}
WORDS = {
    "en": ["teacher", "nice", "cat", "sun", "red", "big", "map", "fish", "moon", "bird"],
    "zh": ["老师", "银行", "天气", "你好", "我们", "今天", "学生", "苹果"],
}
GREEDY = {"temperature": 1e-4, "top_k": 1, "top_p": 1.0, "max_seconds": 4.0}


def line(kind: str, lang: str, text: str) -> Line:
    phonemes = phonemise(text, lang)
    return Line(kind, lang, text, phonemes, tuple(places(text, phonemes, lang)))


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    found = [line("sentence", lang, text) for lang in SAID for text in SAID[lang]]
    return found + [line("word", lang, word) for lang in WORDS for word in WORDS[lang]]


@pytest.fixture(scope="module")
def folder(lines: list[Line], tmp_path_factory) -> Path:
    """A text tokenizer of the texts above."""
    english = [row.text for row in lines if row.lang == "en"] * 3
    chinese = sorted({c for row in lines if row.lang == "zh" for c in row.text})
    sounds = {symbol for row in lines for symbol in row.phonemes + ", "}
    folder = tmp_path_factory.mktemp("text") / "tiny"
    pieces.save(pieces.build(english, chinese, sounds, 500), folder)
    return folder


@pytest.fixture(params=MODELS)
def reader(request, folder: Path, tokenizer) -> ARAdapter:
    torch.manual_seed(2)
    return new_adapter(MODELS[request.param], folder, SIZES, tokenizer)


def utterance(lang: str, text: str) -> Utterance:
    return Utterance(
        id=text, lang=lang, text=text, phonemes=phonemise(text, lang),
        voice={lang: 1.0}, speed=1.0, topic="", level=0, duration=1.0, shard="",
    )  # fmt: skip


def spoken(row: Utterance) -> list[Segment]:
    """Tokens that hang on the phoneme alone, two a sounding phoneme."""
    sounding = [i for i, symbol in enumerate(row.phonemes) if symbol.isalpha()]
    phoneme = torch.tensor(sounding).repeat_interleave(2)
    tokens = torch.tensor([(37 * ord(row.phonemes[i])) % 1000 for i in phoneme.tolist()])
    return [Segment(tokens, phoneme)]


def rows_and_versions() -> tuple[list[Utterance], dict[str, list[Segment]]]:
    rows = [utterance(lang, text) for lang in SAID for text in SAID[lang]]
    return rows, {row.id: spoken(row) for row in rows}


def read(text: str, lang: str) -> list[tuple[str, str]]:
    """Words or characters of a text, each with its phonemes as `places` deals them out."""
    phonemes = phonemise(text, lang)
    found = places(text, phonemes, lang)
    assert len(found) == len(phonemes) and found == sorted(found)
    return [(text[i], "".join(s for s, j in zip(phonemes, found, strict=True) if j == i).strip())
            for i in dict.fromkeys(found)]  # fmt: skip


def test_an_english_word_s_sounds_go_along_its_letters():
    text, phonemes = "Hi, cats!", phonemise("Hi, cats!", "en")
    found = places(text, phonemes, "en")
    words = {symbol: text[place] for symbol, place in zip(phonemes, found, strict=True)}
    assert (words["k"], words["æ"], words["t"], words["s"]) == ("c", "a", "t", "s")
    assert (words["h"], words[","], words["!"]) == ("H", ",", "!")


def test_a_chinese_character_s_sounds_are_its_syllable():
    def syllable(text: str) -> str:
        return phonemise(text, "zh")

    assert dict(read("我去银行。", "zh"))["行"] == "xa↗ŋ"  # háng of a bank, not xíng
    assert dict(read("我去银行。", "zh"))["我"] == syllable("我")
    assert [c for c, _ in read("你好，老师。", "zh")] == list("你好，老师。")
    assert dict(read("你好，老师。", "zh"))["老"] == syllable("老")


def test_weak_forms_and_joined_words_stay_with_their_text():
    text = "A friend of the family is at a party."
    phonemes = phonemise(text, "en")
    found = places(text, phonemes, "en")
    for word in ("friend", "family", "party"):
        start, first = text.index(word), phonemise(word, "en").strip("ˈˌ")[0]
        assert any(
            symbol == first and start <= place < start + len(word)
            for symbol, place in zip(phonemes, found, strict=True)
        ), word
    assert found == sorted(found)
    with pytest.raises(ValueError, match="no word of zh"):
        places("。！", "", "zh")


@pytest.mark.parametrize("lang", SAID)
def test_every_token_is_led_to_the_piece_of_text_that_it_sounds(
    reader: ARAdapter, lines: list[Line], lang: str
):
    rows, versions = rows_and_versions()
    task = SpeechTask(TextTask(reader, lines, 200, 0.5, 0), rows, versions, 200, 3, 0.2, 0)
    some = [row for row in rows if row.lang == lang]
    row = task.row(some, [task.versions[r.id][0] for r in some])
    ids, where, labels = (row[key].tolist() for key in ("input_ids", "where", "labels"))
    offset, tokenizer = reader.frontend.offset, reader.frontend.tokenizer
    sounding = [(r, i) for r in some for i in versions[r.id][0].phoneme.tolist()]
    found = [(w, y) for w, y in zip(where, labels, strict=True) if w >= 0]
    assert len(found) == len(sounding)
    for (column, label), (said, phoneme) in zip(found, sounding, strict=True):
        assert label - offset == (37 * ord(said.phonemes[phoneme])) % 1000
        piece = tokenizer.decode([ids[column] - task.lm.first])
        character = said.text[places(said.text, said.phonemes, lang)[phoneme]]
        assert character in piece
        assert lang == "en" or piece == character  # a Chinese character is one piece
    assert labels[-1] == reader.ids["eos_target"] and where[-1] == -1


def test_a_pronunciation_line_is_laid_out_as_speech_is(reader: ARAdapter, lines: list[Line]):
    task = TextTask(reader, lines, 200, 0.5, 0)
    words = [row for row in lines if (row.kind, row.lang) == ("word", "zh")][:2]
    row = task.sound_row(words)
    tokenizer, first = reader.frontend.tokenizer, task.lm.first
    back = [tokenizer.decode([i - first]) if i >= first else "" for i in row["input_ids"].tolist()]
    start = back.index(pieces.SOUNDS)
    said = "".join(back[start + 1 :])
    assert said == "".join(pieces.sound(s) for s in ", ".join(w.phonemes for w in words))
    assert "老师，银行" in "".join(back[:start])
    heard = [back[c] for c in row["where"].tolist() if c >= 0]
    assert list(dict.fromkeys(heard)) == list("老师银行")
    assert len(row["position_ids"]) == len(row["input_ids"]) == len(row["labels"])
    assert row["position_ids"].diff()[start:].tolist() == [1.0] * (len(back) - start - 1)


def test_the_tokenizer_is_the_same_twice_and_reads_every_text_back(lines, folder, tmp_path: Path):
    english = [row.text for row in lines if row.lang == "en"] * 3
    chinese = sorted({c for row in lines if row.lang == "zh" for c in row.text})
    sounds = {symbol for row in lines for symbol in row.phonemes + ", "}
    pieces.save(pieces.build(english, chinese, sounds, 500), tmp_path / "again")
    for file in sorted(folder.iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    made = pieces.build(english, chinese, sounds, 500)
    assert len(made) <= 500
    for text in ("Hello, teacher!", "我们去龘。", "Ça va? 你好 ok 🙂", "it's\n well-known"):
        assert made.decode(made(text)["input_ids"]) == text
    for character in "".join(chinese):
        assert len(made(character)["input_ids"]) == 1
    assert len(made("龘")["input_ids"]) == 3  # not among its characters: bytes
    for phrase in pieces.PHRASES:
        assert len(made(phrase)["input_ids"]) == 1
    with pytest.raises(ValueError, match="fewer characters"):
        pieces.build(english, chinese, sounds, 300)


def train(model: torch.nn.Module, task, steps: int) -> list[float]:
    model.train()
    found, steppers = [], optimizers(model, 4e-3, 0.01, "muon")
    for step in range(steps):
        for group in [group for stepper in steppers for group in stepper.param_groups]:
            group["lr"] = 4e-3 * min((step + 1) / 10, 1 - step / steps)
        torch.manual_seed(step)
        loss, _ = task(step)
        model.zero_grad()
        loss.backward()
        for stepper in steppers:
            stepper.step()
        found.append(loss.item())
    model.eval()
    return found


def three_words(lang: str, count: int, seed: int) -> list[Utterance]:
    """Utterances of three words each, drawn by seed."""
    gap, random = {"en": " ", "zh": ""}[lang], Random(seed)
    return [utterance(lang, gap.join(random.choices(WORDS[lang], k=3))) for _ in range(count)]


def test_a_few_words_learned_it_reads_new_texts_and_speaks(
    reader: ARAdapter, lines: list[Line], monkeypatch
):
    text = TextTask(reader, lines, 200, 0.7, 40)
    found = train(reader.model, text, 40)
    assert sum(found[-5:]) < 0.9 * sum(found[:5])
    rows = [row for lang in WORDS for row in three_words(lang, 60, 0)]
    versions = {row.id: spoken(row) for row in rows}
    found = train(reader.model, SpeechTask(text, rows, versions, 220, 2, 0.2, 130), 130)
    assert sum(found[-5:]) < 0.6 * sum(found[:5])
    reference, margins = make_prompt("x").reference_speech, []

    def prompt(target: Utterance, before: Utterance) -> Prompt:
        return Prompt("x", target.text, "", target.lang, before.text, "", before.lang, reference)

    for lang in WORDS:
        before, *new = [row for row in three_words(lang, 8, 1) if row.id not in versions][:4]
        monkeypatch.setattr(reader, "encode", lambda _, heard=before: spoken(heard)[0].tokens)
        for number, said in enumerate(new):
            answers = [Example(prompt(row, before), spoken(said)[0].tokens) for row in new]
            with torch.no_grad():
                scores = reader.score(reader.model, reader.batch(answers)).tolist()
            own = scores.pop(number)
            margins.append(own - max(scores))
    # Texts never trained on: the right one makes what is said of it likeliest.
    assert len(margins) == 6 and sum(margin > 0 for margin in margins) >= 5 and sum(margins) > 6
    monkeypatch.undo()
    speech = reader.synthesise([prompt(new[0], before)], GREEDY, [0])[0]
    assert speech.samples.dtype.kind == "f" and len(speech.samples) > 0


def test_held_out_measures_are_told_by_language_and_kind(reader: ARAdapter, lines: list[Line]):
    text = TextTask(reader, lines, 200, 0.5, 0)
    found = text.held_out(lines, "zh")
    assert found.keys() == {f"held_out_{kind}_zh" for kind in ("word", "sentence", "text")}
    rows, versions = rows_and_versions()
    task = SpeechTask(text, rows, versions, 200, 2, 0.2, 0)
    again = task.held_out(rows, versions, "en"), task.held_out(rows, versions, "en")
    assert again[0] == again[1] > 5  # an untrained model's ln 1,000 is 6.9


def test_it_conforms_and_loads_as_it_was_saved(reader: ARAdapter, tokenizer):
    found = checks(reader, lambda path: ARAdapter.load(path, tokenizer))
    assert all(found.values()), found


def test_mini_and_published_are_one_adapter_by_configuration(reader: ARAdapter):
    name = "ints" if "Ints" in reader.config.frontend else "cosyvoice2"
    published = load_params("paper").models[name]
    mini = load_params("mini").models[name]
    assert published.adapter == mini.adapter == "intp.adapters.ar:ARAdapter"
    assert published.published["frontend"] == reader.config.frontend
    assert mini.published is None and mini.checkpoint.endswith("-mini.safetensors")


@pytest.mark.parametrize("model", MODELS)
def test_sizes_stay_within_eight_million_and_sixteen_megabytes(model: str, folder: Path):
    for scale in [scale for scale in SCALES if scale != "paper"]:
        sizes = load_params(scale).models[model].config
        with torch.device("meta"):
            made = new_adapter(MODELS[model], folder, sizes, None).model
        tables = {"ints": 2, "cosyvoice2": 1}[model]  # text's own rows stand in one table or in two
        more = 4096 - len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
        count = sum(p.numel() for p in made.parameters()) + tables * more * sizes["hidden_size"]
        stored = (
            sum(t.numel() for t in made.state_dict().values()) + 2 * more * sizes["hidden_size"]
        )
        assert count <= 8e6 and 2 * stored <= 16e6


def test_tables_of_the_vocabulary_are_left_to_adamw(reader: ARAdapter):
    adamw, muon = optimizers(reader.model, 1e-3, 0.0, "muon")
    tables = {id(p) for name, p in reader.model.named_parameters()
              if p.ndim == 2 and max(p.shape) > 300}  # fmt: skip
    assert tables and not tables & {id(p) for g in muon.param_groups for p in g["params"]}
    assert tables <= {id(p) for g in adamw.param_groups for p in g["params"]}
