"""Masked generative TTS: MaskGCT's text-to-semantic stage and Eq. 9's score.

A row is the phonemes of reference and target, then reference speech, then target; only target tokens
are ever masked. Reference speech is padded on the left, the rest on the right: all targets of a batch
start in one column. Mini model and published checkpoint differ in configuration alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

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
from intp.device import fast
from intp.losses import masked_logps
from networks.maskgct import MaskGCT_T2S
from networks.maskgct_sampling import Unmasking, masked_share, unmask
from networks.speech import TokenizerSpeech
from networks.tokenizer import TOKEN_RATE, SpeechTokenizer
from networks.upstream import read_published

LEAST_TIME, LEAST_MASKED = 1e-5, 0.2  # upstream's bounds of t and of the share it masks


@dataclass(frozen=True)
class MaskedConfig:
    """Vocabulary, front end and sizes. `text_positions="plain"` counts phonemes, then tokens, as the
    published checkpoint does; `"rate"` lays each text's phonemes evenly over its own speech, on the
    time axis of the tokens, `"durations"` as long as each lasts on average. `frontend` is
    "module:Class", made with this configuration."""

    tokens: int = 1000
    token_rate: float = TOKEN_RATE
    phonemes: list[str] = field(default_factory=list)
    separator: str = " "
    text_positions: str = "rate"
    durations: list[float] = field(default_factory=list)
    frontend: str = "intp.adapters.masked:SymbolFrontend"
    frontend_options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


def midpoints(durations: Tensor, length: int) -> Tensor:
    """The middle of each symbol [L] on the time axis of `length` tokens that they share."""
    ends = durations.cumsum(0)
    return (ends - durations / 2) * (length / ends[-1:].clamp_min(1e-9)) - 0.5


class SymbolFrontend(TokenizerSpeech):
    """The mini models' front end: a symbol is a phoneme id, `SpeechTokenizer` makes the tokens."""

    def __init__(self, config: MaskedConfig, tokenizer: SpeechTokenizer | None):
        super().__init__(config, tokenizer)
        self.config = config
        self.ids = {p: i for i, p in enumerate(config.phonemes)}

    def phones(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """Ids of the reference's and of the target's phonemes; an unknown symbol is an error."""
        texts = (prompt.prompt_phonemes + self.config.separator, prompt.phonemes)
        if unknown := sorted(set("".join(texts)) - self.ids.keys()):
            raise ValueError(f"phonemes {unknown} of {texts} are unknown to this model")
        before, target = ([self.ids[p] for p in text] for text in texts)
        return before, target


class MaskedAdapter:
    """MaskGCT's transformer on the speech tokens of its front end."""

    reads = "phonemes"
    stochastic = True

    def __init__(
        self,
        config: MaskedConfig,
        tokenizer: SpeechTokenizer | None,
        model: nn.Module | None = None,
    ):
        self.config, self.tokenizer = config, tokenizer
        self.durations = torch.tensor(config.durations)
        self.frontend = resolve_name(config.frontend)(config, tokenizer)
        self.representation: str = self.frontend.representation
        if model is None:
            sizes = {"phone_table": len(config.phonemes) + 1} | config.model
            model = MaskGCT_T2S(cond_codebook_size=config.tokens, **sizes)
        self.model = model.eval()

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to speech tokens [M]."""
        return self.frontend.encode(samples)

    def sequence(self, prompt: Prompt, reference: Tensor, target: Tensor) -> dict[str, Tensor]:
        """One row, not padded. Without reference speech its text is left out too."""
        before, text = self.frontend.phones(prompt)
        before = before if len(reference) else []
        spoken = len(reference)
        tokens = torch.arange(spoken + len(target), dtype=torch.float32)
        if self.config.text_positions == "plain":
            phones = torch.arange(len(before) + len(text), dtype=torch.float32)
            tokens = tokens + len(phones)
        else:
            even = self.config.text_positions == "rate"
            lasts = torch.ones(len(self.config.phonemes)) if even else self.durations
            heard, new = lasts[before], lasts[text]
            phones = torch.cat([midpoints(heard, spoken), spoken + midpoints(new, len(target))])
        return {
            "phone_ids": torch.tensor(before + text),
            "reference_ids": reference.cpu(),
            "target_ids": target.cpu(),
            "phone_positions": phones,
            "reference_positions": tokens[:spoken],
            "target_positions": tokens[spoken:],
        }

    def pad(self, rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Rows as a batch on the model's device; padding is neither attended to nor counted."""
        batch = {}
        for key in rows[0]:
            side = "left" if key.startswith("reference") else "right"
            parts = [row[key] for row in rows]
            batch[key] = pad_sequence(parts, batch_first=True, padding_side=side)
            if key.endswith("_ids"):
                valid = [torch.ones_like(part, dtype=torch.bool) for part in parts]
                mask = pad_sequence(valid, batch_first=True, padding_side=side)
                batch[key.replace("_ids", "_mask")] = mask
        if "time" in batch:
            batch["time"] = batch["time"][:, 0]
        return {key: value.to(self.model.to_logit.weight.device) for key, value in batch.items()}

    def batch(self, examples: Sequence[Example], draws: Sequence[Draw] = ()) -> dict[str, Tensor]:
        """Ids, positions and masks of phonemes [B, P], reference speech [B, R] and target [B, N],
        with `time` [B] from the shared draw and `mask` [B, N] of the masked tokens from the own one.
        """
        rows = []
        for example, seeds in zip(examples, draws or [Draw(0, 0)] * len(examples), strict=True):
            reference = self.encode(example.prompt.reference_speech)
            row = self.sequence(example.prompt, reference, example.target)
            rows.append(row | self.masking(len(example.target), seeds))
        return self.pad(rows)

    def masking(self, length: int, seeds: Draw) -> dict[str, Tensor]:
        """A time t [1], and which target tokens are masked then: each by itself, at least one."""
        time = torch.rand(1, generator=torch.Generator().manual_seed(seeds.shared))
        time = time.clamp_min(LEAST_TIME)
        chance = torch.rand(length, generator=torch.Generator().manual_seed(seeds.own))
        mask = chance < masked_share(time).clamp_min(LEAST_MASKED)
        mask[:1] |= ~mask.any()
        return {"time": time, "mask": mask}

    def inputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the network takes: reference speech and target as one sequence of tokens."""
        parts = [f"{part}_positions" for part in ("phone", "reference", "target")]
        return {key: batch[key] for key in ("time", "phone_ids", "phone_mask")} | {
            "token_ids": torch.cat([batch["reference_ids"], batch["target_ids"]], 1),
            "token_mask": torch.cat([batch["reference_mask"], batch["target_mask"]], 1),
            "mask": torch.cat([torch.zeros_like(batch["reference_mask"]), batch["mask"]], 1),
            "positions": torch.cat([batch[part] for part in parts], 1),
        }

    def score(self, model: nn.Module, batch: dict[str, Tensor], reduction: str = "sum") -> Tensor:
        """The masked log-probability [B] of Eq. 9 under `model`, text and reference always given."""
        logits = model(**self.inputs(batch))[:, batch["reference_ids"].shape[1] :]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return masked_logps(logits, batch["target_ids"], batch["mask"], reduction)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], sampling: dict[str, Any], seeds: Sequence[int]
    ) -> list[tuple[Tensor, bool]]:
        """Target tokens and whether `max_seconds` left them their length, for one batch of prompts.

        `sampling`: duration_factor (of the reference's time a phoneme), max_seconds, `fast` as in flow
        matching, and `Unmasking`'s: steps, cfg, rescale, temperature, top_k. Row i draws from seed i.
        """
        settings = Unmasking(**{f.name: sampling[f.name] for f in fields(Unmasking)})
        most = int(sampling["max_seconds"] * self.config.token_rate)
        rows, wanted = [], []
        for prompt in prompts:
            reference = self.encode(prompt.reference_speech)
            before, text = self.frontend.phones(prompt)
            rate = len(reference) / len(before) * sampling["duration_factor"]
            wanted.append(max(int(len(text) * rate), 1))
            blank = torch.zeros(min(wanted[-1], most), dtype=torch.long)
            rows.append(self.sequence(prompt, reference, blank))
        batch = self.pad(rows)
        inputs = self.inputs(batch | {"mask": batch["target_mask"], "time": torch.ones(len(rows))})
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with fast(sampling.get("fast", False)):
            ids = unmask(self.model, inputs, batch["target_mask"], generators, settings).cpu()
        return [(row[: min(n, most)], n <= most) for row, n in zip(ids, wanted, strict=True)]

    def synthesise(
        self,
        prompts: Sequence[Prompt],
        sampling: dict[str, Any],
        seeds: Sequence[int],
        progress: str | None = None,
    ) -> list[Speech]:
        """Speak every prompt, in batches of similar length; answers in the order of `prompts`."""
        settings = [f.name for f in fields(Unmasking)]
        check_sampling(
            sampling, ("duration_factor", "max_seconds", *settings), ("batch_size", "fast")
        )

        def answer(some: list[Prompt], drawn: list[int]) -> list[Speech]:
            found = self.generate(some, sampling, drawn)
            return [
                Speech(self.frontend.decode(y, p.reference_speech, seed), y, seed, stopped)
                for p, seed, (y, stopped) in zip(some, drawn, found, strict=True)
            ]

        lengths = [len(p.target_phonemes) for p in prompts]
        return in_batches(prompts, seeds, lengths, sampling.get("batch_size", 32), answer, progress)

    def save(self, path: Path) -> None:
        """Write weights, buffers and configuration to one safetensors file."""
        write_checkpoint(path, self.model, self.config)

    @classmethod
    def load(cls, path: Path, tokenizer: SpeechTokenizer | None) -> "MaskedAdapter":
        """Read what `save` wrote, in float32, strictly."""
        config, weights = read_checkpoint(path)
        adapter = cls(MaskedConfig(**config), tokenizer)
        adapter.model.load_state_dict(weights, strict=True)
        return adapter

    @classmethod
    def load_published(
        cls, path: Path, config: dict[str, Any], tokenizer: SpeechTokenizer | None = None
    ) -> "MaskedAdapter":
        """Read upstream's safetensors strictly; `config` has the fields of `MaskedConfig`."""
        adapter = cls(MaskedConfig(**config), tokenizer)
        adapter.model.load_state_dict(read_published(path)[1], strict=True)
        return adapter
