"""What flow-matching and masked models are told in pretraining: what sounds, and only of the target."""

import pytest
import torch
from torch import Tensor

from intp.adapters.flow_matching import FlowMatchingAdapter, FlowMatchingConfig
from intp.adapters.masked import MaskedAdapter, MaskedConfig
from intp.corpus import Utterance, read_manifest
from intp.paths import DATA
from networks.tokenizer import SpeechTokenizer
from zoo.alignment import sounding_at
from zoo.ars import Segment
from zoo.flow import FlowTask
from zoo.masked import MaskedTask
from zoo.rows import joined

DIT = {"dim": 32, "depth": 1, "heads": 2, "ff_mult": 1, "text_dim": 16, "conv_layers": 1}
DIT |= {"text_mask_padding": True, "pe_attn_head": None}
T2S = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def rows() -> list[Utterance]:
    """Two utterances of one voice."""
    known = read_manifest(DATA / "corpus")
    return [row for row in known if row.voice_name == known[0].voice_name][:2]


def lagging(symbols: int, frames: int) -> Tensor:
    """An alignment that no average gives: the first symbol lasts for half of the frames."""
    late = torch.linspace(0, symbols - 1, frames - frames // 2).long()
    return torch.cat([torch.zeros(frames // 2).long(), late])


def symbols_of(rows: list[Utterance]) -> list[str]:
    return sorted({c for row in rows for c in row.phonemes + " "})


def drawn(task: FlowTask | MaskedTask, draw) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return draw(task)


def test_target_frames_hear_what_sounds_and_the_reference_what_is_due(rows: list[Utterance]):
    symbols = symbols_of(rows)
    config = FlowMatchingConfig(
        phonemes=symbols, text_positions="durations", durations=[4.0] * len(symbols), model=DIT
    )
    mels = {row.id: torch.randn(60 + 4 * i, 100) for i, row in enumerate(rows)}
    heard = {row.id: lagging(len(row.phonemes), len(mels[row.id])) for row in rows}
    adapter = FlowMatchingAdapter(config)
    due, told = (
        drawn(FlowTask(adapter, rows, mels, 100, 2, heard, share), lambda t: t.draw(2))
        for share in (0.0, 1.0)
    )
    torch.manual_seed(3)
    picked = FlowTask(adapter, rows, mels, 100, 2, heard, 1.0).speakers.pick(2)
    first = len(mels[picked[0].id])
    wanted = joined([heard[row.id] for row in picked], picked)
    assert torch.equal(told["text_frames"][:first], due["text_frames"][:first])
    assert torch.equal(told["text_frames"][first:], wanted[first:])
    assert not torch.equal(due["text_frames"][first:], wanted[first:])
    assert torch.equal(told["noised"], due["noised"])


def test_target_phonemes_lie_where_they_sound_and_the_reference_s_where_due(
    rows: list[Utterance], tokenizer: SpeechTokenizer
):
    symbols = symbols_of(rows)
    config = MaskedConfig(
        phonemes=symbols, text_positions="durations", durations=[4.0] * len(symbols), model=T2S
    )
    adapter = MaskedAdapter(config, tokenizer)
    made = {r.id: [Segment(torch.arange(40), lagging(len(r.phonemes), 40))] for r in rows}
    task = MaskedTask(adapter, rows, made, 100, 2, 1.0)
    due, told = (drawn(task, lambda t, s=share: t.row(rows, 0, s)) for share in (0.0, 1.0))
    before = due["phone_positions"] < 40
    phoneme = joined([made[row.id][0].phoneme for row in rows], rows)
    wanted = sounding_at(phoneme, len(due["phone_ids"]))
    assert before.any() and not before.all()
    assert torch.equal(told["phone_positions"][before], due["phone_positions"][before])
    assert torch.equal(told["phone_positions"][~before], wanted[~before])
    assert not torch.equal(due["phone_positions"][~before], wanted[~before])
