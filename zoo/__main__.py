"""`python -m zoo NAME`: one frozen stage, resumable under the same recipe, its log and cost kept.

A finished run leaves `checkpoints/<name>.safetensors`, `results/pretraining/<name>.jsonl` and a
row of `results/pretraining.csv` for each of its parts.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Adapter
from intp.adapters.flow_matching import FlowMatchingAdapter, FlowMatchingConfig
from intp.adapters.masked import MaskedAdapter, MaskedConfig
from intp.corpus import Utterance, mel_cache, read_manifest
from intp.files import whole
from intp.models import load_tokenizer
from intp.params import Params, Pretraining, load_params
from intp.paths import CHECKPOINTS, DATA, ROOT, WORK
from networks.recogniser import PhonemeRecogniser, RecogniserConfig
from networks.tokenizer import SpeechTokenizer, TokenizerConfig
from texts.phonemes import sounding
from zoo.alignment import mean_durations, sounds
from zoo.ars import ARTask, Segment, cached_segments
from zoo.flow import FlowTask
from zoo.keys import key, recipe
from zoo.loop import Schedule, pretrain
from zoo.masked import MaskedTask
from zoo.recogniser import RecogniserTask
from zoo.textlm import SpeechTask, TextTask, new_adapter
from zoo.texts import TOKENIZER, collect
from zoo.tokenizer import DecoderTask, EncoderTask, TokenizerTask, ctc_labels, fit_mel_statistics

HELD_OUT = 150
LANGUAGES = ("en", "zh")
CORPORA = ("corpus-wordnet", "corpus")  # the held-out utterances come last; tokenizer: corpus
HEARD = (*CORPORA, "corpus-mixed")  # what ears learn from, and no model that speaks
LONGEST = 5  # utterances joined in a training row
UNREAD = 600  # lines of text held out, of all kinds

Task = ARTask | FlowTask | MaskedTask | SpeechTask


def schedule(params: Params, name: str) -> Schedule:
    """The schedule of `pretraining.<name>`."""
    spec = params.pretraining[name]
    return Schedule(
        spec.steps, spec.lr, spec.warmup,
        save_every=spec.save_every, seed=params.seed, optimizer=spec.optimizer,
    )  # fmt: skip


def corpus(name: str = "corpus") -> tuple[list[Utterance], dict[str, torch.Tensor]]:
    """Training utterances of data/<name> and their log-mels."""
    cache = WORK / f"mels-{name}-{key(DATA / name)}.pt"
    return read_manifest(DATA / name), mel_cache(DATA / name, cache)


def corpora(names: Sequence[str] = CORPORA) -> tuple[list[Utterance], dict[str, torch.Tensor]]:
    """All training utterances, the held-out ones last, and their log-mels."""
    rows, mels = [], {}
    for name in names:
        here, found = corpus(name)
        rows, mels = rows + here, mels | found
    return rows, mels


def tokenised(tokenizer: SpeechTokenizer) -> tuple[list[Utterance], dict[str, list[Segment]]]:
    """All training utterances, the held-out ones last, and the tokens of their versions."""
    rows, versions = [], {}
    for name in CORPORA:
        here, mels = corpus(name)
        rows += here
        versions |= cached_segments(tokenizer, here, mels, WORK / "pretrain" / "tokens")
    return rows, versions


def guided_steps(spec: Pretraining) -> int:
    """For how many steps a model is told where text and speech meet."""
    return int(spec.steps * spec.weights["guided_share"])


def finish(
    adapter: Adapter, task: Task, params: Params, work: Path, name: str, *held: object
) -> None:
    """Pretrain an adapter's model on `task` to its end, measured on `held`, and save it in bf16."""
    pretrain(
        adapter.model, task, schedule(params, name), work, name,
        lambda: {f"held_out_{lang}": task.held_out(*held, lang) for lang in LANGUAGES},
    )  # fmt: skip
    for weight in adapter.model.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    with whole(work / f"{name}.safetensors") as unfinished:
        adapter.save(unfinished)


def train_tokenizer(params: Params, work: Path) -> None:
    """Pretrain the speech tokenizer."""
    spec = params.pretraining["tokenizer"]
    rows, mels = corpus()
    symbols = sorted({c for row in rows for c in ctc_labels(row.phonemes)})
    torch.manual_seed(params.seed)
    model = SpeechTokenizer(TokenizerConfig(phonemes=symbols))
    fit_mel_statistics(model, mels)
    task = TokenizerTask(model, rows, mels, spec.budget, spec.weights["ctc"], params.seed)
    pretrain(model, task, schedule(params, "tokenizer"), work, "tokenizer")
    model.save(work / "first.safetensors")
    train_encoder(params, work)
    train_decoder(params, work)


def train_encoder(params: Params, work: Path) -> None:
    """The tokenizer's second part, an ear for its third: the same codes in any voice."""
    spec = params.pretraining["tokenizer-encoder"]
    rows, mels = corpora()
    rows += [row for row in rows if row.lang == "zh"]  # there is a third as much of it as English
    first, model = (SpeechTokenizer.load(work / "first.safetensors") for _ in range(2))
    task = EncoderTask(model, first, rows, mels, spec.budget, spec.weights, params.seed)
    pretrain(model, task, schedule(params, "tokenizer-encoder"), work / "encoder", "encoder")
    model.save(work / "encoder.safetensors")


def train_decoder(params: Params, work: Path) -> None:
    """The tokenizer's third part: better speech of the same codes, in any voice, on all corpora.

    The encoder stays the first: models know the codes that it hears a reference as.
    """
    spec = params.pretraining["tokenizer-decoder"]
    rows, mels = corpora()
    first = SpeechTokenizer.load(work / "first.safetensors")
    model = SpeechTokenizer.load(work / "encoder.safetensors")
    task = DecoderTask(model, first, rows, mels, spec.budget, spec.weights, params.seed)
    pretrain(model, task, schedule(params, "tokenizer-decoder"), work / "decoder", "decoder")
    for part in EncoderTask.learns:
        model.get_submodule(part).load_state_dict(first.get_submodule(part).state_dict())
    model.save(work / "tokenizer.safetensors")


def parts(rows: list[Utterance]) -> tuple[list[Utterance], list[Utterance], list[str]]:
    """Training rows, held-out rows and the phoneme symbols of both."""
    return rows[:-HELD_OUT], rows[-HELD_OUT:], sorted({c for row in rows for c in row.phonemes})


def train_ars(params: Params, work: Path, keep: int = 1) -> None:
    """Pretrain ARS on the tokenizer's codes of one in `keep` utterances."""
    spec = params.pretraining["ars-mini"]
    rows, versions = tokenised(load_tokenizer())
    training, held, symbols = parts(rows)
    config = ARConfig(phonemes=symbols, model=params.models["ars"].config)
    torch.manual_seed(params.seed)
    adapter = ARAdapter(config, load_tokenizer())
    adapter.model.set_attn_implementation("eager")  # the guided loss reads attention weights
    held = [row for row in held if versions[row.id]]
    steps = guided_steps(spec)
    task = ARTask(adapter, training[::keep], versions, spec.budget, LONGEST, steps)
    finish(adapter, task, params, work, "ars-mini", held, versions)


def train_flow(params: Params, work: Path) -> None:
    """Pretrain F5-TTS on log-mels."""
    spec = params.pretraining["f5-mini"]
    rows, mels = corpora()
    _, versions = tokenised(load_tokenizer())
    training, held, symbols = parts(rows)
    frames = torch.cat([mels[row.id].float() for row in training])
    heard = sounds(training, versions, mels)
    torch.manual_seed(params.seed)
    config = FlowMatchingConfig(
        phonemes=symbols,
        mel_mean=round(frames.mean().item(), 4),
        mel_std=round(frames.std().item(), 4),
        text_positions="durations",
        durations=mean_durations(symbols, training, heard),
        model=params.models["f5"].config,
    )
    adapter = FlowMatchingAdapter(config)
    task = FlowTask(adapter, training, mels, spec.budget, LONGEST, heard, spec.weights["told"])
    finish(adapter, task, params, work, "f5-mini", held)


def train_masked(params: Params, work: Path) -> None:
    """Pretrain MaskGCT on the tokenizer's codes."""
    spec = params.pretraining["maskgct-mini"]
    (rows, mels), (_, versions) = corpora(), tokenised(load_tokenizer())
    training, held, symbols = parts(rows)
    config = MaskedConfig(
        phonemes=symbols,
        text_positions="durations",
        durations=mean_durations(symbols, training, sounds(training, versions, mels)),
        model=params.models["maskgct"].config,
    )
    torch.manual_seed(params.seed)
    adapter = MaskedAdapter(config, load_tokenizer())
    held = [row for row in held if versions[row.id]]
    task = MaskedTask(adapter, training, versions, spec.budget, LONGEST, spec.weights["told"])
    finish(adapter, task, params, work, "maskgct-mini", held, versions)


def train_reader(params: Params, work: Path, model: str, frontend: str) -> None:
    """Pretrain a model that reads raw text by `frontend`: on text, then on the tokenizer's codes."""
    name = f"{model}-mini"
    spec, first = params.pretraining[name], params.pretraining[f"{name}-text"]
    found = collect(params)
    lines, unread = found[:-UNREAD], found[-UNREAD:]
    torch.manual_seed(params.seed)
    adapter = new_adapter(frontend, TOKENIZER, params.models[model].config, load_tokenizer())
    shares = [part.weights["sounds"] for part in (first, spec)]
    guided = [guided_steps(part) for part in (first, spec)]
    text = TextTask(adapter, lines, first.budget, shares[0], guided[0])
    pretrain(
        adapter.model, text, schedule(params, f"{name}-text"), work / "text", f"{name}-text",
        lambda: text.held_out(unread, "en") | text.held_out(unread, "zh"),
    )  # fmt: skip
    rows, versions = tokenised(load_tokenizer())
    training, held, _ = parts(rows)
    held = [row for row in held if versions[row.id]]
    task = SpeechTask(text, training, versions, spec.budget, LONGEST, shares[1], guided[1])
    finish(adapter, task, params, work, name, held, versions)


def train_recogniser(params: Params, work: Path, name: str, languages: Sequence[str]) -> None:
    """Pretrain an ear for phonemes on recordings alone, a language's by voices of another too."""
    rows, mels = corpora(HEARD)
    training, held, _ = parts([row for row in rows if row.lang in languages])
    training += 2 * [row for row in training if row.id.startswith("mixed-")]  # the scarce ones
    symbols = sorted({c for row in training + held for c in sounding(row.phonemes)})
    torch.manual_seed(params.seed)
    model = PhonemeRecogniser(RecogniserConfig(phonemes=symbols))
    spec = params.pretraining[name]
    task = RecogniserTask(model, training, mels, spec.budget, params.seed, spec.weights["warp"])
    pretrain(model, task, schedule(params, name), work, name, lambda: task.held_out(held))
    model.save(work / f"{name}.safetensors")


STAGES: dict[str, Callable[[Params, Path], None]] = {
    "tokenizer": train_tokenizer,
    "ars-mini": train_ars,
    "f5-mini": train_flow,
    "maskgct-mini": train_masked,
    "ints-mini": partial(train_reader, model="ints", frontend="networks.ar_upstream:IntsFrontend"),
    "cosyvoice2-mini": partial(
        train_reader, model="cosyvoice2", frontend="networks.ar_upstream:CosyVoice2Frontend"
    ),
    "recogniser-zh": partial(train_recogniser, name="recogniser-zh", languages=("zh",)),
    "recogniser-both": partial(
        train_recogniser, name="recogniser-both", languages=(*LANGUAGES, "mixed")
    ),
}


def record(name: str, log: pd.DataFrame) -> None:
    """Upsert the stage's row of `results/pretraining.csv`."""
    path = ROOT / "results" / "pretraining.csv"
    row = {
        "stage": name,
        "steps": int(log["step"].iloc[-1]),
        "seconds": float(log["seconds"].iloc[-1]),
        "device": "cuda" if torch.cuda.is_available() else f"cpu x{torch.get_num_threads()}",
    }
    old = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(row))
    table = pd.concat([old[old["stage"] != name], pd.DataFrame([row])])
    with whole(path) as unfinished:
        table.sort_values("stage").to_csv(unfinished, index=False, lineterminator="\n")


def place(made: Path, out: Path) -> None:
    """Copy a file to where it belongs, whole or not at all."""
    # Replaced, since it may be a link into DVC's cache, which writing through it would spoil.
    with whole(out) as unfinished:
        shutil.copy(made, unfinished)


def main() -> None:
    """Run one pretraining stage to its end and put its results in place."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("stage", choices=sorted(STAGES))
    name = parser.parse_args().stage
    params = load_params()
    work = WORK / "pretrain" / name / recipe(params, name)
    STAGES[name](params, work)
    logs = ROOT / "results" / "pretraining"
    for folder in (CHECKPOINTS, logs):
        folder.mkdir(parents=True, exist_ok=True)
    place(work / f"{name}.safetensors", CHECKPOINTS / f"{name}.safetensors")
    for log in sorted(work.glob("**/log.jsonl")):  # a stage in two parts has two
        part = "-".join([name, *log.relative_to(work).parts[:-1]])
        place(log, logs / f"{part}.jsonl")
        record(part, pd.read_json(log, lines=True))


if __name__ == "__main__":
    main()
