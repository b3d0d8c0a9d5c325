"""Speed and peak memory of an AR DPO step, ours beside TRL's DPOTrainer, on the same batches.

    pip install trl==1.16.0 datasets     # into an environment of its own that sees ours
    python -m tools.bench_trainer        # on an idle machine; --layers 1 --steps 2 to try it

The same small Llama, the same random pairs in the same order, AdamW at one rate, float32 (bf16 where
the device gains by it), reference log-probabilities computed beforehand on both sides, then on
neither. A step is timed with the making of its batch; both sides must report the same loss. Every row
is a process of its own, so that its peak memory is its own. Ends with both trainers' lines of code.
"""

import argparse
import ast
import copy
import importlib.util
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Example, Prompt
from intp.device import precision
from intp.paths import ROOT
from intp.trainer import Pair, Recipe, make_reference, update
from networks.tokenizer import SpeechTokenizer, TokenizerConfig

SYMBOLS = list("abcdefghijklmnopqrstuvwxyz .")
SIDES = ("ours cached", "trl cached", "ours live", "trl live")
OURS = ("src/intp/trainer.py", "src/intp/losses.py", "src/intp/align.py")


@dataclass(frozen=True)
class Setting:
    """Depth of the model, pairs a step, steps that are timed, and steps before them."""

    layers: int = 6
    batch: int = 8
    steps: int = 10
    warm: int = 2

    @property
    def recipe(self) -> Recipe:
        """A rate so high that sides which train differently drift apart."""
        return Recipe(beta=0.1, lr=3e-4, batch_pairs=self.batch)

    @property
    def pairs(self) -> list[Pair]:
        """What all steps train on."""
        return make_pairs(self.batch * (self.steps + self.warm))


@dataclass
class Timing:
    """Seconds of each step and the mean loss of all of them."""

    seconds: list[float]
    loss: float


def make_adapter(setting: Setting) -> ARAdapter:
    """A Llama as wide as ARS-mini's whose reference tokens are as long as the recording says."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": setting.layers,
        "num_attention_heads": 4, "num_key_value_heads": 4,
    }  # fmt: skip
    tokenizer = SpeechTokenizer(TokenizerConfig(width=16, encoder_layers=1, decoder_layers=1))
    config = ARConfig(phonemes=SYMBOLS, text_positions="plain", model=sizes)
    adapter = ARAdapter(config, tokenizer)
    known = torch.randint(1000, (1000,), generator=torch.Generator().manual_seed(1))
    adapter.encode = lambda samples: known[: len(samples)]
    return adapter


def make_pairs(count: int) -> list[Pair]:
    """Pairs of the lengths that mining finds: 2 to 5 s of reference, answers of 2 to 6 s."""
    random = np.random.default_rng(0)
    pairs = []
    for number in range(count):
        text = ["".join(random.choice(SYMBOLS[:-2], random.integers(40, 90))) for _ in range(2)]
        tokens = [torch.tensor(random.integers(0, 1000, random.integers(62, 190))) for _ in "wl"]
        reference = np.zeros(random.integers(62, 156), dtype=np.float32)
        prompt = Prompt(str(number), text[1], text[1], "en", text[0], text[0], "en", reference)
        pairs.append(Pair(str(number), *(Example(prompt, t) for t in tokens)))
    return pairs


def ours(setting: Setting, reference: str) -> Timing:
    """Our update, batch after batch."""
    adapter, pairs = make_adapter(setting), setting.pairs
    recipe = Recipe(**vars(setting.recipe) | {"reference": reference})
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision())
    with tempfile.TemporaryDirectory() as folder:
        known = make_reference(adapter, pairs, recipe, Path(folder), accelerator)
    optimizer = torch.optim.AdamW(
        adapter.model.parameters(), recipe.lr, weight_decay=recipe.weight_decay
    )
    model, optimizer = accelerator.prepare(adapter.model, optimizer)
    seconds, losses = [], []
    for start in range(0, len(pairs), setting.batch):
        batch, began = pairs[start : start + setting.batch], time.perf_counter()
        row = update(adapter, model, optimizer, accelerator, batch, known, recipe, 0)
        synchronise()
        seconds.append(time.perf_counter() - began)
        losses.append(row["loss"])
    return Timing(seconds, float(np.mean(losses)))


def sequences(adapter: ARAdapter, pair: Pair) -> list[list[int]]:
    """Ids of a pair's prompt and of its two answers."""
    prompt = pair.chosen.prompt
    prefix, _ = adapter.prefix(prompt, adapter.encode(prompt.reference_speech))
    eos = adapter.ids["eos_target"]
    return [prefix.tolist(), *([*e.target.tolist(), eos] for e in (pair.chosen, pair.rejected))]


def trl(setting: Setting, reference: str) -> Timing:
    """The same by TRL's DPOTrainer, on the same token ids."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    adapter, recipe = make_adapter(setting), setting.recipe
    texts = [map(words, sequences(adapter, pair)) for pair in setting.pairs]
    rows = [dict(zip(("prompt", "chosen", "rejected"), three, strict=True)) for three in texts]
    ends: list[float] = []

    class Clock(TrainerCallback):
        """Marks the end of every step, and the beginning of the first."""

        def on_train_begin(self, *_, **__):
            ends.append(time.perf_counter())

        def on_step_end(self, *_, **__):
            synchronise()
            ends.append(time.perf_counter())

    class InOrder(DPOTrainer):
        """Takes the pairs as they come."""

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        settings = DPOConfig(
            folder, per_device_train_batch_size=setting.batch, max_steps=setting.steps + setting.warm,
            beta=recipe.beta, learning_rate=recipe.lr, lr_scheduler_type="constant", warmup_steps=0,
            weight_decay=recipe.weight_decay, max_grad_norm=recipe.clip, bf16=precision() == "bf16",
            fp16=False, report_to=[], gradient_checkpointing=False, save_strategy="no",
            logging_steps=1000, disable_tqdm=True, precompute_ref_log_probs=reference == "cached",
            max_length=None, use_cpu=not torch.cuda.is_available(), dataloader_pin_memory=False,
        )  # fmt: skip
        done = InOrder(
            adapter.model, args=settings, train_dataset=Dataset.from_list(rows),
            ref_model=copy.deepcopy(adapter.model) if reference == "live" else None,
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=word_tokenizer(adapter.model.config.vocab_size),
                pad_token=f"t{adapter.ids['pad']}", eos_token=f"t{adapter.ids['eos_target']}",
            ),
            callbacks=[Clock()],
        ).train()  # fmt: skip
    return Timing(np.diff(ends).tolist(), done.training_loss)


def words(ids: list[int]) -> str:
    """Token ids as words, since TRL's trainer tokenises text itself."""
    return "".join(f" t{i}" for i in ids)


def word_tokenizer(size: int):
    """A tokenizer whose words are `words`'s."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(size)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def synchronise() -> None:
    """Wait for the GPU, if there is one, so that a clock tells of finished work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_rate() -> float:
    """The machine's own rate of matrix products, in FLOP a second, in the precision of training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision() == "bf16" else torch.float32
    a = torch.randn(2048, 2048, device=device, dtype=dtype)
    rates = []
    for _ in range(5):
        synchronise()
        began = time.perf_counter()
        a @ a
        synchronise()
        rates.append(2 * 2048**3 / (time.perf_counter() - began))
    return max(rates)


def work(setting: Setting, reference: str) -> float:
    """FLOP that the timed steps need at least: each prompt read once, the head on answers only.

    Two a weight and token forwards, four backwards, two for a live reference; attention's own and
    all padding are left out, so both sides' shares of the machine have one numerator.
    """
    adapter = make_adapter(setting)
    head = adapter.model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in adapter.model.parameters()) - head
    body -= adapter.model.get_input_embeddings().weight.numel()
    lengths = [
        [len(ids) for ids in sequences(adapter, pair)]
        for pair in setting.pairs[setting.warm * setting.batch :]
    ]
    answers = sum(chosen + rejected for _, chosen, rejected in lengths)
    prompts = sum(prompt for prompt, _, _ in lengths)
    return (6 if reference == "cached" else 8) * (body * (prompts + answers) + head * answers)


def peak_mib() -> float:
    """Peak memory of this process so far: the GPU's where there is one, else resident.

    Linux hands `ru_maxrss` on to the programs that a process starts, so it is asked elsewhere only.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def one(side: str, setting: Setting) -> None:
    """Measure one side in this process and print it as JSON."""
    who, reference = side.split()
    if who == "trl":
        from trl import DPOTrainer

        assert DPOTrainer  # imported before the memory of imports is read
    run: Callable[[Setting, str], Timing] = {"ours": ours, "trl": trl}[who]
    imports = peak_mib()
    timing = run(setting, reference)
    peak = peak_mib()
    seconds = timing.seconds[setting.warm :]
    found = {
        "side": side,
        "pairs_a_second": setting.batch / float(np.median(seconds)),
        "peak_mib": peak,
        "imports_mib": imports,
        "utilisation": work(setting, reference) / sum(seconds) / matrix_rate(),
        "loss": timing.loss,
    }
    print("RESULT " + json.dumps(found))


def code_lines(text: str) -> int:
    """Lines with code on them: not blank, not comment, not docstring."""
    aside = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in aside:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def print_lines() -> None:
    """Lines of code, and of all kinds, of our alignment and of TRL's DPO trainer alone."""
    spec = importlib.util.find_spec("trl")
    theirs = [Path(spec.submodule_search_locations[0]) / "trainer" / "dpo_trainer.py"]
    for name, paths in (("ours", [ROOT / path for path in OURS]), ("trl", theirs)):
        texts = [path.read_text("utf-8") for path in paths]
        code, total = sum(map(code_lines, texts)), sum(len(x.splitlines()) for x in texts)
        print(f"{name}: {code} lines of code, {total} in all: {' '.join(p.name for p in paths)}")


def measure(side: str, arguments: list[str]) -> dict:
    """What a process of its own finds of one side."""
    command = [sys.executable, "-m", "tools.bench_trainer", "--one", side, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(lines[0].removeprefix("RESULT "))


def main() -> None:
    """Print one row a side, the ratios, and the lines of code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", choices=SIDES)
    for name, value in asdict(Setting()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = vars(parser.parse_args())
    side, setting = options.pop("one"), Setting(**options)
    if side:
        one(side, setting)
        return
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    found = {}
    for side in SIDES:
        found[side] = measure(side, arguments)
        print(found[side], flush=True)
    for reference in ("cached", "live"):
        mine, theirs = (found[f"{who} {reference}"] for who in ("ours", "trl"))
        if abs(mine["loss"] - theirs["loss"]) > 0.01:
            sys.exit(f"{reference}: the two sides do not train alike")
        speed = mine["pairs_a_second"] / theirs["pairs_a_second"]
        memory = mine["peak_mib"] / theirs["peak_mib"]
        own, other = (side["peak_mib"] - side["imports_mib"] for side in (mine, theirs))
        print(
            f"{reference}: {speed:.2f} times TRL's pairs a second, {memory:.2f} of its peak memory, "
            f"{own / other:.2f} of what that is above the imports"
        )
    print_lines()


if __name__ == "__main__":
    main()
