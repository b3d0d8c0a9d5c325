"""Flow-matching TTS: F5-TTS's transformer over mel frames, at mini size or as published.

A sequence is the reference speech's frames, then the target's. The condition is the reference
speech, zero on the target; the text is that of both. Only target frames are scored (Eq. 7).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from intp.adapters.base import (
    Draw,
    Example,
    Prompt,
    Speech,
    check_sampling,
    in_batches,
    read_checkpoint,
    write_checkpoint,
)
from intp.audio import HOP, N_MELS, SAMPLE_RATE, griffin_lim, log_mel
from intp.device import fast
from intp.losses import flow_matching_error
from intp.paths import ROOT
from networks import f5
from networks.dit import DiT

# A text front end gives the symbols of reference and target, how many are the reference's, and how
# many times the reference's length the target takes at the reference's speaking rate.
TextParts = tuple[list[str], int, float]


def phoneme_text(prompt: Prompt, separator: str) -> TextParts:
    """Kokoro's phonemes, one symbol each."""
    before, target = prompt.prompt_phonemes + separator, prompt.phonemes
    return [*before, *target], len(before), len(target) / len(before)


def pinyin_text(prompt: Prompt, separator: str) -> TextParts:
    """Pinyin of Chinese and characters of the rest; lengths compare in bytes, as upstream's do."""
    before = prompt.prompt_text + (separator if prompt.prompt_text[-1:].isascii() else "")
    ratio = len(prompt.target_text.encode()) / max(1, len(before.encode()))
    return f5.pinyin(before + prompt.target_text), len(f5.pinyin(before)), ratio


class SpeechFront(NamedTuple):
    """A sample rate, and the ways from samples [N] to log-mel [T, 100] and back."""

    rate: int
    mel: Callable[[Tensor], Tensor]
    wave: Callable[[Tensor], np.ndarray]


TEXTS = {"phonemes": phoneme_text, "pinyin": pinyin_text}
VOCODERS = {
    "griffin-lim": SpeechFront(SAMPLE_RATE, log_mel, griffin_lim),
    "vocos": SpeechFront(f5.VOCOS_RATE, f5.vocos_mel, f5.vocos),
}


@dataclass(frozen=True)
class FlowMatchingConfig:
    """`phonemes` are the text symbols: Kokoro's, or the lines of the published `vocab.txt`.

    `text` is a key of TEXTS, `vocoder` one of VOCODERS and decides the sample rate of the mel,
    which is normalised by `mel_mean` and `mel_std`. `text_positions="rate"` spreads the symbols of
    reference and target evenly over their frames, `"durations"` as long as each lasts on average
    (`durations`, in the order of `phonemes`), `"plain"` gives one a frame, as published. `model`
    holds DiT's sizes and flags.
    """

    phonemes: list[str] = field(default_factory=list)
    text: str = "phonemes"
    separator: str = " "
    text_positions: str = "rate"
    durations: list[float] = field(default_factory=list)
    vocoder: str = "griffin-lim"
    mel_mean: float = 0.0
    mel_std: float = 1.0
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {"text": TEXTS, "vocoder": VOCODERS, "text_positions": POSITIONS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}: expected {sorted(values)}, got {getattr(self, name)!r}")


def even(ids: Tensor, frames: int, durations: Tensor) -> Tensor:
    """Which of the symbols `ids` [L] each frame hears if all last equally long: [T]."""
    return f5.spread(len(ids), frames)


def lasting(ids: Tensor, frames: int, durations: Tensor) -> Tensor:
    """The same if each lasts as long as it does on average."""
    return f5.spread_by(durations[ids], frames)


POSITIONS = {"plain": None, "rate": even, "durations": lasting}


class FlowMatchingAdapter:
    """F5-TTS on log-mel frames; representation and score as `Adapter` says."""

    stochastic = True

    def __init__(self, config: FlowMatchingConfig, model: nn.Module | None = None):
        self.config, self.front = config, VOCODERS[config.vocoder]
        self.reads = config.text
        mel = (config.vocoder, config.mel_mean, config.mel_std)
        self.representation = f"log-mel of {mel}"
        self.ids = {symbol: i for i, symbol in enumerate(config.phonemes)}
        self.durations = torch.tensor(config.durations)
        self.model = (model or DiT(symbols=len(self.ids), **config.model)).eval()

    def text(self, prompt: Prompt) -> tuple[Tensor, int, float]:
        """Ids [L] of the text, the reference's share of them and the target's relative length."""
        symbols, reference, ratio = TEXTS[self.config.text](prompt, self.config.separator)
        unknown = sorted(set(symbols) - self.ids.keys())
        if unknown:
            raise ValueError(f"symbols {unknown} of prompt {prompt.id!r} are unknown to this model")
        return torch.tensor([self.ids[symbol] for symbol in symbols]), reference, ratio

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to normalised log-mel frames [T, 100]."""
        samples = torch.as_tensor(samples, dtype=torch.float32)
        mel = self.front.mel(resample(samples, SAMPLE_RATE, self.front.rate))
        return (mel - self.config.mel_mean) / self.config.mel_std

    def decode(self, mel: Tensor) -> np.ndarray:
        """Normalised log-mel frames [T, 100] to samples [N] at 16 kHz."""
        wave = self.front.wave(mel.float() * self.config.mel_std + self.config.mel_mean)
        return resample(torch.as_tensor(wave), self.front.rate, SAMPLE_RATE).numpy()

    def row(self, prompt: Prompt, reference: Tensor, frames: int) -> dict[str, Tensor]:
        """What one sequence of reference [R, 100] and `frames` target frames is conditioned on."""
        ids, before, _ = self.text(prompt)
        total = len(reference) + frames
        row = {
            "text": ids,
            "condition": torch.cat([reference, reference.new_zeros(frames, N_MELS)]),
            "target_mask": torch.arange(total) >= len(reference),
        }
        if spread := POSITIONS[self.config.text_positions]:
            heard = spread(ids[:before], len(reference), self.durations)
            asked = before + spread(ids[before:], frames, self.durations)
            row["text_frames"] = torch.cat([heard, asked]).clamp_max(total - 1)
        return row

    def pad(self, rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Pad rows on the right, on the model's device; `frame_mask` [B, T] holds on their frames."""
        fill = {"text": -1}
        padded = {
            key: pad_sequence(
                [r[key] for r in rows], batch_first=True, padding_value=fill.get(key, 0)
            )
            for key in rows[0]
        }
        if "time" in padded:
            padded["time"] = padded["time"][:, 0]
        lengths = torch.tensor([len(row["condition"]) for row in rows])
        padded["frame_mask"] = torch.arange(int(lengths.max())) < lengths[:, None]
        device = next(self.model.parameters()).device
        return {key: value.to(device) for key, value in padded.items()}

    def batch(self, examples: Sequence[Example], draws: Sequence[Draw] = ()) -> dict[str, Tensor]:
        """Padded `text` [B, L] and, on T frames, `condition`, `noised` y_t = (1-t) y_0 + t y_1 and
        `velocity` y_1 - y_0 [B, T, 100], `target_mask` and `frame_mask` [B, T]; `time` [B].

        t is uniform and a pair's own; y_0 is the sample's own and depends on nothing else.
        """
        rows = [
            self.noised(e.prompt, self.encode(e.prompt.reference_speech), e.target, draw)
            for e, draw in zip(examples, draws or [Draw(0, 0)] * len(examples), strict=True)
        ]
        return self.pad(rows)

    def noised(
        self, prompt: Prompt, reference: Tensor, target: Tensor, draw: Draw
    ) -> dict[str, Tensor]:
        """One row of `batch`, not padded: reference [R, 100] and target [T, 100] at `time` [1]."""
        speech = torch.cat([reference, target.to(reference)])
        start = f5.noise(draw.own, len(speech), N_MELS)
        time = torch.rand(1, generator=torch.Generator().manual_seed(draw.shared))
        row = self.row(prompt, reference, len(target))
        noised = (1 - time) * start + time * speech
        return row | {"noised": noised, "velocity": speech - start, "time": time}

    def score(self, model: nn.Module, batch: dict[str, Tensor], reduction: str = "mean") -> Tensor:
        """Minus the flow-matching error of Eq. 7 [B] under `model`, on target frames only."""
        names = ("condition", "text", "time", "frame_mask", "text_frames")
        velocity = model(batch["noised"], *(batch.get(name) for name in names))
        return -flow_matching_error(velocity, batch["velocity"], batch["target_mask"], reduction)

    def duration(
        self, prompt: Prompt, reference: int, sampling: dict[str, Any]
    ) -> tuple[int, bool]:
        """Target frames at the reference's speaking rate times `duration_factor`, and whether they
        are as many as wanted (False if `max_seconds` cut them)."""
        ids, _, ratio = self.text(prompt)
        wanted = int(reference * ratio * sampling["duration_factor"])
        wanted = max(wanted, len(ids) + 1 - reference, 1)
        allowed = int(sampling["max_seconds"] * self.front.rate / HOP)
        return min(wanted, allowed), wanted <= allowed

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], sampling: dict[str, Any], seeds: Sequence[int]
    ) -> list[tuple[Tensor, bool]]:
        """Target frames [T, 100] and whether they are whole, for one batch of prompts.

        `sampling`: steps, cfg, sway, duration_factor, max_seconds. Row i starts from seed i's noise,
        and its batch mates change nothing, unless `fast` (bf16) rounds them together.
        """
        rows, whole = [], []
        for prompt, seed in zip(prompts, seeds, strict=True):
            reference = self.encode(prompt.reference_speech)
            frames, uncut = self.duration(prompt, len(reference), sampling)
            start = f5.noise(seed, len(reference) + frames, N_MELS)
            rows.append(self.row(prompt, reference, frames) | {"noise": start})
            whole.append(uncut)
        batch = self.pad(rows)
        names = ("noise", "condition", "text", "frame_mask", "text_frames")
        times = f5.time_grid(sampling["steps"], sampling["sway"]).to(batch["noise"].device)
        inputs = [batch.get(name) for name in names]
        with fast(sampling.get("fast", False)):
            speech = f5.euler(self.model, *inputs, times=times, cfg=sampling["cfg"])
        targets = [mel[mask].cpu() for mel, mask in zip(speech, batch["target_mask"], strict=True)]
        return list(zip(targets, whole, strict=True))

    def synthesise(
        self,
        prompts: Sequence[Prompt],
        sampling: dict[str, Any],
        seeds: Sequence[int],
        progress: str | None = None,
    ) -> list[Speech]:
        """Speak every prompt, in batches of similar length; answers in the order of `prompts`."""
        needed = ("duration_factor", "steps", "cfg", "sway", "max_seconds")
        check_sampling(sampling, needed, ("batch_size", "fast"))
        lengths = [len(p.reference_speech) * (1 + self.text(p)[2]) for p in prompts]

        def answer(some: list[Prompt], drawn: list[int]) -> list[Speech]:
            found = self.generate(some, sampling, drawn)
            return [
                Speech(self.decode(mel), mel, seed, whole)
                for seed, (mel, whole) in zip(drawn, found, strict=True)
            ]

        return in_batches(prompts, seeds, lengths, sampling.get("batch_size", 16), answer, progress)

    def save(self, path: Path) -> None:
        """Write weights, buffers and configuration to one safetensors file."""
        write_checkpoint(path, self.model, self.config)

    @classmethod
    def load(cls, path: Path, tokenizer: object = None) -> "FlowMatchingAdapter":
        """Read what `save` wrote, in float32, strictly; frames need no `tokenizer`."""
        config, weights = read_checkpoint(path)
        adapter = cls(FlowMatchingConfig(**config))
        adapter.model.load_state_dict(weights, strict=True)
        return adapter

    @classmethod
    def load_published(
        cls, path: Path, config: dict[str, Any], tokenizer: object = None
    ) -> "FlowMatchingAdapter":
        """Read upstream's safetensors strictly. `config` has the fields of `FlowMatchingConfig`, and
        for `phonemes` the path of `vocab.txt` from the repository's root as `vocabulary`."""
        symbols = f5.read_vocabulary(ROOT / config["vocabulary"])
        others = {key: value for key, value in config.items() if key != "vocabulary"}
        adapter = cls(FlowMatchingConfig(phonemes=symbols, **others))
        adapter.model.load_state_dict(f5.published_weights(path), strict=True)
        return adapter
