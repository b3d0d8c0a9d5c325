"""What the notebook of the models says of them; and that pretraining resumes its own recipe alone."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_tokenizer
from safetensors.torch import load_file

from intp.corpus import Utterance
from intp.params import Params, load_params
from intp.paths import ROOT
from judges import cosine
from networks.tokenizer import SpeechTokenizer
from report.zoo import described, own_and_other, part
from tools import learning_curve
from tools.record import write_corpus
from zoo import __main__ as zoo
from zoo import ars, keys, texts


class Voices:
    """Embeds a clip as the first two of its samples."""

    id = "first two samples"

    def embed(self, audio, progress=None):
        rows = np.stack([clip[:2] for clip in audio])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_model_s_part_is_what_the_parameters_do_with_it():
    params = load_params("mini")
    assert part("ars", params) == "mined and aligned"
    assert part(params.iterative.model, params).endswith("aligned and iterated")


def test_every_model_is_small_and_says_what_it_reads():
    models = described(load_params("mini"))
    assert list(models.index) == ["ARS", "F5-TTS", "MaskGCT", "CosyVoice 2", "Ints"]
    assert models.loc["Ints", "reads"] == "text" and models.loc["ARS", "reads"] == "phonemes"
    assert models["parameters"].between(1, 8).all() and models["megabytes"].between(2, 16).all()
    assert (models["steps"] > 0).all() and (models["hours"] > 0).all()
    assert models.loc["F5-TTS", "architecture"] == "Flow-matching TTS"


def test_other_voices_are_those_of_other_speakers():
    frame = pd.DataFrame({"id": ["a", "b", "c"], "voice": ["x", "y", "x"]})
    said = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0]), "c": np.array([1.0, 1.0])}
    own, other = own_and_other(said, frame, said, Voices())
    a, b, c = (said[name] / np.linalg.norm(said[name]) for name in "abc")
    assert np.isclose(own, 1)
    assert np.isclose(other, np.mean([cosine(a, b), cosine(c, b)]))


TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip
Run = Callable[[Params], list[int]]


def small(name: str = "models.ars.config", value: object = TINY) -> Params:
    """The mini scale with a tiny ARS that pretrains for four steps, one value replaced by its name."""
    spec = {"steps": 4, "save_every": 2, "budget": 60, "warmup": 1}
    spec = {f"pretraining.ars-mini.{key}": number for key, number in spec.items()}
    return load_params("mini", spec | {"models.ars.config": TINY} | {name: value})


def corpus(folder: Path, lang: str, text: str = "ab") -> None:
    """Six utterances of noise in one voice."""
    rows = [
        Utterance(
            id=f"{folder.name}-{lang}-{i}", lang=lang, text=text, phonemes="ab cd.",
            voice={"a": 1.0}, speed=1.0, topic="", level=0, duration=0.6, shard="audio-00.tar",
        )
        for i in range(6)
    ]  # fmt: skip
    noise = np.random.default_rng(len(lang + text)).standard_normal((6, 9600)) / 10
    sound = {row.id: samples for row, samples in zip(rows, noise, strict=True)}
    write_corpus(folder, rows, lambda row: sound[row.id])


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dvc.yaml, two tiny corpora and a tiny tokenizer where pretraining looks for them."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name, lang in zip(zoo.CORPORA, ("en", "zh"), strict=True):
        corpus(tmp_path / "data" / name, lang)
    speech = tmp_path / "checkpoints" / "tokenizer.safetensors"
    speech.parent.mkdir()
    tiny_tokenizer().save(speech)
    monkeypatch.setattr(zoo, "load_tokenizer", lambda: SpeechTokenizer.load(speech))
    monkeypatch.setattr(zoo, "HELD_OUT", 7)  # of twelve, those in Chinese and one in English
    monkeypatch.setattr(zoo, "CHECKPOINTS", speech.parent)
    for module, name in product((zoo, keys, texts), ("ROOT", "DATA", "WORK")):
        if hasattr(module, name):
            place = {"ROOT": "", "DATA": "data", "WORK": ".work"}[name]
            monkeypatch.setattr(module, name, tmp_path / place)
    return tmp_path


@pytest.fixture
def run(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the stage to its end, as the command line does; which steps it trained."""
    trained, step_loss = [], ars.ARTask.__call__
    monkeypatch.setattr(
        ars.ARTask, "__call__", lambda task, step: (trained.append(step), step_loss(task, step))[1]
    )
    monkeypatch.setattr("sys.argv", ["zoo", "ars-mini"])

    def once(params: Params) -> list[int]:
        trained.clear()
        monkeypatch.setattr(zoo, "load_params", lambda: params)
        zoo.main()
        return list(trained)

    return once


def weights(tree: Path) -> torch.Tensor:
    """The pretrained weights, as one vector."""
    found = load_file(tree / "checkpoints" / "ars-mini.safetensors")
    return torch.cat([found[name].flatten().float() for name in sorted(found)])


def test_a_killed_stage_goes_on_where_it_stopped_and_ends_as_one_never_killed(
    tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    make_batch = ars.ARTask.make_batch
    with monkeypatch.context() as patch:

        def killed(task: ars.ARTask, step: int):
            if step == 3:
                raise KeyboardInterrupt
            return make_batch(task, step)

        patch.setattr(ars.ARTask, "make_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            run(small())
    assert not (tree / "checkpoints" / "ars-mini.safetensors").exists()
    assert run(small()) == [2, 3]  # saved at every second step
    resumed = weights(tree)
    assert run(small()) == [], "it was finished"
    shutil.rmtree(tree / ".work")
    assert run(small()) == [0, 1, 2, 3]
    assert torch.equal(weights(tree), resumed)


def other_corpus(tree: Path) -> Params:
    corpus(tree / "data" / "corpus-wordnet", "en", "other words")
    return small()


def other_tokenizer(tree: Path) -> Params:
    other = tiny_tokenizer()
    torch.nn.init.normal_(other.to_code.weight)
    other.save(tree / "checkpoints" / "tokenizer.safetensors")
    return small()


CHANGES: dict[str, Callable[[Path], Params]] = {
    "learning rate": lambda _: small("pretraining.ars-mini.lr", 0.01),
    "seed": lambda _: small("seed", 1),
    "model": lambda _: small("models.ars.config", TINY | {"intermediate_size": 32}),
    "data": other_corpus,
    "tokenizer": other_tokenizer,
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_recipe_starts_anew(tree: Path, run: Run, change: str):
    every = list(range(4))
    assert run(small()) == every
    first = weights(tree)
    assert run(CHANGES[change](tree)) == every
    assert weights(tree).shape != first.shape or not torch.equal(weights(tree), first)
    log = tree / "results" / "pretraining" / "ars-mini.jsonl"
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [2, 4]
    table = pd.read_csv(tree / "results" / "pretraining.csv")
    assert table["stage"].tolist() == ["ars-mini"] and table["steps"].tolist() == [4]


def test_a_point_of_the_learning_curve_is_trained_once_a_recipe(
    tree: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(learning_curve, "WORK", tree / ".work")
    monkeypatch.setattr("intp.models.TOKENIZER", tree / "checkpoints" / "tokenizer.safetensors")
    used, train = [], learning_curve.train_ars
    monkeypatch.setattr(learning_curve, "train_ars", lambda *a: (used.append(a), train(*a)))
    for params, count in ((small(), 1), (small(), 1), (small("pretraining.ars-mini.lr", 0.01), 2)):
        adapter, log = learning_curve.trained(2, 3, params)
        assert len(used) == count and pd.read_json(log, lines=True)["step"].tolist() == [2, 3]
        assert adapter.config.model == TINY


def test_every_stage_has_a_recipe_of_its_own(tree: Path):
    found = {name: keys.recipe(load_params("mini"), name) for name in zoo.STAGES}
    assert len(set(found.values())) == len(zoo.STAGES)
    spec = load_params("mini", {"pretraining.ints-mini-text.lr": 0.5})
    assert keys.recipe(spec, "ints-mini") != found["ints-mini"]
    assert keys.recipe(spec, "ars-mini") == found["ars-mini"]


def test_an_output_is_whole_and_never_written_through_a_link(tree: Path, monkeypatch):
    made, out, cache = (tree / name for name in ("made", "out", "cache"))
    made.write_text("new")
    cache.write_text("old")
    os.link(cache, out)

    def killed(source: Path, target: Path) -> None:
        target.write_text("ne")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy", killed)
        with pytest.raises(KeyboardInterrupt):
            zoo.place(made, out)
    assert out.read_text() == "old"
    zoo.place(made, out)
    assert (out.read_text(), cache.read_text()) == ("new", "old")


def test_tokens_are_encoded_once_a_tokenizer(tree: Path, monkeypatch: pytest.MonkeyPatch):
    first = zoo.load_tokenizer()
    rows, kept = zoo.tokenised(first)
    with monkeypatch.context() as patch:
        patch.setattr(ars, "segments", None)  # it is not called again
        _, again = zoo.tokenised(first)
    other_tokenizer(tree)
    second = zoo.load_tokenizer()
    _, fresh = zoo.tokenised(second)
    _, mels = zoo.corpora()
    for tokenizer, found in ((first, kept), (first, again), (second, fresh)):
        wanted = ars.segments(tokenizer, rows, mels)
        for row in rows:
            pairs = zip(found[row.id], wanted[row.id], strict=True)
            assert found[row.id] and all(torch.equal(a.tokens, b.tokens) for a, b in pairs)
    assert any(not torch.equal(kept[r.id][0].tokens, fresh[r.id][0].tokens) for r in rows)


def write(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def packages(tree: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts of packages and of data/; what is asked of the packages, each time that lines are made."""
    asked, english = [], ["The cat sat down.", "Hello, teacher!", "It is a nice day."]
    monkeypatch.setattr(texts, "LINES", tree / ".work" / "texts" / "lines.jsonl")
    monkeypatch.setattr(texts, "fetch", lambda: asked.append("fetch"))
    monkeypatch.setattr(texts, "wordnet", lambda: english)
    monkeypatch.setattr(texts, "editor_messages", lambda: ["今天天气很好。"])
    monkeypatch.setattr(texts, "english_words", lambda _: ["cat", "sun", "map"])
    monkeypatch.setattr(texts, "chinese_words", lambda: iter(["老师", "银行"]))
    monkeypatch.setattr(texts, "phonemise", lambda text, lang: "a" * len(text))
    monkeypatch.setattr(texts, "places", lambda text, phonemes, lang: range(len(phonemes)))
    texts.LINES.parent.mkdir(parents=True)
    write(tree / "data" / "sentences.jsonl")
    write(tree / "data" / "twisters.jsonl")
    for name in texts.PARTS:
        write(tree / "data" / name / "items.jsonl")
        write(tree / "data" / name / "references.jsonl")
    return asked


def test_lines_are_collected_again_for_another_seed_or_other_data(tree: Path, packages: list[str]):
    params = load_params("mini")
    found = texts.collect(params)
    assert texts.collect(params) == found and packages == ["fetch"]
    again = texts.collect(dataclasses.replace(params, seed=1))
    assert again != found and set(again) == set(found) and len(packages) == 2
    taken = "The cat sat down."
    assert taken in {line.text for line in found}
    item = {"target_text": taken, "prompt_text": "Other."}
    write(tree / "data" / "evaluation" / "items.jsonl", item)
    after = {line.text for line in texts.collect(params)}
    assert after == {line.text for line in found} - {taken} and len(packages) == 3
