"""The masked adapter: what is masked, what counts, and that neither padding nor batch mates matter."""

import math
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_prompt
from safetensors.torch import save_file

from intp.adapters.base import Draw, Example, draw
from intp.adapters.masked import MaskedAdapter, MaskedConfig
from intp.losses import preference_loss
from networks.maskgct import MaskGCT_T2S
from networks.maskgct_sampling import _deviation, masked_share
from networks.maskgct_upstream import upstream
from networks.upstream import MissingUpstream

SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 48}
SAMPLING = {
    "steps": 3, "cfg": 2.5, "rescale": 0.75, "temperature": 0.9, "top_k": 20,
    "duration_factor": 1.0, "max_seconds": 2.0,
}  # fmt: skip
WIDTH, INNER, CODES = 1536, 6144, 8192
LAYER = {
    **{f"self_attn.{p}_proj.weight": (WIDTH, WIDTH) for p in "qkvo"},
    "mlp.gate_proj.weight": (INNER, WIDTH),
    "mlp.up_proj.weight": (INNER, WIDTH),
    "mlp.down_proj.weight": (WIDTH, INNER),
    **{
        f"{norm}.to_weight.{part}": shape
        for norm in ("input_layernorm", "post_attention_layernorm")
        for part, shape in (("weight", (WIDTH, WIDTH)), ("bias", (WIDTH,)))
    },
}
MLP = {
    "0.weight": (INNER, WIDTH),
    "0.bias": (INNER,),
    "2.weight": (WIDTH, INNER),
    "2.bias": (WIDTH,),
}
PUBLISHED = {
    "cond_emb.weight": (CODES, WIDTH),
    "mask_emb.weight": (1, WIDTH),
    "phone_emb.weight": (1024, WIDTH),
    "to_logit.weight": (CODES, WIDTH),
    "to_logit.bias": (CODES,),
    "diff_estimator.norm.to_weight.weight": (WIDTH, WIDTH),
    "diff_estimator.norm.to_weight.bias": (WIDTH,),
    **{f"diff_estimator.layers.{i}.{name}": s for i in range(16) for name, s in LAYER.items()},
    **{
        f"diff_estimator.{mlp}.{name}": s
        for mlp in ("diff_step_mlp", "cond_mlp")
        for name, s in MLP.items()
    },
}


def stir(model: torch.nn.Module) -> None:
    """Weights large enough that every part of the model matters."""
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        weight.data = 0.15 * noise + (1.0 if name.endswith("to_weight.bias") else 0.0)


def build(tokenizer, **changes) -> MaskedAdapter:
    lasts = [2.0, 1.0, 3.0, 0.5, 0.0, 1.0]
    config = MaskedConfig(
        **{"phonemes": list("abcd ."), "durations": lasts, "model": SIZES} | changes
    )
    adapter = MaskedAdapter(config, tokenizer)
    stir(adapter.model)
    return adapter


@pytest.fixture(params=["rate", "plain", "durations"])
def masked(tokenizer, request) -> MaskedAdapter:
    return build(tokenizer, text_positions=request.param)


def examples(prompts: list) -> list[Example]:
    return [
        Example(p, torch.randint(1000, (n,), generator=torch.Generator().manual_seed(n)))
        for p, n in zip(prompts, (5, 30, 12), strict=True)
    ]


def draws(rows: list[Example]) -> list[Draw]:
    return [draw(f"pair {i}", row, 3) for i, row in enumerate(rows)]


@torch.no_grad()
def test_score_is_the_sum_over_masked_target_tokens(masked: MaskedAdapter, prompts: list):
    row = examples(prompts)[1]
    batch = masked.batch([row], draws([row]))
    first = batch["reference_ids"].shape[1]
    logps = masked.model(**masked.inputs(batch)).log_softmax(-1)[0]
    where = batch["mask"][0].nonzero().squeeze(1).tolist()
    by_hand = [logps[first + i, row.target[i]].item() for i in where]
    assert 0 < len(where) < len(row.target)
    assert masked.score(masked.model, batch).item() == pytest.approx(sum(by_hand), rel=1e-5)
    mean = masked.score(masked.model, batch, "mean").item()
    assert mean == pytest.approx(sum(by_hand) / len(where), rel=1e-5)


def test_masks_hide_target_tokens_only(masked: MaskedAdapter, prompts: list):
    rows = examples(prompts)
    batch = masked.batch(rows, draws(rows))
    inputs = masked.inputs(batch)
    width = batch["reference_ids"].shape[1]
    assert not inputs["mask"][:, :width].any()
    assert not (batch["mask"] & ~batch["target_mask"]).any()
    assert batch["target_mask"].sum(1).tolist() == [len(row.target) for row in rows]
    assert batch["mask"].any(1).all()
    for i, row in enumerate(rows):
        reference = masked.encode(row.prompt.reference_speech)
        assert torch.equal(batch["reference_ids"][i, width - len(reference) :], reference)


@torch.no_grad()
def test_a_token_that_is_masked_is_not_seen_but_the_others_are(
    masked: MaskedAdapter, prompts: list
):
    row = examples(prompts)[1]
    batch = masked.batch([row], draws([row]))
    hidden = batch["mask"][0]
    logits = masked.model(**masked.inputs(batch))
    other = {k: v.clone() for k, v in batch.items()}
    other["target_ids"][0, hidden] = (other["target_ids"][0, hidden] + 1) % 1000
    assert torch.equal(logits, masked.model(**masked.inputs(other)))
    other["target_ids"][0, ~hidden] = (other["target_ids"][0, ~hidden] + 1) % 1000
    assert not torch.allclose(logits, masked.model(**masked.inputs(other)), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_padding_order_and_batch_mates_change_nothing(
    masked: MaskedAdapter, prompts: list, reduction: str
):
    rows = examples(prompts)
    seeds = draws(rows)

    def score(picked: list[int]) -> torch.Tensor:
        batch = masked.batch([rows[i] for i in picked], [seeds[i] for i in picked])
        return masked.score(masked.model, batch, reduction)

    alone = torch.cat([score([i]) for i in range(3)])
    assert torch.allclose(alone, score([0, 1, 2]), atol=1e-5, rtol=1e-6)
    assert torch.allclose(alone, score([2, 1, 0]).flip(0), atol=1e-5, rtol=1e-6)
    assert torch.allclose(alone[1:], score([1, 2]), atol=1e-5, rtol=1e-6)


@torch.no_grad()
def test_eager_attention_gives_the_same_logits(tokenizer, prompts: list):
    fused, eager = (build(tokenizer, model=SIZES | {"attention": a}) for a in ("sdpa", "eager"))
    batch = fused.inputs(fused.batch(examples(prompts)))
    valid = batch["token_mask"]
    assert torch.allclose(fused.model(**batch)[valid], eager.model(**batch)[valid], atol=1e-5)


def test_policy_and_reference_meet_the_same_draw(masked: MaskedAdapter, prompts: list):
    rows = examples(prompts)
    first, second = masked.batch(rows, draws(rows)), masked.batch(rows, draws(rows))
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = masked.batch(rows, [draw(f"pair {i}", r, 4) for i, r in enumerate(rows)])
    assert not torch.equal(first["mask"], other["mask"])


def test_a_pair_shares_its_time_but_not_its_mask(masked: MaskedAdapter, prompts: list):
    chosen = Example(prompts[0], torch.arange(40))
    rejected = Example(prompts[0], torch.arange(40) + 1)
    batch = masked.batch([chosen, rejected], [draw("pair", e, 0) for e in (chosen, rejected)])
    assert batch["time"][0] == batch["time"][1]
    assert not torch.equal(batch["mask"][0], batch["mask"][1])


@torch.no_grad()
def test_swapping_chosen_and_rejected_negates_the_margin(tokenizer, prompts: list):
    config = MaskedConfig(phonemes=list("abcd ."), model=SIZES)
    policy, reference = build(tokenizer), MaskedAdapter(config, tokenizer)
    pair = [Example(prompts[1], torch.arange(n)) for n in (20, 31)]

    def margin(rows: list[Example]) -> torch.Tensor:
        batch = policy.batch(rows, [draw("pair", row, 0) for row in rows])
        ratio = policy.score(policy.model, batch) - policy.score(reference.model, batch)
        return preference_loss(ratio[:1], ratio[1:], beta=10.0).margin

    assert margin(pair) != 0
    assert torch.equal(margin(pair), -margin(pair[::-1]))


def test_policy_equal_to_reference_loses_log_two(masked: MaskedAdapter, prompts: list):
    rows = [Example(prompts[1], torch.arange(n)) for n in (20, 31)]
    batch = masked.batch(rows, draws(rows))
    ratio = masked.score(masked.model, batch) - masked.score(masked.model, batch).detach()
    loss = preference_loss(ratio[:1], ratio[1:], beta=10.0)
    assert loss.loss.item() == pytest.approx(math.log(2)) and loss.margin.item() == 0


def test_the_masked_share_follows_the_schedule(tokenizer):
    masked = build(tokenizer)
    for shared in range(6):
        rows = [masked.masking(100, Draw(shared, own)) for own in range(100)]
        time = rows[0]["time"]
        wanted = max(masked_share(time).item(), 0.2)
        share = torch.stack([row["mask"] for row in rows]).float().mean().item()
        deviation = math.sqrt(wanted * (1 - wanted) / (100 * 100))
        assert share == pytest.approx(wanted, abs=4 * deviation + 1e-3)
    times = torch.stack([masked.masking(1, Draw(s, 0))["time"] for s in range(500)])
    assert times.mean().item() == pytest.approx(0.5, abs=0.05)
    assert times.min() >= 1e-5 and times.max() <= 1


def test_at_least_one_token_is_masked(tokenizer):
    masked = build(tokenizer)
    masks = [masked.masking(2, Draw(own % 20, own))["mask"] for own in range(100)]
    assert all(mask.any() for mask in masks)
    assert any(mask[1] and not mask[0] for mask in masks)


def test_gradients_agree_with_finite_differences(tokenizer, prompts: list):
    sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 8}
    adapter = build(tokenizer, model=sizes)
    adapter.model.double()
    rows = [Example(prompts[0], torch.arange(4)), Example(prompts[1], torch.arange(6))]
    batch = adapter.batch(rows, draws(rows))

    def loss() -> torch.Tensor:
        score = adapter.score(adapter.model, batch)
        return preference_loss(score[:1], score[1:], beta=0.05).loss

    loss().backward()
    for name, weight in adapter.model.named_parameters():
        flat, step = weight.data.view(-1), 1e-5
        place = int(weight.grad.abs().argmax())
        values = []
        for change in (step, -2 * step):
            flat[place] += change
            values.append(loss().item())
        flat[place] += step
        slope = (values[0] - values[1]) / (2 * step)
        assert weight.grad.view(-1)[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-9), name
        assert weight.grad.abs().max() > 0, name


def test_generation_depends_on_the_seed_alone(masked: MaskedAdapter, prompts: list):
    together = masked.generate(prompts, SAMPLING, [7, 8, 9])
    torch.manual_seed(99)
    alone = [
        masked.generate([p], SAMPLING, [s])[0] for p, s in zip(prompts, (7, 8, 9), strict=True)
    ]
    other = masked.generate(prompts, SAMPLING, [17, 18, 19])
    for (a, _), (b, _) in zip(together, alone, strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for (a, _), (b, _) in zip(together, other, strict=True))


def test_the_target_has_the_reference_s_rate_times_the_factor(masked: MaskedAdapter):
    prompt = make_prompt("x", "abcdabcdabcd.")
    rate = len(masked.encode(prompt.reference_speech)) / len(prompt.prompt_phonemes + " ")
    for factor in (0.8, 1.2):
        settings = SAMPLING | {"duration_factor": factor, "max_seconds": 60, "steps": 1}
        tokens, whole = masked.generate([prompt], settings, [0])[0]
        assert len(tokens) == int(13 * (rate * factor)) and whole
    tokens, whole = masked.generate([prompt], SAMPLING | {"max_seconds": 1}, [0])[0]
    assert len(tokens) == 31 and not whole


def test_without_guidance_or_noise_one_step_gives_the_likeliest_tokens(
    masked: MaskedAdapter, prompts: list
):
    tokens, _ = masked.generate(prompts[:1], SAMPLING | {"steps": 1, "cfg": 0.0}, [0])[0]
    batch = masked.batch([Example(prompts[0], tokens)])
    batch["mask"], batch["time"] = batch["target_mask"], torch.ones(1)
    logits = masked.model(**masked.inputs(batch))[0, -len(tokens) :]
    assert torch.equal(logits.argmax(-1), tokens)


def test_the_rescaled_deviation_is_a_row_s_own():
    x, mask = torch.randn(2, 5, 3), torch.arange(5) < torch.tensor([[5], [3]])
    for i, n in enumerate((5, 3)):
        assert _deviation(x, mask)[i].item() == pytest.approx(x[i, :n].std().item(), rel=1e-5)


def test_fast_speech_is_repeatable_and_as_long(masked: MaskedAdapter, prompts: list):
    exact = masked.generate(prompts, SAMPLING, [7, 8, 9])
    fast = [masked.generate(prompts, SAMPLING | {"fast": True}, [7, 8, 9]) for _ in range(2)]
    for (a, _), (b, _), (again, _) in zip(exact, *fast, strict=True):
        assert torch.equal(b, again) and b.shape == a.shape


def test_speech_has_samples_tokens_and_its_seed(tokenizer, prompts: list):
    masked = build(tokenizer)
    speech = masked.synthesise(prompts, SAMPLING | {"batch_size": 2}, [7, 8, 9])
    alone = masked.synthesise(prompts[1:2], SAMPLING, [8])[0]
    assert [s.seed for s in speech] == [7, 8, 9]
    assert torch.equal(speech[1].target, alone.target)
    assert np.array_equal(speech[1].samples, alone.samples) and len(alone.samples) > 0


def test_phonemes_at_rate_lie_over_their_own_speech(tokenizer, prompts: list):
    adapter = build(tokenizer)
    row = adapter.sequence(prompts[1], torch.arange(20), torch.arange(30))
    before = len(prompts[1].prompt_phonemes) + 1
    heard, new = row["phone_positions"][:before], row["phone_positions"][before:]
    assert heard.mean().item() == pytest.approx(9.5) and new.mean().item() == pytest.approx(34.5)
    assert (row["phone_positions"].diff() > 0).all()
    assert row["target_positions"].tolist() == list(range(20, 50))


def test_plain_positions_are_the_network_s_own(tokenizer, prompts: list):
    adapter = build(tokenizer, text_positions="plain")
    inputs = adapter.inputs(adapter.batch(examples(prompts)))
    counted = {key: value for key, value in inputs.items() if key != "positions"}
    valid = inputs["token_mask"]
    with torch.no_grad():
        assert torch.equal(adapter.model(**inputs)[valid], adapter.model(**counted)[valid])


def test_unknown_phoneme_is_named(masked: MaskedAdapter):
    with pytest.raises(ValueError, match="ʒ"):
        masked.frontend.phones(make_prompt("x", "abʒ"))


def test_save_and_load_give_the_same_scores(masked: MaskedAdapter, prompts: list, tmp_path):
    masked.save(tmp_path / "first.safetensors")
    first = MaskedAdapter.load(tmp_path / "first.safetensors", masked.tokenizer)
    first.save(tmp_path / "second.safetensors")
    second = MaskedAdapter.load(tmp_path / "second.safetensors", masked.tokenizer)
    batch = masked.batch(examples(prompts), draws(examples(prompts)))
    assert torch.equal(first.score(first.model, batch), second.score(second.model, batch))
    assert first.config == masked.config


def test_published_names_and_shapes():
    with torch.device("meta"):
        model = MaskGCT_T2S()
    assert {key: tuple(v.shape) for key, v in model.state_dict().items()} == PUBLISHED


def test_a_published_file_is_read_by_configuration_and_strictly(tokenizer, tmp_path):
    config = {
        "tokens": 64, "token_rate": 50.0, "phonemes": list("abcd ."), "separator": "",
        "text_positions": "plain", "model": SIZES | {"phone_table": 20},
    }  # fmt: skip
    weights = {k: v.clone() for k, v in build(tokenizer, **config).model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    loaded = MaskedAdapter.load_published(tmp_path / "model.safetensors", config, tokenizer)
    assert all(torch.equal(v, weights[k]) for k, v in loaded.model.state_dict().items())
    save_file(weights | {"extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(RuntimeError, match="extra"):
        MaskedAdapter.load_published(tmp_path / "more.safetensors", config, tokenizer)


PIPELINE = SimpleNamespace(  # upstream's names and shapes: 320 samples a token, noise as speech
    extract_features=lambda speech: (torch.zeros(len(speech) // 320, 160), torch.ones(1)),
    extract_semantic_code=lambda features, mask: (torch.full((1, features.shape[1]), 7), None),
    extract_acoustic_code=lambda speech: torch.zeros(1, speech.shape[1] // 480, 12),
    semantic2acoustic=lambda codes, acoustic: (None, torch.rand(320 * codes.shape[1]).numpy()),
)


def fake_upstream(monkeypatch):
    """Put modules in place that look like `ttsdb-maskgct` and its core."""
    model = SimpleNamespace(device="cpu", _get_inference_pipeline=lambda: PIPELINE)
    modules = {
        "ttsdb_maskgct": {"MaskGCT": lambda model_path, device: model},
        "ttsdb_core": {"vendor_context": lambda name, cwd, env: nullcontext()},
        "models.tts.maskgct.maskgct_utils": {
            "g2p_": lambda text, lang: (list(text), [1 + ord(c) % 7 for c in text])
        },
    }
    for name, content in modules.items():
        for i in range(name.count(".") + 1):
            parent = ".".join(name.split(".")[: i + 1])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        vars(sys.modules[name]).update(content)


def test_the_published_front_end_is_configuration(tokenizer, prompts: list, monkeypatch):
    fake_upstream(monkeypatch)
    upstream.cache_clear()
    config = MaskedConfig(
        tokens=64, token_rate=50.0, text_positions="plain",
        frontend="networks.maskgct_upstream:UpstreamFrontend",
        frontend_options={"weights": "folder"}, model=SIZES | {"phone_table": 9},
    )  # fmt: skip
    adapter = MaskedAdapter(config, tokenizer)
    settings = SAMPLING | {"top_k": 2}
    first, again = (adapter.synthesise(prompts[:1], settings, [3])[0] for _ in range(2))
    assert len(first.target) == int(50 / len(prompts[0].prompt_text) * len(prompts[0].target_text))
    spoken = len(adapter.encode(prompts[0].reference_speech))
    assert len(first.samples) == math.ceil(320 * (spoken + len(first.target)) * 2 / 3)
    assert np.array_equal(first.samples, again.samples)
    upstream.cache_clear()


def test_a_missing_upstream_package_says_what_to_install(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ttsdb_maskgct", None)
    upstream.cache_clear()
    config = MaskedConfig(
        frontend="networks.maskgct_upstream:UpstreamFrontend",
        frontend_options={"weights": "nowhere"},
        model=SIZES | {"phone_table": 9},
    )
    with pytest.raises(MissingUpstream, match="pip install ttsdb-maskgct"):
        MaskedAdapter(config, tokenizer)
