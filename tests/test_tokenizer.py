"""The tokenizer's codes and the corpus loop's promises."""

import copy

import pytest
import torch

from intp.adapters.ar import ARAdapter
from intp.audio import log_mel
from intp.corpus import Utterance
from networks.tokenizer import FSQ, SpeechTokenizer
from zoo.ars import ARTask, Segment, align
from zoo.loop import Schedule, StepBatches, pretrain
from zoo.tokenizer import DecoderTask, EncoderTask, TokenizerTask
from zoo.voices import another_voice, warped


def test_fsq_codes_and_values_are_each_others_inverse():
    fsq = FSQ([8, 5, 5, 5])
    codes = torch.arange(1000)
    values = fsq.values(codes)
    assert fsq.size == 1000 and values.unique(dim=0).shape[0] == 1000
    quantised, found = fsq(torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(fsq.values(found), quantised)
    assert found.unique().numel() > 500


def test_padding_changes_no_valid_token(tokenizer: SpeechTokenizer):
    mel = torch.randn(1, 40, 100)
    alone, _ = tokenizer.encode(mel, torch.ones(1, 20))
    padded = torch.cat([mel, torch.randn(1, 20, 100)], dim=1)
    mask = torch.cat([torch.ones(1, 20), torch.zeros(1, 10)], dim=1)
    vectors, _ = tokenizer.encode(padded, mask)
    assert torch.allclose(vectors[:, :20], alone, atol=1e-5)
    timbre = tokenizer.embed_timbre(padded, mask)
    assert torch.allclose(timbre, tokenizer.embed_timbre(mel, torch.ones(1, 20)), atol=1e-5)
    speech = tokenizer.decode(vectors, timbre, mask)[:, :40]
    assert torch.allclose(speech, tokenizer.decode(alone, timbre, torch.ones(1, 20)), atol=1e-4)


def test_alignment_is_monotonic_and_covers_the_text(tokenizer: SpeechTokenizer):
    phoneme = align(tokenizer, torch.randn(20, 5), "ab cd.")
    assert (phoneme.diff() >= 0).all()
    assert phoneme.unique().tolist() == [0, 1, 3, 4]


def test_an_epoch_visits_every_utterance_once_within_the_budget():
    lengths = [7, 30, 12, 5, 18, 9, 22]
    batch = StepBatches(lengths, 60, seed=0)
    seen, step = [], 0
    while len(seen) < len(lengths):
        rows = batch(step)
        assert max(lengths[i] for i in rows) * len(rows) <= 60
        seen += rows
        step += 1
    assert sorted(seen) == list(range(len(lengths)))


def test_a_killed_pretraining_ends_as_one_never_killed(tmp_path):
    def run(folder, stops: list[int]) -> torch.Tensor:
        for stop in stops:
            torch.manual_seed(3)
            model = torch.nn.Linear(4, 1)

            def loss(step: int, model: torch.nn.Linear = model, stop: int = stop):
                if step == stop:
                    raise KeyboardInterrupt
                value = (model(torch.randn(8, 4)) - 1).square().mean()
                return value, {"mse": value.item()}

            schedule = Schedule(steps=30, lr=1e-2, warmup=2, save_every=5)
            try:
                pretrain(model, loss, schedule, folder, "line")
            except KeyboardInterrupt:
                continue
        return model.weight.detach()

    whole = run(tmp_path / "whole", [-1])
    killed = run(tmp_path / "killed", [7, 13, 28, -1])
    assert torch.equal(whole, killed)


def utterances() -> tuple[list[Utterance], dict[str, torch.Tensor]]:
    """Three of one voice, and their log-mels, of noise."""
    voice = {
        "voice": {"a": 1.0},
        "speed": 1.0,
        "topic": "",
        "level": 0,
        "duration": 1.0,
        "shard": "",
    }
    rows = [Utterance(id=str(i), lang="en", text="ab", phonemes="ab", **voice) for i in range(3)]
    return rows, {row.id: torch.randn(30 + 4 * int(row.id), 100) for row in rows}


@pytest.mark.parametrize("hertz", [220.0, 1000.0, 3000.0])
def test_a_warped_tone_is_the_tone_at_the_warped_frequency(hertz: float):
    seconds = torch.arange(16000) / 16000
    tone, higher = (
        log_mel(0.3 * torch.sin(2 * torch.pi * f * seconds)) for f in (hertz, 1.2 * hertz)
    )
    loudest = warped(tone, 1.2).mean(0).argmax()
    assert loudest == higher.mean(0).argmax() != tone.mean(0).argmax()
    assert torch.allclose(warped(tone, 1.0), tone, atol=1e-3)
    torch.manual_seed(0)
    assert not torch.allclose(another_voice(tone, 0.2), another_voice(tone, 0.2))


def test_with_warp_an_utterance_is_heard_in_one_voice_and_spoken_in_another(
    tokenizer: SpeechTokenizer, monkeypatch: pytest.MonkeyPatch
):
    rows, mels = utterances()
    task = TokenizerTask(copy.deepcopy(tokenizer), rows, mels, 400, 0.1, 0, warp=0.2)
    torch.manual_seed(0)
    drawn = task.voices(rows * 100)
    assert 0.81 < min(drawn) < 0.85 and 1.18 < max(drawn) < 1.23
    assert set(TokenizerTask(task.model, rows, mels, 400, 0.1, 0).voices(rows)) == {1.0}
    spoken, heard = [1.1] * 3, [0.9] * 3
    voices, found = iter([spoken, heard]), []
    monkeypatch.setattr(task, "voices", lambda _: next(voices))
    monkeypatch.setattr(task, "mate", lambda row: mels[row.id])
    encode, embed = task.model.encode, task.model.embed_timbre
    monkeypatch.setattr(task.model, "encode", lambda m, k: found.append(m) or encode(m, k))
    monkeypatch.setattr(task.model, "embed_timbre", lambda m, k: found.append(m) or embed(m, k))
    loss, _ = task.losses(rows)
    assert loss.isfinite()
    assert torch.equal(found[0], task.frames(rows, heard)[0])
    timbre, wanted = found[1], task.frames(rows, spoken)[0]
    assert torch.equal(timbre, wanted) and not torch.equal(found[0], wanted)


def seeded(task: DecoderTask | EncoderTask) -> tuple[torch.Tensor, dict[str, float]]:
    torch.manual_seed(0)
    return task(0)


def learn(task: DecoderTask | EncoderTask, lr: float, steps: int) -> tuple[torch.Tensor, dict]:
    """The loss of the last step, and its parts; every step draws as the first."""
    optimizer = torch.optim.AdamW(task.base.model.parameters(), lr)
    for _ in range(steps):
        loss, parts = seeded(task)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss, parts


def test_the_encoder_learns_the_codes_of_the_first_in_another_voice(tokenizer: SpeechTokenizer):
    model = copy.deepcopy(tokenizer)
    rows, mels = utterances()
    weights = {"ctc": 0.1, "warp": 0.2}
    task = EncoderTask(model, copy.deepcopy(tokenizer), rows, mels, 400, weights, seed=0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    _, first = seeded(task)
    _, parts = learn(task, 3e-3, 20)
    assert parts["far"] < first["far"] and parts["kept"] > first["kept"]
    changed = {
        n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])
    }
    assert changed == {"encoder", "to_code"}
    assert all(
        torch.equal(p, q)
        for p, q in zip(task.first.parameters(), tokenizer.parameters(), strict=True)
    )


def test_the_decoder_learns_and_no_code_changes(tokenizer: SpeechTokenizer):
    model = copy.deepcopy(tokenizer)
    rows, mels = utterances()
    weights = {"ctc": 0.1, "timbre": 0.3, "warp": 0.2}
    task = DecoderTask(model, copy.deepcopy(tokenizer), rows, mels, 400, weights, seed=0)
    codes = [model.tokens(mel) for mel in mels.values()]
    speech = model.speech(codes[0], mels["1"])
    first, _ = seeded(task)
    loss, parts = learn(task, 1e-2, 5)
    assert loss < first and parts.keys() == {"l1", "ctc", "timbre"}
    assert all(torch.equal(a, model.tokens(b)) for a, b in zip(codes, mels.values(), strict=True))
    assert not torch.equal(speech, model.speech(codes[0], mels["1"]))


def test_ars_pretrains_on_rows_that_know_their_phonemes(adapter: ARAdapter):
    voice = {"voice": {"a": 1.0}, "speed": 1.0, "topic": "", "level": 0}
    rows = [
        Utterance(
            id=str(i), lang="en", text="ab", phonemes="ab cd.", duration=1.0, shard="", **voice
        )
        for i in range(3)
    ]
    heard = Segment(torch.arange(8), torch.tensor([0, 0, 1, 1, 3, 3, 4, 4]))
    adapter.model.set_attn_implementation("eager")
    task = ARTask(adapter, rows, {row.id: [heard] for row in rows}, 100, 2, guidance_steps=10)
    torch.manual_seed(0)
    batch = task.make_batch(0)
    assert batch["phoneme"].shape == batch["labels"].shape
    sounding = batch["phoneme"] > 0
    assert (batch["labels"][sounding] < 8).all() and int(sounding.sum()) % 8 == 0
    loss, parts = task(0)
    assert loss.isfinite() and parts.keys() == {"ce", "guidance"}
