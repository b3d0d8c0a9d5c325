"""Autoregressive TTS: a causal language model over text, then speech tokens.

A row is head, text of reference and target, tail, then reference speech, target speech and the end.
Which ids these are, and what model reads them, a front end says: ARS's is here, those of CosyVoice 2
and Ints are in `networks.ar_upstream`. Zero-shot: the reference and its text stand before the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

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
from intp.losses import IGNORE, ar_logps
from networks.causal_lm import causal_lm, visible
from networks.tokenizer import TOKEN_RATE, SpeechTokenizer
from networks.upstream import read_published


@dataclass(frozen=True)
class ARConfig:
    """Vocabulary, front end and sizes. `frontend` (text and model) and `speech` (sound and tokens)
    are "module:Class", made with this configuration and reading their own options; `tokens` counts
    the speech codes, `token_rate` a second's. `model` holds the network's settings, by default a
    Llama's. `text_positions="rate"` spreads the text's rotary positions at the reference's speaking
    rate (tokens a phoneme), so that text and speech share one time axis; `"plain"` counts, as the
    published models do."""

    tokens: int = 1000
    token_rate: float = TOKEN_RATE
    phonemes: list[str] = field(default_factory=list)
    separator: str = " "
    text_positions: str = "rate"
    tokens_per_phoneme: float = 1.75
    frontend: str = "intp.adapters.ar:PhonemeFrontend"
    frontend_options: dict[str, Any] = field(default_factory=dict)
    speech: str = "networks.speech:TokenizerSpeech"
    speech_options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


class Frontend(Protocol):
    """Layout of a row. `ids` has at least "pad" and "eos_target"; speech code i is id `offset` + i."""

    ids: dict[str, int]
    offset: int

    def text(self, prompt: Prompt, heard: bool) -> tuple[list[int], ...]:
        """Ids of head, reference text (none unless `heard`), target text, and tail."""

    def build(self, config: ARConfig) -> nn.Module:
        """The model with random weights; its logits' columns are the ids that it may predict."""


class PhonemeFrontend:
    """Layout of the ARS relatives (upstream: Amphion `models/tts/debatts`, `T2SLlama`): speech codes
    first in the vocabulary, then phonemes, pad, bos/eos of the target, bos/eos of the phonemes; a row
    is `bos_phone, phonemes, eos_phone, bos_target, tokens, eos_target`."""

    offset = 0

    def __init__(self, config: ARConfig):
        self.separator = config.separator
        self.phone_ids = {p: config.tokens + i for i, p in enumerate(config.phonemes)}
        first = config.tokens + len(config.phonemes)
        names = ("pad", "bos_target", "eos_target", "bos_phone", "eos_phone")
        self.ids = {name: first + i for i, name in enumerate(names)}

    def phones(self, text: str) -> list[int]:
        """Ids of a phoneme string; a symbol the model never saw is an error that names it."""
        unknown = sorted(set(text) - self.phone_ids.keys())
        if unknown:
            raise ValueError(f"phonemes {unknown} of {text!r} are unknown to this model")
        return [self.phone_ids[p] for p in text]

    def text(self, prompt: Prompt, heard: bool) -> tuple[list[int], ...]:
        """Ids of head, reference text (none unless `heard`), target text, and tail."""
        before = self.phones(prompt.prompt_phonemes + self.separator) if heard else []
        tail = [self.ids["eos_phone"], self.ids["bos_target"]]
        return [self.ids["bos_phone"]], before, self.phones(prompt.phonemes), tail

    def build(self, config: ARConfig) -> nn.Module:
        """Any causal LM of transformers; `model_type` (llama by default) names the architecture."""
        vocabulary = config.tokens + len(config.phonemes) + len(self.ids)
        return causal_lm({"model_type": "llama", "vocab_size": vocabulary} | config.model)


class ARAdapter:
    """A causal language model on the text and speech tokens of its front end."""

    stochastic = False

    def __init__(
        self, config: ARConfig, tokenizer: SpeechTokenizer | None, model: nn.Module | None = None
    ):
        self.config, self.tokenizer = config, tokenizer
        self.reads = "phonemes" if config.phonemes else "text"
        self.frontend: Frontend = resolve_name(config.frontend)(config)
        self.speech = resolve_name(config.speech)(config, tokenizer)
        self.representation: str = self.speech.representation
        self.ids = self.frontend.ids
        self.model = (model or self.frontend.build(config)).eval()

    def phones(self, text: str) -> list[int]:
        """Ids of a phoneme string, for front ends that read phonemes."""
        return self.frontend.phones(text)

    def encode(self, samples: np.ndarray) -> Tensor:
        """Speech [N] at 16 kHz to speech tokens [M], `token_rate` a second."""
        return self.speech.encode(samples)

    def decode(self, tokens: Tensor, reference_speech: np.ndarray, seed: int = 0) -> np.ndarray:
        """Speech tokens to samples in the timbre of the reference; empty tokens give silence."""
        if len(tokens) == 0:
            return np.zeros(1600, dtype=np.float32)
        return self.speech.decode(tokens, reference_speech, seed)

    def prefix(self, prompt: Prompt, prompt_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and rotary positions of everything before the first target token."""
        head, before, target, tail = self.frontend.text(prompt, len(prompt_tokens) > 0)
        rate = len(prompt_tokens) / len(before) if before else self.config.tokens_per_phoneme
        sequence = torch.tensor([*head, *before, *target, *tail])
        sequence = torch.cat([sequence, prompt_tokens.cpu() + self.frontend.offset])
        text = len(before) + len(target)
        return sequence, self.positions(text, len(prompt_tokens), rate, len(head), len(tail))

    def positions(
        self, text: int, tokens: int, rate: float, head: int = 1, tail: int = 2
    ) -> Tensor:
        """Rotary positions of a head, `text` ids, a tail and `tokens` tokens; lengths as ARS's.

        At "rate", the head stands at 0, and the last of the tail is the 0 of the speech's axis.
        """
        if self.config.text_positions == "plain":
            return torch.arange(head + text + tail + tokens, dtype=torch.float32)
        before = torch.arange(head + text + tail - 1, dtype=torch.float32)
        before = (before - (head - 0.5)).clamp_min(0) * rate
        return torch.cat([before, torch.arange(1 + tokens, dtype=torch.float32)])

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
            targets = [examples[i].target.cpu() + self.frontend.offset for i in members]
            row, starts = self.shared_row(*prefix, targets)
            rows.append(row)
            for i, start, target in zip(members, starts, targets, strict=True):
                place[i], begin[i] = number, start
                labels[i] = torch.cat([target, eos])
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
        """One row of a prompt and its answers' ids, and the column of each answer's first prediction.

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
        target = target.cpu() + self.frontend.offset
        labels = torch.cat([torch.full((len(prefix) - 1,), IGNORE), target, eos])
        return {
            "input_ids": torch.cat([prefix, target]),
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
        width, steps = max(lengths), int(sampling["max_seconds"] * self.config.token_rate)
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
        device = next(self.model.parameters()).device
        done = torch.zeros(len(prompts), dtype=torch.bool)
        for step in range(steps):
            out = self.model(
                input_ids=ids.to(device), position_ids=positions.to(device),
                attention_mask=mask.to(device), cache=cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
            cache = out.cache
            ids = self.sample(out.logits[:, -1].float().cpu(), draws[:, step], sampling)
            produced.append(ids)
            done |= ids == self.ids["eos_target"]
            if done.all():
                break
            ids, positions = ids[:, None], last + step + 1
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        grid = torch.stack(produced, dim=1)
        ends = (grid == self.ids["eos_target"]).int()
        stops = torch.where(ends.any(1), ends.argmax(1), grid.shape[1])
        codes = grid - self.frontend.offset
        return [(codes[i, : stops[i]], bool(done[i])) for i in range(len(prompts))]

    def sample(self, logits: Tensor, draws: Tensor, sampling: dict[str, Any]) -> Tensor:
        """One id a row [B] by temperature, top-k and top-p, from uniform draws [B]: a speech code's,
        or the end."""
        speech = torch.zeros(logits.shape[1], dtype=torch.bool)
        speech[self.frontend.offset : self.frontend.offset + self.config.tokens] = True
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
        check_sampling(sampling, ("temperature", "top_k", "top_p", "max_seconds"), ("batch_size",))

        def answer(some: list[Prompt], drawn: list[int]) -> list[Speech]:
            found = self.generate(some, sampling, drawn)
            return [
                Speech(self.decode(tokens, p.reference_speech, seed), tokens, seed, stopped)
                for p, seed, (tokens, stopped) in zip(some, drawn, found, strict=True)
            ]

        lengths = [len(p.target_phonemes) for p in prompts]
        return in_batches(prompts, seeds, lengths, sampling.get("batch_size", 32), answer, progress)

    def save(self, path: Path) -> None:
        """Write weights, buffers and configuration to one safetensors file."""
        write_checkpoint(path, self.model, self.config)

    @classmethod
    def load(cls, path: Path, tokenizer: SpeechTokenizer | None) -> "ARAdapter":
        """Read what `save` wrote, in float32, strictly."""
        config, weights = read_checkpoint(path)
        adapter = cls(ARConfig(**config), tokenizer)
        adapter.model.load_state_dict(weights, strict=True)
        return adapter

    @classmethod
    def load_published(
        cls, path: Path, config: dict[str, Any], tokenizer: SpeechTokenizer | None = None
    ) -> "ARAdapter":
        """Read a published checkpoint (`read_published`) in float32, strictly. `config` has the fields
        of `ARConfig`; `model` there goes before the sizes that the checkpoint states itself."""
        sizes, weights = read_published(path)
        sizes |= config.get("model", {})
        adapter = cls(ARConfig(**config | {"model": sizes}), tokenizer)
        adapter.model.load_state_dict(weights, strict=True)
        return adapter
