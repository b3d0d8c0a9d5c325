"""Flow matching beside upstream's own code, on the same random weights, noise and times.

Run in an environment of its own (`requirements-parity.txt`): `python tools/parity/flow_matching.py`.
Prints the log that `docs/parity.md` keeps and exits with 1 if a difference exceeds the tolerance.
"""

import sys
import tempfile
import types
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from intp.adapters.base import Draw, Example, Prompt
from intp.adapters.flow_matching import FlowMatchingAdapter
from networks import f5
from networks.dit import DiT

# Upstream's `model` package imports its trainer, and with it wandb and datasets: leave that out.
UPSTREAM = Path(find_spec("f5_tts").submodule_search_locations[0])
package = types.ModuleType("f5_tts.model")
package.__path__ = [str(UPSTREAM / "model")]
sys.modules["f5_tts.model"] = package

from ema_pytorch import EMA  # noqa: E402
from f5_tts.model import cfm, utils  # noqa: E402
from f5_tts.model.backbones.dit import DiT as UpstreamDiT  # noqa: E402
from f5_tts.model.modules import MelSpec  # noqa: E402

TOLERANCE = 1e-5
SIZES = {
    "dim": 64, "depth": 3, "heads": 2, "dim_head": 32, "ff_mult": 2, "text_dim": 32, "conv_layers": 2,
}  # fmt: skip
FLAGS = {
    "v1": {"text_mask_padding": True, "pe_attn_head": None},
    "v0": {"text_mask_padding": False, "pe_attn_head": 1},
}
VOCABULARY = UPSTREAM / "infer/examples/vocab.txt"
SENTENCES = (
    "It's a test; “quoted” text, no 3 twice.",
    "我们一起去银行，重庆很重要。",
    "你好，hello world 你们好！",
    "他说：OK，no problem……再见",
    "这个app很好用，version 2真不错。",
)
Rows = list[tuple[str, float, float]]


def upstream_model(flags: dict[str, object], symbols: dict[str, int]) -> cfm.CFM:
    """Upstream's CFM with every weight random, none at the zero it starts from."""
    torch.manual_seed(0)
    transformer = UpstreamDiT(**SIZES, **flags, text_num_embeds=len(symbols), mel_dim=100)
    model = cfm.CFM(transformer, mel_spec_kwargs={"mel_spec_type": "vocos"}, vocab_char_map=symbols)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape))
    return model.eval()


def load_ours(model: cfm.CFM, flags: dict[str, object], folder: Path) -> FlowMatchingAdapter:
    """Save by upstream's EMA, whose keys the published files have; read strictly by ours."""
    path = folder / "model.safetensors"
    published = EMA(model, include_online_model=False).state_dict()
    save_file({key: value.contiguous() for key, value in published.items()}, path)
    settings = {
        "vocabulary": VOCABULARY, "text": "pinyin", "text_positions": "plain", "vocoder": "vocos",
        "model": SIZES | flags,
    }  # fmt: skip
    return FlowMatchingAdapter.load_published(path, settings)


def inputs(lengths: list[int], texts: list[int]) -> dict[str, Tensor]:
    """Random rows of the given frames and symbols, padded; a third of each row is reference."""
    torch.manual_seed(1)
    frames = torch.arange(max(lengths))
    mask = frames < torch.tensor(lengths)[:, None]
    reference = frames < torch.tensor(lengths)[:, None] // 3
    x, speech = torch.randn(2, len(lengths), max(lengths), 100)
    text = torch.randint(2545, (len(texts), max(texts)))
    text = text.masked_fill(torch.arange(max(texts)) >= torch.tensor(texts)[:, None], -1)
    condition = torch.where(reference[..., None], speech, 0)
    return {
        "x": x * mask[..., None], "cond": condition, "text": text,
        "time": torch.rand(len(lengths)), "mask": mask,
    }  # fmt: skip


def ours(model: nn.Module, given: dict[str, Tensor], **drops: bool) -> Tensor:
    """Our velocity on upstream's names."""
    return model(*(given[k] for k in ("x", "cond", "text", "time", "mask")), **drops)


def row(given: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    """Row i alone, without its padding."""
    n, symbols = int(given["mask"][i].sum()), int((given["text"][i] >= 0).sum())
    alone = {k: given[k][i : i + 1, :n] for k in ("x", "cond", "mask")}
    return alone | {"text": given["text"][i : i + 1, :symbols], "time": given["time"][i : i + 1]}


def forward(theirs: cfm.CFM, adapter: FlowMatchingAdapter) -> Rows:
    """Velocities at equal lengths, upstream's setting, and of a padded batch beside its singles."""
    rows, model = [], adapter.model
    given = inputs([96, 96, 96], [20, 31, 12])
    for name, drops in {
        "velocity": {}, "velocity, text and audio dropped": {"drop_audio": True, "drop_text": True},
    }.items():  # fmt: skip
        named = {"drop_audio_cond": bool(drops), "drop_text": bool(drops)}
        wanted = theirs.transformer(**given | {"mask": None}, **named)
        rows.append(compare(name, ours(model, given, **drops), wanted))
    given = inputs([64, 120, 96], [20, 31, 12])
    got = ours(model, given)
    singles = [theirs.transformer(**row(given, i) | {"mask": None})[0] for i in range(3)]
    got = torch.cat([got[i, : len(single)] for i, single in enumerate(singles)])
    rows.append(compare("velocity, our padded batch, their singles", got, torch.cat(singles)))
    return rows


def score(theirs: cfm.CFM, adapter: FlowMatchingAdapter) -> Rows:
    """Our score beside the loss of upstream's `CFM.forward`, its chance replaced by our draws."""
    reference = np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 10
    prompt = Prompt("p", "它很重要。", "", "zh", "A short reference.", "", "en", reference)
    examples = [Example(prompt, torch.randn(n, 100)) for n in (70, 130)]
    draws = [Draw(5, 6), Draw(7, 8)]
    got = adapter.score(adapter.model, adapter.batch(examples, draws))
    wanted = []
    for example, draw in zip(examples, draws, strict=True):
        alone = adapter.batch([example], [draw])
        speech = torch.cat([adapter.encode(reference), example.target])[None]
        start = f5.noise(draw.own, speech.shape[1], 100)[None]
        text = utils.convert_char_to_pinyin(["A short reference. 它很重要。"])
        chance = {
            (cfm, "mask_from_frac_lengths"): alone["target_mask"].clone(),
            (cfm, "random"): 1.0,
            (torch, "randn_like"): start,
            (torch, "rand"): alone["time"],
        }
        with ExitStack() as stack:
            for (module, name), value in chance.items():
                stack.enter_context(mock.patch.object(module, name, return_value=value))
            wanted.append(theirs(speech, text)[0])
    return [compare("minus the masked loss", got, -torch.stack(wanted))]


def sampling(theirs: cfm.CFM, adapter: FlowMatchingAdapter) -> Rows:
    """Our sampler beside `CFM.sample`, from the noise of the same seed: all frames, and a batch."""
    rows, given = [], inputs([96], [20])
    cut = given["cond"][:, :32]
    for steps, cfg in ((16, 2.0), (32, 2.0), (8, 0.0)):
        options = {"steps": steps, "cfg_strength": cfg, "sway_sampling_coef": -1.0, "seed": 3}
        _, path = theirs.sample(cut, given["text"], 96, **options)
        got = f5.euler(
            adapter.model, f5.noise(3, 96, 100)[None], given["cond"], given["text"], given["mask"],
            times=f5.time_grid(steps, -1.0), cfg=cfg,
        )  # fmt: skip
        rows.append(compare(f"sample, {steps} steps, cfg {cfg:g}, sway -1", got, path[-1]))
    return rows


def front_ends(adapter: FlowMatchingAdapter, symbols: dict[str, int]) -> Rows:
    """Log-mel, vocabulary and text symbols; the last two count differing entries."""
    wave = torch.randn(24000, generator=torch.Generator().manual_seed(2))
    mel = compare("log-mel, 24 kHz", f5.vocos_mel(wave), MelSpec()(wave[None])[0].T)
    theirs = utils.convert_char_to_pinyin(list(SENTENCES))
    texts = zip(map(f5.pinyin, SENTENCES), theirs, strict=True)
    different = float(sum(a != b for a, b in texts))
    table = float(adapter.ids != symbols or len(symbols) != 2545 or adapter.ids["ni3"] != 794)
    counted = f"text symbols, {len(SENTENCES)} sentences (how many differ)"
    return [mel, ("vocab.txt (0: equal)", table, len(symbols)), (counted, different, 0)]


def other_flags(adapter: FlowMatchingAdapter, flags: dict[str, object]) -> float:
    """How far the same weights go astray under the other version's flags, which nothing reports."""
    wrong = DiT(symbols=len(adapter.ids), **SIZES, **flags).eval()
    wrong.load_state_dict(adapter.model.state_dict())
    given = inputs([96, 96, 96], [20, 31, 12])
    return (ours(wrong, given) - ours(adapter.model, given)).abs().max().item()


def padding_seen(theirs: cfm.CFM) -> float:
    """How far upstream's own padded batch, with its mask, is from upstream's singles."""
    given = inputs([64, 120, 96], [20, 31, 12])
    batch = theirs.transformer(**given)
    singles = (theirs.transformer(**row(given, i) | {"mask": None})[0] for i in range(3))
    return max((batch[i, : len(s)] - s).abs().max().item() for i, s in enumerate(singles))


def compare(name: str, got: Tensor, wanted: Tensor) -> tuple[str, float, float]:
    """Name, largest absolute difference and largest absolute value."""
    assert got.shape == wanted.shape, (name, got.shape, wanted.shape)
    return name, (got - wanted).abs().max().item(), wanted.abs().max().item()


@torch.no_grad()
def main() -> int:
    """Compare both versions' flags, print a table, and say whether all is within tolerance."""
    torch.set_num_threads(1)
    symbols, _ = utils.get_tokenizer(str(VOCABULARY), "custom")
    names = ("f5-tts", "x-transformers", "ema-pytorch", "torchdiffeq", "rjieba", "jieba", "torch")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print("\n| flags | what | largest difference | largest value |\n|---|---|---|---|")
    worst, padded = 0.0, []
    checks: tuple[Callable[..., Rows], ...] = (forward, score, sampling)
    for flags in FLAGS:
        theirs = upstream_model(FLAGS[flags], symbols)
        with tempfile.TemporaryDirectory() as folder:
            adapter = load_ours(theirs, FLAGS[flags], Path(folder))
        rows = [r for check in checks for r in check(theirs, adapter)]
        rows += front_ends(adapter, symbols) if flags == "v1" else []
        padded.append(f"{padding_seen(theirs):.1e} ({flags})")
        for name, difference, size in rows:
            print(f"| {flags} | {name} | {difference:.1e} | {size:.1f} |")
            worst = max(worst, difference)
    astray = other_flags(adapter, FLAGS["v1"])
    print(f"\nv0's weights under v1's flags: off by {astray:.1e}, and nothing says so")
    print(f"upstream's padded batch beside its singles: off by {', '.join(padded)}")
    print(f"largest of all: {worst:.1e}, tolerance {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
