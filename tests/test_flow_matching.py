"""Flow matching: only target frames count, chance is keyed, and the published layout is met."""

import math
import sys

import pytest
import torch
from conftest import make_prompt
from safetensors.torch import save_file
from torch import nn

from intp.adapters.base import Draw, Example, draw
from intp.adapters.flow_matching import FlowMatchingAdapter, FlowMatchingConfig
from intp.audio import log_mel
from intp.corpus import Utterance
from intp.losses import flow_matching_error, preference_loss
from networks import f5
from networks.dit import DiT
from zoo.alignment import aligned, mean_durations, pauses, sounding_at, sounds
from zoo.ars import Segment

TINY = {
    "dim": 32, "depth": 2, "heads": 2, "dim_head": 16, "ff_mult": 2, "text_dim": 16,
    "conv_layers": 2, "text_mask_padding": True, "pe_attn_head": None,
}  # fmt: skip
V0 = {"text_mask_padding": False, "pe_attn_head": 1}
V1_BASE = {
    "dim": 1024, "depth": 22, "heads": 16, "ff_mult": 2, "text_dim": 512, "conv_layers": 4,
    "text_mask_padding": True, "pe_attn_head": None,
}  # fmt: skip
SAMPLING = {"duration_factor": 1.0, "steps": 3, "cfg": 2.0, "sway": -1.0, "max_seconds": 3.0}


def randomise(model: nn.Module, seed: int, scale: float = 0.15) -> None:
    """Nothing may hide behind a weight that starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(scale * torch.randn(weight.shape, generator=generator))


def make_adapter(seed: int = 0, positions: str = "rate", **flags: object) -> FlowMatchingAdapter:
    config = FlowMatchingConfig(
        list("abcd ."), text_positions=positions, mel_mean=-5.0, mel_std=2.0, model=TINY | flags
    )
    adapter = FlowMatchingAdapter(config)
    randomise(adapter.model, seed)
    return adapter


@pytest.fixture
def adapter() -> FlowMatchingAdapter:
    return make_adapter()


def examples(prompts: list) -> list[Example]:
    lengths = (21, 90, 45)
    return [
        Example(p, torch.randn(n, 100, generator=torch.Generator().manual_seed(n)))
        for p, n in zip(prompts, lengths, strict=True)
    ]


DRAWS = [Draw(1, 11), Draw(2, 12), Draw(3, 13)]


@torch.no_grad()
def test_score_is_minus_the_error_of_the_target_frames(adapter, prompts):
    example, batch = examples(prompts)[0], adapter.batch(examples(prompts)[:1], DRAWS[:1])
    reference = adapter.encode(example.prompt.reference_speech)
    speech = torch.cat([reference, example.target])
    start = f5.noise(11, len(speech), 100)
    time = torch.rand((), generator=torch.Generator().manual_seed(1))
    condition = torch.cat([reference, torch.zeros_like(example.target)])
    velocity = adapter.model(
        ((1 - time) * start + time * speech)[None], condition[None], batch["text"], time[None],
        text_frames=batch["text_frames"],
    )[0]  # fmt: skip
    error = ((velocity - (speech - start))[len(reference) :] ** 2).mean()
    assert adapter.score(adapter.model, batch).item() == pytest.approx(-error.item(), rel=1e-5)
    total = adapter.score(adapter.model, batch, reduction="sum").item()
    assert total == pytest.approx(-error.item() * 21 * 100, rel=1e-5)


@torch.no_grad()
def test_only_target_frames_count(adapter, prompts):
    batch = adapter.batch(examples(prompts), DRAWS)
    frames = [21, 90, 45]
    assert batch["target_mask"].sum(1).tolist() == frames
    assert not (batch["target_mask"] & ~batch["frame_mask"]).any()
    assert not batch["condition"][batch["target_mask"]].any()
    score = adapter.score(adapter.model, batch)
    other = dict(batch)
    other["velocity"] = torch.where(batch["target_mask"][..., None], batch["velocity"], 1e6)
    for key in ("noised", "condition"):
        other[key] = torch.where(batch["frame_mask"][..., None], batch[key], 1e3)
    assert torch.equal(score, adapter.score(adapter.model, other))


@pytest.mark.parametrize("flags", [{}, V0], ids=["v1", "v0"])
@pytest.mark.parametrize("positions", ["plain", "rate"])
@torch.no_grad()
def test_padding_order_and_batch_mates_change_nothing(prompts, positions, flags):
    adapter, rows = make_adapter(1, positions, **flags), examples(prompts)
    alone = [adapter.batch([r], [d]) for r, d in zip(rows, DRAWS, strict=True)]
    together = adapter.batch(rows, DRAWS)
    for i, row in enumerate(alone):
        assert torch.equal(together["noised"][i, : row["noised"].shape[1]], row["noised"][0])
    alone = torch.cat([adapter.score(adapter.model, row) for row in alone])
    backwards = adapter.score(adapter.model, adapter.batch(rows[::-1], DRAWS[::-1])).flip(0)
    assert torch.allclose(alone, adapter.score(adapter.model, together), atol=1e-5, rtol=1e-6)
    assert torch.allclose(alone, backwards, atol=1e-5, rtol=1e-6)


def pair_scores(model, adapter, answers: list[Example]) -> torch.Tensor:
    draws = [draw("pair", answer, seed=5) for answer in answers]
    return torch.cat(
        [adapter.score(model, adapter.batch([a], [d])) for a, d in zip(answers, draws, strict=True)]
    )


@torch.no_grad()
def test_swapping_negates_the_margin_and_policy_equal_to_reference_has_none(adapter, prompts):
    policy = make_adapter(9).model
    w, l = (Example(prompts[0], example.target) for example in examples(prompts)[:2])
    ratios = pair_scores(policy, adapter, [w, l]) - pair_scores(adapter.model, adapter, [w, l])
    swapped = pair_scores(policy, adapter, [l, w]) - pair_scores(adapter.model, adapter, [l, w])
    margin = preference_loss(*ratios[:, None], beta=1000.0).margin
    assert margin.abs() > 0
    assert torch.equal(margin, -preference_loss(*swapped[:, None], beta=1000.0).margin)
    none = pair_scores(adapter.model, adapter, [w, l]) - pair_scores(adapter.model, adapter, [w, l])
    start = preference_loss(*none[:, None], beta=1000.0)
    assert start.margin.item() == 0 and start.loss.item() == pytest.approx(math.log(2), abs=1e-7)


def test_a_pair_shares_its_time_and_on_request_its_noise(adapter, prompts):
    answers = [Example(prompts[0], example.target) for example in examples(prompts)]
    own = adapter.batch(answers, [draw("pair", a, 0) for a in answers])
    assert len(set(own["time"].tolist())) == 1
    both = adapter.batch(answers, [draw("pair", a, 0, share_noise=True) for a in answers])
    start = both["noised"] - both["time"][:, None, None] * both["velocity"]
    short = int(both["frame_mask"][0].sum())
    assert torch.allclose(start[0, :short], start[1, :short], atol=1e-5)
    start = own["noised"] - own["time"][:, None, None] * own["velocity"]
    assert not torch.allclose(start[0, :short], start[1, :short], atol=0.1)
    assert all(torch.equal(f5.noise(3, n, 7), f5.noise(3, 100, 7)[:n]) for n in (1, 5, 16, 33, 99))


def test_gradient_meets_finite_differences(adapter, prompts):
    model = adapter.model.double()
    batch = adapter.batch(examples(prompts)[:2], DRAWS[:2])
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    weights = list(model.parameters())
    adapter.score(model, batch).sum().backward()
    generator = torch.Generator().manual_seed(4)
    step = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    slope = sum((w.grad * s).sum() for w, s in zip(weights, step, strict=True)).item()
    values = []
    with torch.no_grad():
        for size in (1e-6, -2e-6):
            for w, s in zip(weights, step, strict=True):
                w += size * s
            values.append(adapter.score(model, batch).sum().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


def test_generation_depends_on_the_seed_alone(adapter, prompts):
    together = adapter.generate(prompts, SAMPLING, [7, 8, 9])
    alone = [
        adapter.generate([p], SAMPLING, [s])[0] for p, s in zip(prompts, (7, 8, 9), strict=True)
    ]
    other = adapter.generate(prompts, SAMPLING, [17, 18, 19])
    for (a, _), (b, _), (c, _) in zip(together, alone, other, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
        assert a.shape == c.shape and not torch.allclose(a, c, atol=1e-2)


def test_fast_speech_is_repeatable_and_rounds_only(adapter, prompts):
    exact = adapter.generate(prompts, SAMPLING, [7, 8, 9])
    fast = [adapter.generate(prompts, SAMPLING | {"fast": True}, [7, 8, 9]) for _ in range(2)]
    for (a, _), (b, _), (again, _) in zip(exact, *fast, strict=True):
        assert torch.equal(b, again) and b.dtype == torch.float32
        assert torch.allclose(a, b, atol=0.2)


def test_speech_comes_in_the_order_asked_with_its_frames(adapter, prompts):
    answers = adapter.synthesise(prompts, SAMPLING | {"batch_size": 2}, [7, 8, 9])
    for prompt, speech, seed in zip(prompts, answers, (7, 8, 9), strict=True):
        assert speech.seed == seed and speech.stopped
        assert torch.allclose(
            speech.target, adapter.generate([prompt], SAMPLING, [seed])[0][0], atol=1e-4
        )
        assert speech.target.dtype == torch.float32 and speech.target.shape[1] == 100
        assert len(speech.samples) == (len(speech.target) - 1) * 256


def test_duration_is_the_reference_s_rate_times_the_factor(adapter):
    prompt = make_prompt("x", "abcdabcd")  # the reference: "ab." and a separator, 63 frames
    assert adapter.duration(prompt, 63, SAMPLING) == (126, True)
    assert adapter.duration(prompt, 63, SAMPLING | {"duration_factor": 0.8}) == (100, True)
    assert adapter.duration(prompt, 63, SAMPLING | {"max_seconds": 1.0}) == (62, False)


def test_text_lies_where_its_speech_does(adapter):
    prompt = make_prompt("x", "abcdabcd")
    row = adapter.row(prompt, torch.zeros(40, 100), 80)
    spoken = row["text"][row["text_frames"]]
    assert spoken[:40].unique_consecutive().tolist() == [0, 1, 5, 4]
    assert spoken[40:].unique_consecutive().tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert "text_frames" not in make_adapter(0, "plain").row(prompt, torch.zeros(40, 100), 80)


@torch.no_grad()
def test_one_step_is_the_guided_velocity(adapter, prompts):
    batch = adapter.batch(examples(prompts)[:1], DRAWS[:1])
    inputs = {k: batch[k] for k in ("condition", "text")}
    names = {"mask": batch["frame_mask"], "text_frames": batch["text_frames"]}
    start = torch.randn_like(batch["noised"])
    arrived = f5.euler(
        adapter.model, start, **inputs, **names, times=torch.tensor([0.0, 0.5]), cfg=2.0
    )
    c = adapter.model(start, **inputs, **names, time=torch.zeros(1))
    u = adapter.model(
        start, **inputs, **names, time=torch.zeros(1), drop_audio=True, drop_text=True
    )
    assert torch.allclose(arrived, start + 0.5 * (c + 2 * (c - u)), atol=1e-5)


def test_time_grids_run_from_noise_to_speech():
    for steps in (4, 5, 6, 7, 10, 12, 16, 32):
        times = f5.time_grid(steps, -1.0)
        assert len(times) == steps + 1 and (times.diff() > 0).all()
        assert times[0] == 0 and times[-1].item() == pytest.approx(1.0, abs=1e-6)


@torch.no_grad()
def test_save_and_load_give_the_same_scores(adapter, prompts, tmp_path):
    adapter.save(tmp_path / "first.safetensors")
    first = FlowMatchingAdapter.load(tmp_path / "first.safetensors", None)
    first.save(tmp_path / "second.safetensors")
    second = FlowMatchingAdapter.load(tmp_path / "second.safetensors", None)
    batch = adapter.batch(examples(prompts), DRAWS)
    assert torch.equal(first.score(first.model, batch), second.score(second.model, batch))
    frequencies = (m.rotary_embed.inv_freq for m in (adapter.model, second.model))
    assert torch.equal(*frequencies)
    assert first.config == adapter.config


def test_speech_is_the_log_mel_of_the_package_normalised(adapter, prompts):
    samples = prompts[0].reference_speech
    mel = adapter.encode(samples)
    assert torch.allclose(mel, (log_mel(samples) + 5) / 2, atol=1e-6)
    assert adapter.decode(mel).shape == ((len(mel) - 1) * 256,)


PUBLISHED = {  # F5-TTS v1 base: names below `transformer.`, {} counts the layers of a kind
    "time_embed.time_mlp.0": [1024, 256], "time_embed.time_mlp.2": [1024, 1024],
    "text_embed.text_blocks.{}.dwconv": [512, 1, 7], "text_embed.text_blocks.{}.norm": [512],
    "text_embed.text_blocks.{}.pwconv1": [1024, 512],
    "text_embed.text_blocks.{}.pwconv2": [512, 1024],
    "input_embed.proj": [1024, 712], "input_embed.conv_pos_embed.conv1d.0": [1024, 64, 31],
    "input_embed.conv_pos_embed.conv1d.2": [1024, 64, 31],
    "transformer_blocks.{}.attn_norm.linear": [6144, 1024],
    "transformer_blocks.{}.attn.to_q": [1024, 1024],
    "transformer_blocks.{}.attn.to_k": [1024, 1024],
    "transformer_blocks.{}.attn.to_v": [1024, 1024],
    "transformer_blocks.{}.attn.to_out.0": [1024, 1024],
    "transformer_blocks.{}.ff.ff.0.0": [2048, 1024],
    "transformer_blocks.{}.ff.ff.2": [1024, 2048],
    "norm_out.linear": [2048, 1024], "proj_out": [100, 1024],
}  # fmt: skip


def test_published_names_and_shapes():
    wanted = {"text_embed.text_embed.weight": [2546, 512], "rotary_embed.inv_freq": [32]}
    for name, shape in PUBLISHED.items():
        layers = 4 if "text_blocks" in name else 22 if "transformer_blocks" in name else 1
        for i in range(layers):
            wanted[name.format(i) + ".weight"] = shape
            wanted[name.format(i) + ".bias"] = shape[:1]
    for i in range(4):
        for part in ("gamma", "beta"):
            wanted[f"text_embed.text_blocks.{i}.grn.{part}"] = [1, 1, 1024]
    with torch.device("meta"):
        model = DiT(symbols=2545, **V1_BASE)
    assert {name: list(t.shape) for name, t in model.state_dict().items()} == wanted
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 337


def test_flags_that_no_tensor_shows_have_no_default():
    for flag in V0:
        with pytest.raises(TypeError, match=flag):
            DiT(symbols=3, **{k: v for k, v in TINY.items() if k != flag})


def test_published_files_load_strictly(adapter, tmp_path):
    vocabulary, checkpoint = tmp_path / "vocab.txt", tmp_path / "model.safetensors"
    vocabulary.write_bytes("".join(f"{s}\r\n" for s in " abcd.").encode())
    tensors = {
        f"ema_model.transformer.{k}": v for k, v in adapter.model.half().state_dict().items()
    }
    tensors |= {"initted": torch.tensor(True), "step": torch.tensor(9)}
    save_file(tensors, checkpoint)
    settings = {
        "vocabulary": str(vocabulary), "text": "pinyin", "text_positions": "plain",
        "vocoder": "vocos", "model": TINY,
    }  # fmt: skip
    loaded = FlowMatchingAdapter.load_published(checkpoint, settings)
    assert loaded.ids == {s: i for i, s in enumerate(" abcd.")}
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert len(loaded.encode(torch.zeros(16000).numpy())) == 24000 // 256 + 1
    save_file(tensors | {"ema_model.transformer.odd": torch.zeros(1)}, checkpoint)
    with pytest.raises(RuntimeError, match="odd"):
        FlowMatchingAdapter.load_published(checkpoint, settings)
    vocabulary.write_text("a\nb\n")
    with pytest.raises(ValueError, match="space first"):
        f5.read_vocabulary(vocabulary)


def test_pinyin_with_spaces_as_published():
    assert f5.pinyin("你好，OK吗？") == [
        " ", "ni2", " ", "hao3", "，", " ", "O", "K", " ", "ma", "？",
    ]  # fmt: skip
    assert "".join(f5.pinyin("It’s fine; go.")) == "It's fine, go."
    assert f5.pinyin("……") == ["…", "…"]


def test_what_is_missing_or_unknown_is_named(adapter, monkeypatch):
    with pytest.raises(ValueError, match="ʒ"):
        adapter.text(make_prompt("x", "abʒ"))
    with pytest.raises(ValueError, match="vocoder"):
        FlowMatchingConfig(vocoder="hifigan")
    monkeypatch.setitem(sys.modules, "vocos", None)
    with pytest.raises(ModuleNotFoundError, match="pip install vocos"):
        f5.vocos(torch.zeros(4, 100))


def test_error_by_hand():
    velocity, target = torch.tensor([[[1.0], [3.0]]]), torch.zeros(1, 2, 1)
    assert flow_matching_error(velocity, target, torch.tensor([[False, True]])).item() == 9.0


def test_symbols_are_heard_as_long_as_they_last_and_silent_ones_never():
    heard = f5.spread_by(torch.tensor([1.0, 0.0, 2.0, 1.0]), 8)
    assert heard.tolist() == [0, 0, 2, 2, 2, 2, 3, 3]
    assert f5.spread_by(torch.tensor([3.5, 0.5]), 2).tolist() == [0, 0]


def test_frames_hear_the_phonemes_that_their_tokens_sound():
    versions = [Segment(torch.zeros(3), torch.tensor([0, 2, 2]))]
    loud = torch.randn(7, 100, generator=torch.Generator().manual_seed(0))
    for frames, heard in (
        (7, [0, 0, 2, 2, 2, 2, 2]),
        (6, [0, 0, 2, 2, 2, 2]),
        (5, [0, 0, 2, 2, 2]),
    ):
        assert aligned(versions, loud[:frames], "a b").tolist() == heard
    assert aligned(versions, torch.zeros(9, 100), "a b") is None
    assert aligned([], loud[:6], "a b") is None


def test_a_pause_belongs_to_the_mark_between_the_phonemes_around_it():
    versions = [Segment(torch.zeros(6), torch.tensor([0, 0, 0, 3, 3, 3]))]
    mel = torch.zeros(12, 100)
    mel[4:8] = -8.0
    assert pauses(mel) == [(4, 8)]
    assert aligned(versions, mel, "a, b").tolist() == [0] * 4 + [1] * 4 + [3] * 4
    assert aligned(versions, mel, "axyb").tolist() == [0] * 6 + [3] * 6


def test_mean_durations_count_frames_for_each_time_a_symbol_is_said():
    row = Utterance("u", "en", "", "aba", {"v": 1.0}, 1.0, "", 0, 0.1, "")
    versions = {"u": [Segment(torch.zeros(3), torch.tensor([0, 1, 2]))]}
    heard = sounds([row], versions, {"u": torch.zeros(6, 100)})
    assert mean_durations(["a", "b", "c"], [row], heard) == [2, 2, 0]


def test_a_phoneme_lies_where_its_tokens_are_and_a_silent_one_between_its_neighbours():
    places = sounding_at(torch.tensor([0, 0, 2, 2, 2, 4]), 6)
    assert places.tolist() == [0.5, 1.75, 3.0, 4.0, 5.0, 5.0]
