"""Speed and peak memory of an AR DPO step, ours beside TRL's DPOTrainer, on the same batches.

    pip install trl==1.16.0 datasets     # into an environment of its own that sees ours
    python -m tools.bench_trainer

The same small Llama, the same random pairs in the same order, AdamW, float32 (bf16 where the device
gains by it), reference log-probabilities computed beforehand on both sides, then on neither. Every
row is a process of its own, so that its peak memory is its own. Needs an idle machine.
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Example, Prompt
from intp.device import precision
from intp.trainer import Pair, Recipe, make_reference, update
from networks.tokenizer import SpeechTokenizer, TokenizerConfig

SIZES = {
    "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 4,
}  # fmt: skip
SYMBOLS = list("abcdefghijklmnopqrstuvwxyz .")
BATCH, STEPS, WARM = 8, 10, 2
SIDES = ("ours cached", "trl cached", "ours live", "trl live")
RECIPE = Recipe(beta=0.1, lr=1e-5, batch_pairs=BATCH)


def make_adapter() -> ARAdapter:
    """A Llama of ARS-mini's size whose reference tokens are as long as the recording says."""
    torch.manual_seed(0)
    tokenizer = SpeechTokenizer(TokenizerConfig(width=16, encoder_layers=1, decoder_layers=1))
    config = ARConfig(phonemes=SYMBOLS, text_positions="plain", model=SIZES)
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


def ours(reference: str) -> tuple[list[float], int]:
    """Seconds a step, and tokens in all timed steps."""
    adapter, pairs = make_adapter(), make_pairs(BATCH * (STEPS + WARM))
    recipe = Recipe(**vars(RECIPE) | {"reference": reference})
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision())
    with tempfile.TemporaryDirectory() as folder:
        known = make_reference(adapter, pairs, recipe, Path(folder), accelerator)
    optimizer = torch.optim.AdamW(adapter.model.parameters(), recipe.lr)
    model, optimizer = accelerator.prepare(adapter.model, optimizer)
    seconds, tokens = [], 0
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        began = time.perf_counter()
        update(adapter, model, optimizer, accelerator, batch, known, recipe, 0)
        seconds.append(time.perf_counter() - began)
        if len(seconds) > WARM:
            examples = [p.chosen for p in batch] + [p.rejected for p in batch]
            mask = adapter.batch(examples)["attention_mask"]
            tokens += int((mask.sum(-1) > 1).sum())
    return seconds[WARM:], tokens


def trl(reference: str) -> tuple[list[float], int]:
    """The same by TRL's DPOTrainer, on the same token ids."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    adapter, rows = make_adapter(), []
    for pair in make_pairs(BATCH * (STEPS + WARM)):
        prompt = pair.chosen.prompt
        prefix, _ = adapter.prefix(prompt, adapter.encode(prompt.reference_speech))
        answers = [
            [*e.target.tolist(), adapter.ids["eos_target"]] for e in (pair.chosen, pair.rejected)
        ]
        texts = [words(ids) for ids in (prefix.tolist(), *answers)]
        rows.append(dict(zip(("prompt", "chosen", "rejected"), texts, strict=True)))
    seconds: list[float] = []

    class Clock(TrainerCallback):
        """Times every step."""

        def on_step_begin(self, *_, **__):
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            seconds.append(time.perf_counter() - self.began)

    class InOrder(DPOTrainer):
        """Takes the pairs as they come."""

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        settings = DPOConfig(
            folder, per_device_train_batch_size=BATCH, max_steps=STEPS + WARM, beta=RECIPE.beta,
            learning_rate=RECIPE.lr, bf16=precision() == "bf16", fp16=False, report_to=[],
            gradient_checkpointing=False, save_strategy="no", logging_steps=1000, disable_tqdm=True,
            precompute_ref_log_probs=reference == "cached", max_length=None,
            use_cpu=not torch.cuda.is_available(), dataloader_pin_memory=False,
        )  # fmt: skip
        InOrder(
            adapter.model, args=settings, train_dataset=Dataset.from_list(rows),
            ref_model=copy.deepcopy(adapter.model) if reference == "live" else None,
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=word_tokenizer(adapter.model.config.vocab_size),
                pad_token=f"t{adapter.ids['pad']}", eos_token=f"t{adapter.ids['eos_target']}",
            ),
            callbacks=[Clock()],
        ).train()  # fmt: skip
    return seconds[WARM:], 0


def words(ids: list[int]) -> str:
    """Token ids as words, since TRL's trainer tokenises text itself."""
    return "".join(f" t{i}" for i in ids)


def word_tokenizer(size: int):
    """A tokenizer whose words are `words`'s."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(size)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def matrix_rate() -> float:
    """The machine's own rate of matrix products, in FLOP a second, in the precision of training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision() == "bf16" else torch.float32
    a = torch.randn(2048, 2048, device=device, dtype=dtype)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * 2048**3 / (time.perf_counter() - began))
    return max(rates)


def one(side: str) -> None:
    """Measure one side in this process and print it as JSON."""
    who, reference = side.split()
    run: Callable[[str], tuple[list[float], int]] = {"ours": ours, "trl": trl}[who]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, tokens = run(reference)
    found = {"side": side, "pairs_a_second": BATCH / float(np.median(seconds))}
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["imports_mib"] = before / 1024
    if tokens:
        weights = sum(p.numel() for p in make_adapter().model.parameters()) - 1011 * 256
        passes = 6 if reference == "cached" else 8
        found["utilisation"] = passes * weights * tokens / sum(seconds) / matrix_rate()
    print("RESULT " + json.dumps(found))


def main() -> None:
    """Print one row a side and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", choices=SIDES)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    found = {}
    for side in SIDES:
        command = [sys.executable, "-m", "tools.bench_trainer", "--one", side]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
        found[side] = json.loads(lines[0].removeprefix("RESULT "))
        print(found[side], flush=True)
    for reference in ("cached", "live"):
        mine, theirs = (found[f"{who} {reference}"] for who in ("ours", "trl"))
        speed = mine["pairs_a_second"] / theirs["pairs_a_second"]
        memory = mine["peak_mib"] / theirs["peak_mib"]
        print(
            f"{reference}: {speed:.2f} times TRL's pairs a second, {memory:.2f} of its peak memory"
        )


if __name__ == "__main__":
    main()
