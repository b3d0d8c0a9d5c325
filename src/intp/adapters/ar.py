"""Autoregressive TTS: a causal language model over phonemes, then speech tokens (ARS).

Layout of the ARS relatives (UPSTREAM: Amphion `models/tts/debatts`, `T2SLlama`): speech tokens
first in the vocabulary, then phonemes, then pad, bos/eos of the target, bos/eos of the phonemes;
a sequence is `bos_phone, prompt and target phonemes, eos_phone, bos_target, prompt tokens, target
tokens, eos_target`. Zero-shot: the reference recording and its text stand before the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM

from intp.adapters.base import (
    Draw,
    Example,
    Prompt,
    Speech,
    in_batches,
    read_checkpoint,
    write_checkpoint,
)
from intp.audio import griffin_lim, log_mel
from intp.losses import IGNORE, ar_logps
from networks.tokenizer import TOKEN_RATE, SpeechTokenizer


def visible(segments: Tensor) -> Tensor:
    """Who may attend to whom [B, 1, T, T] in rows of `segments` [B, T]: each answer to the prompt
    (0) and to itself, all causally; padding (-1) to itself alone, so that no row is empty."""
    query, key = segments[:, :, None], segments[:, None]
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & ((key == 0) | (key == query)) & (key >= 0)
    return (seen | torch.eye(length, dtype=torch.bool))[:, None]


@dataclass(frozen=True)
class ARConfig:
    """Vocabulary and sizes; `model` is any causal LM's configuration for transformers, of which
    `model_type` (llama by default) names the architecture. `text_positions="rate"` spreads the
    phonemes' rotary positions at the reference's speaking rate (tokens a phoneme), so that text and
    speech share one time axis; `"plain"` counts them, as the published relatives do."""

    tokens: int = 1000
    phonemes: list[str] = field(default_factory=list)
    separator: str = " "
    text_positions: str = "rate"
    tokens_per_phoneme: float = 1.75
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def specials(self) -> dict[str, int]:
        """Ids of pad, bos_target, eos_target, bos_phone and eos_phone, in upstream's order."""
        first = self.tokens + len(self.phonemes)
        names = ("pad", "bos_target", "eos_target", "bos_phone", "eos_phone")
        return {name: first + i for i, name in enumerate(names)}


class ARAdapter:
    """Llama (or any causal LM configuration) on the tokens of `SpeechTokenizer`."""

    stochastic = False

    def __init__(
        self, config: ARConfig, tokenizer: SpeechTokenizer, model: nn.Module | None = None
    ):
        self.config, self.tokenizer = config, tokenizer
        self.ids = config.specials
        self.phone_ids = {p: config.tokens + i for i, p in enumerate(config.phonemes)}
        if model is None:
            vocabulary = config.tokens + len(config.phonemes) + len(self.ids)
            sizes = {"model_type": "llama", "vocab_size": vocabulary} | config.model
            model = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(**sizes), attn_implementation="sdpa"
            )
        self.model = model.eval()

    def phones(self, text: str) -> list[int]:
        """Ids of a phoneme string; a symbol the model never saw is an error that names it."""
        unknown = sorted(set(text) - self.phone_ids.keys())
        if unknown:
            raise ValueError(f"phonemes {unknown} of {text!r} are unknown to this model")
        return [self.phone_ids[p] for p in text]

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to speech tokens [M], 31.25 a second."""
        return self.tokenizer.tokens(log_mel(samples))

    def decode(self, tokens: Tensor, reference_speech: np.ndarray) -> np.ndarray:
        """Speech tokens to samples in the timbre of the reference; empty tokens give silence."""
        if len(tokens) == 0:
            return np.zeros(1600, dtype=np.float32)
        return griffin_lim(self.tokenizer.speech(tokens, log_mel(reference_speech)))

    def prefix(self, prompt: Prompt, prompt_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and rotary positions of everything before the first target token."""
        ids, separator = self.ids, self.config.separator
        before = self.phones(prompt.prompt_phonemes + separator) if len(prompt_tokens) else []
        text = before + self.phones(prompt.target_phonemes)
        rate = len(prompt_tokens) / len(before) if before else self.config.tokens_per_phoneme
        sequence = [ids["bos_phone"], *text, ids["eos_phone"], ids["bos_target"]]
        sequence = torch.cat([torch.tensor(sequence), prompt_tokens.cpu()])
        return sequence, self.positions(len(text), len(prompt_tokens), rate)

    def positions(self, phones: int, tokens: int, rate: float) -> Tensor:
        """Rotary positions of bos_phone, phonemes, eos_phone, bos_target and `tokens` tokens."""
        if self.config.text_positions == "plain":
            return torch.arange(phones + 3 + tokens, dtype=torch.float32)
        text = (torch.arange(phones + 2, dtype=torch.float32) - 0.5).clamp_min(0) * rate
        return torch.cat([text, torch.arange(1 + tokens, dtype=torch.float32)])

    def batch(self, examples: Sequence[Example], draws: Sequence[Draw] = ()) -> dict[str, Tensor]:
        """Examples [N] in rows [B, T] that read a prompt once for all its answers.

        A row is the prompt, then each answer behind a copy of the prompt's last token; an answer
        sees the prompt and itself (`attention_mask` [B, 1, T, T]) and goes on from the prompt's
        positions, so it scores as if it were alone. Answer n's predictions stand in row `rows[n]`
        at `columns` [N, L], counted from `first`; `labels` [N, L] are its tokens and eos_target.
        """
        groups: dict[tuple[Prompt, int], list[int]] = {}
        for i, example in enumerate(examples):
            key = (example.prompt, id(example.prompt.reference_speech))
            groups.setdefault(key, []).append(i)
        rows, labels = [], [torch.empty(0)] * len(examples)
        place, begin = torch.zeros(len(examples), 1, dtype=torch.long), [0] * len(examples)
        eos = torch.tensor([self.ids["eos_target"]])
        for number, members in enumerate(groups.values()):
            # By what they are, not by role: a swapped pair is then the same row, rounding and all.
            members.sort(key=lambda i: examples[i].target.tolist())
            prompt = examples[members[0]].prompt
            prefix = self.prefix(prompt, self.encode(prompt.reference_speech))
            row, starts = self.shared_row(*prefix, [examples[i].target.cpu() for i in members])
            rows.append(row)
            for i, start in zip(members, starts, strict=True):
                place[i], begin[i] = number, start
                labels[i] = torch.cat([examples[i].target.cpu(), eos])
        first = min(begin)
        columns = [torch.arange(len(y)) + c - first for y, c in zip(labels, begin, strict=True)]
        padded = self.pad(rows)
        batch = {
            "input_ids": padded["input_ids"],
            "position_ids": padded["position_ids"],
            "attention_mask": visible(padded["segments"]),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
            "columns": pad_sequence(columns, batch_first=True),
            "rows": place,
            "first": torch.tensor(first),
        }
        device = next(self.model.parameters()).device
        return {key: value.to(device) for key, value in batch.items()}

    def shared_row(
        self, prefix: Tensor, positions: Tensor, targets: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], list[int]]:
        """One row of a prompt and its answers, and the column of each answer's first prediction.

        `segments` is 0 on the prompt and counts the answers from 1.
        """
        ids, places = [prefix[:-1]], [positions[:-1]]
        segments, starts = [torch.zeros(len(prefix) - 1, dtype=torch.long)], []
        for number, target in enumerate(targets, 1):
            starts.append(sum(map(len, ids)))
            ids.append(torch.cat([prefix[-1:], target]))
            places.append(positions[-1] + torch.arange(len(target) + 1))
            segments.append(torch.full((len(target) + 1,), number))
        names = ("input_ids", "position_ids", "segments")
        return dict(zip(names, map(torch.cat, (ids, places, segments)), strict=True)), starts

    def sequence(self, prefix: Tensor, positions: Tensor, target: Tensor) -> dict[str, Tensor]:
        """One training row: the target is fed, and predicted one step earlier."""
        following = positions[-1] + 1 + torch.arange(len(target))
        eos = torch.tensor([self.ids["eos_target"]])
        labels = torch.cat([torch.full((len(prefix) - 1,), IGNORE), target.cpu(), eos])
        return {
            "input_ids": torch.cat([prefix, target.cpu()]),
            "position_ids": torch.cat([positions, following]),
            "labels": labels,
        }

    def pad(self, rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Pad rows on the right; padding is neither attended to nor counted."""
        fill = {"input_ids": self.ids["pad"], "position_ids": 0.0, "labels": IGNORE, "segments": -1}
        padded = {
            key: pad_sequence([r[key] for r in rows], batch_first=True, padding_value=fill[key])
            for key in rows[0]
        }
        lengths = torch.tensor([len(r["input_ids"]) for r in rows])
        mask = torch.arange(padded["input_ids"].shape[1]) < lengths[:, None]
        return padded | {"attention_mask": mask.long()}

    def score(self, model: nn.Module, batch: dict[str, Tensor], reduction: str = "sum") -> Tensor:
        """log p(y|x) [N] of Eq. 3 under `model`."""
        names = ("input_ids", "position_ids", "attention_mask")
        keep = batch["input_ids"].shape[1] - int(batch["first"])
        logits = model(
            **{name: batch[name] for name in names}, use_cache=False, logits_to_keep=keep
        ).logits
        logits = logits[batch["rows"], batch["columns"]]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return ar_logps(logits, batch["labels"], reduction)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], sampling: dict[str, Any], seeds: Sequence[int]
    ) -> list[tuple[Tensor, bool]]:
        """Target tokens and whether the model stopped by itself, for one batch of prompts.

        `sampling`: temperature, top_k, top_p, max_seconds. Row i draws from seed i alone.
        """
        prefixes = [self.prefix(p, self.encode(p.reference_speech)) for p in prompts]
        lengths = [len(ids) for ids, _ in prefixes]
        width, steps = max(lengths), int(sampling["max_seconds"] * TOKEN_RATE)
        ids = torch.full((len(prompts), width), self.ids["pad"])
        positions, mask = torch.zeros(len(prompts), width), torch.zeros(len(prompts), width).long()
        for i, (row, row_positions) in enumerate(prefixes):
            ids[i, width - len(row) :] = row
            positions[i, width - len(row) :] = row_positions
            mask[i, width - len(row) :] = 1
        draws = torch.stack(
            [torch.rand(steps, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )
        last, cache, produced = positions[:, -1:], None, []
        done = torch.zeros(len(prompts), dtype=torch.bool)
        for step in range(steps):
            out = self.model(
                input_ids=ids, position_ids=positions, attention_mask=mask,
                cache=cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
            cache = out.cache
            ids = self.sample(out.logits[:, -1].float(), draws[:, step], sampling)
            produced.append(ids)
            done |= ids == self.ids["eos_target"]
            if done.all():
                break
            ids, positions = ids[:, None], last + step + 1
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        grid = torch.stack(produced, dim=1)
        ends = (grid == self.ids["eos_target"]).int()
        stops = torch.where(ends.any(1), ends.argmax(1), grid.shape[1])
        return [(grid[i, : stops[i]], bool(done[i])) for i in range(len(prompts))]

    def sample(self, logits: Tensor, draws: Tensor, sampling: dict[str, Any]) -> Tensor:
        """One token a row [B] by temperature, top-k and top-p, from uniform draws [B]."""
        speech = torch.arange(logits.shape[1]) < self.config.tokens
        speech[self.ids["eos_target"]] = True
        logits = logits.masked_fill(~speech, -torch.inf)
        values, order = logits.topk(min(sampling["top_k"], logits.shape[1]), dim=-1)
        probabilities = (values / sampling["temperature"]).softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling["top_p"], 0)
        cumulative = probabilities.cumsum(-1)
        chosen = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)
        return order.gather(1, chosen.clamp_max(order.shape[1] - 1)).squeeze(1)

    def synthesise(
        self,
        prompts: Sequence[Prompt],
        sampling: dict[str, Any],
        seeds: Sequence[int],
        progress: str | None = None,
    ) -> list[Speech]:
        """Speak every prompt, in batches of similar length; answers in the order of `prompts`."""

        def answer(some: list[Prompt], drawn: list[int]) -> list[Speech]:
            found = self.generate(some, sampling, drawn)
            return [
                Speech(self.decode(tokens, p.reference_speech), tokens, seed, stopped)
                for p, seed, (tokens, stopped) in zip(some, drawn, found, strict=True)
            ]

        lengths = [len(p.target_phonemes) for p in prompts]
        return in_batches(prompts, seeds, lengths, sampling.get("batch_size", 32), answer, progress)

    def save(self, path: Path) -> None:
        """Write weights (bf16) and configuration to one safetensors file."""
        write_checkpoint(path, self.model, self.config)

    @classmethod
    def load(cls, path: Path, tokenizer: SpeechTokenizer) -> "ARAdapter":
        """Read what `save` wrote, in float32, strictly."""
        config, weights = read_checkpoint(path)
        adapter = cls(ARConfig(**config), tokenizer)
        adapter.model.load_state_dict(weights, strict=True)
        return adapter
