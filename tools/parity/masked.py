"""Our masked model beside upstream's: same weights, same draws, differences to 1e-5.

Run in an environment of its own (`requirements-parity.txt`): `python tools/parity/masked.py`. Prints
the log that `docs/parity.md` keeps, and fails if anything differs.
"""

import math
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_model
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
VENDORED = Path(find_spec("ttsdb_maskgct").origin).parent / "_vendor" / "source"
sys.path[:0] = [str(ROOT / "src"), str(VENDORED)]

from models.tts.maskgct.maskgct_t2s import MaskGCT_T2S as Upstream  # noqa: E402

from intp.adapters.base import Prompt  # noqa: E402
from intp.adapters.masked import MaskedAdapter  # noqa: E402
from networks.maskgct_sampling import Unmasking, masked_share, unmask  # noqa: E402

TOLERANCE, SEEDS = 1e-5, 12
CODES, PHONES = 500, 40
TOP_K = math.ceil((1 - 0.98) * CODES)  # as upstream rounds: 11 of 500, 164 of 8192
SYMBOLS = [chr(ord("A") + i) for i in range(PHONES)]
SIZES = {"hidden_size": 64, "num_layers": 3, "num_heads": 4}
CONFIG = {
    "tokens": CODES, "token_rate": 50.0, "phonemes": SYMBOLS, "separator": "",
    "text_positions": "plain", "model": SIZES | {"phone_table": 1024},
}  # fmt: skip


def build_upstream() -> Upstream:
    """Upstream's class, small, with weights large enough that every part matters.

    Its own initialisation leaves the norms' weights near zero (the flag that should spare them sits
    on the parent module), and with them every output.
    """
    model = Upstream(cond_codebook_size=CODES, **SIZES).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        offset = 1.0 if name.endswith("to_weight.bias") else 0.0
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator) + offset
    return model


def load_ours(model: Upstream) -> MaskedAdapter:
    """Upstream's weights saved by its library, read by our adapter through configuration, strictly."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(model, str(path))
        return MaskedAdapter.load_published(path, CONFIG)


def make_row(phones: int, before: int) -> tuple[Prompt, torch.Tensor]:
    """A prompt of `phones` phonemes, `before` of them the reference's, and all their ids."""
    ids = torch.randint(PHONES, (phones,))
    text = "".join(SYMBOLS[i] for i in ids)
    silence = np.zeros(16000, dtype=np.float32)
    return Prompt("x", "", text[before:], "en", "", text[:before], "en", silence), ids


@torch.no_grad()
def compare_scores(upstream: Upstream, adapter: MaskedAdapter, seed: int) -> dict[str, float]:
    """Logits and scores of a batch that upstream masks, with its own prompt lengths and times."""
    torch.manual_seed(seed)
    rows = [make_row(17, 6) for _ in range(4)]
    tokens, time = torch.randint(CODES, (4, 50)), torch.rand(4).clamp_min(TOLERANCE)
    phone_ids = torch.stack([ids for _, ids in rows])
    logits, mask, _, lengths, share = upstream.loss_t(
        tokens, torch.ones(4, 50), time, upstream.phone_emb(phone_ids), torch.ones(4, 17)
    )
    mask, lengths = mask[..., 0].bool(), lengths.long().tolist()
    logps = -F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    ours = []
    for i, (prompt, _) in enumerate(rows):
        reference, target = tokens[i, : lengths[i]], tokens[i, lengths[i] :]
        row = adapter.sequence(prompt, reference, target)
        if not lengths[i]:  # upstream keeps the reference's text where its speech is dropped
            row |= {"phone_ids": phone_ids[i], "phone_positions": torch.arange(17.0)}
            row["target_positions"] = torch.arange(50.0) + 17
        ours.append(row | {"mask": mask[i, lengths[i] :]})
    batch = adapter.pad(ours) | {"time": time}
    found = adapter.model(**adapter.inputs(batch))
    width = batch["reference_ids"].shape[1]
    apart = max(
        (found[i, width - n : width - n + 50] - logits[i]).abs().max().item()
        for i, n in enumerate(lengths)
    )
    schedule = (masked_share(time).clamp_min(0.2) - share).abs().max().item()
    result = {"logits": apart, "mask schedule": schedule}
    for reduction, weight in (("sum", 1), ("mean", mask.sum(1))):
        theirs = (logps * mask).sum(1) / weight
        score = adapter.score(adapter.model, batch, reduction)
        result[f"score, {reduction} (relative)"] = ((score - theirs) / theirs).abs().max().item()
    return result


@torch.no_grad()
def compare_padded(upstream: Upstream, adapter: MaskedAdapter, seed: int) -> dict[str, float]:
    """Logits of shorter targets in a padded batch, at valid positions."""
    torch.manual_seed(seed)
    ids, tokens, time = torch.randint(PHONES, (3, 9)), torch.randint(CODES, (3, 40)), torch.rand(3)
    valid = torch.arange(40) < torch.tensor([[40], [25], [11]])
    logits, mask, *_ = upstream.loss_t(
        tokens, valid.float(), time, upstream.phone_emb(ids), torch.ones(3, 9)
    )
    # final_mask leaves padding out; what upstream hides there is not seen, so it does not matter
    found = adapter.model(tokens, valid, mask[..., 0].bool(), time, ids, torch.ones(3, 9).bool())
    return {"logits, padded batch": (found - logits)[valid].abs().max().item()}


@torch.no_grad()
def compare_sampler(upstream: Upstream, adapter: MaskedAdapter, seed: int) -> dict[str, float]:
    """Iterative decoding with the same random numbers: hidden states of every step (against their
    largest value: guidance and no final scale make them large), then tokens."""
    steps, reference, length = 5 + 4 * (seed % 6), 20 + seed, 15 + 7 * seed
    torch.manual_seed(100 + seed)
    prompt, ids = make_row(18, 8)
    spoken = torch.randint(CODES, (reference,))
    heard: dict[str, list[torch.Tensor]] = {"theirs": [], "ours": []}
    hooks = [
        model.to_logit.register_forward_hook(lambda _, x, __, who=who: heard[who].append(x[0]))
        for who, model in (("theirs", upstream), ("ours", adapter.model))
    ]
    torch.manual_seed(seed)
    theirs = upstream.reverse_diffusion(
        spoken[None], length, ids[None], n_timesteps=steps, cfg=2.5, rescale_cfg=0.75
    )
    batch = adapter.pad([adapter.sequence(prompt, spoken, torch.zeros(length, dtype=torch.long))])
    inputs = adapter.inputs(batch | {"mask": batch["target_mask"], "time": torch.ones(1)})
    generator = torch.Generator().manual_seed(seed)
    settings = Unmasking(steps=steps, cfg=2.5, rescale=0.75, temperature=0.9, top_k=TOP_K)
    ours = unmask(adapter.model, inputs, batch["target_mask"], [generator], settings)
    for hook in hooks:
        hook.remove()
    pairs = list(zip(heard["theirs"], heard["ours"], strict=True))
    return {
        "guided hidden states (relative)": max(
            ((a - b).abs().max() / a.abs().max()).item() for a, b in pairs
        ),
        "sampled tokens that differ": float((theirs != ours).sum()),
    }


def main() -> int:
    """Compare, print, and return 1 if a difference is too large."""
    torch.set_num_threads(1)
    upstream = build_upstream()
    adapter = load_ours(upstream)
    upstream.load_state_dict(adapter.model.state_dict(), strict=True)
    print(f"torch {torch.__version__}, transformers {transformers.__version__} (upstream's pin)")
    size = sum(p.numel() for p in adapter.model.parameters())
    print(f"{size:,} random parameters, saved by upstream, loaded strict=True both ways")
    worst: dict[str, float] = {}
    for seed in range(SEEDS):
        for compare in (compare_scores, compare_padded, compare_sampler):
            for name, value in compare(upstream, adapter, seed).items():
                worst[name] = max(worst.get(name, 0.0), value)
    for name, value in worst.items():
        print(f"{name:34} max difference {value:.1e}")
    bad = [name for name, value in worst.items() if not value <= TOLERANCE]
    print(f"FAILED: {bad}" if bad else f"all within {TOLERANCE:.0e} over {SEEDS} seeds")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
