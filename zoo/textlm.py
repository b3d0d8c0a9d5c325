"""Pretraining of the two mini models that read raw text: on text first, then on speech.

What is learned first is next pieces of running text, and pronunciation lines: text, then its
phonemes, in the layout that speech will have. Both lines and speech are read along by guided
attention, from phonemes to pieces of text; it is ARS's recipe otherwise.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from intp.adapters.ar import ARAdapter, ARConfig
from intp.adapters.base import Prompt
from intp.corpus import Utterance
from intp.losses import IGNORE
from intp.paths import ROOT
from networks.ar_upstream import text_tokenizer
from networks.cosyvoice2 import Qwen2LM
from networks.tokenizer import SpeechTokenizer
from zoo.ars import VERSIONS, Segment, guidance, guidance_weight, in_version
from zoo.pieces import END, PAD, SOUNDS, spelled
from zoo.reading import places
from zoo.rows import Speakers, chance, corrupt, like_lengths, near_one
from zoo.texts import Line

KINDS = ("word", "sentence")
TEXT_GAP = {
    ("word", "en"): " ",
    ("word", "zh"): "，",
    ("sentence", "en"): " ",
    ("sentence", "zh"): "",
}
SOUND_GAP = {
    ("word", "en"): " ",
    ("word", "zh"): ", ",
    ("sentence", "en"): " ",
    ("sentence", "zh"): " ",
}
MOST = {"word": 12, "sentence": 3, "text": 4}  # lines joined in a row
TOKENS_PER_PIECE = 5.0  # where no reference tells the speaking rate
NOTHING = np.empty(0, dtype=np.float32)
Row = dict[str, Tensor]


@dataclass(frozen=True)
class LanguageModel:
    """A causal model's parts: ids [B, T] to embeddings, to states [B, T, H], to speech and to text.

    Columns of `speak` are ids; those of `write` are ids less `first`.
    """

    embed: Callable[[Tensor], Tensor]
    body: nn.Module
    speak: nn.Module
    write: nn.Module
    first: int


def language_model(adapter: ARAdapter) -> LanguageModel:
    """The parts of CosyVoice 2's model, or of any causal model with one table for all ids."""
    model = adapter.model
    if isinstance(model, Qwen2LM):
        inner = model.llm.model
        first = adapter.frontend.first
        return LanguageModel(model.embed, inner.model, model.llm_decoder, inner.lm_head, first)
    return LanguageModel(model.get_input_embeddings(), model.model, model.lm_head, model.lm_head, 0)


def new_adapter(
    frontend: str, folder: Path, sizes: dict[str, Any], tokenizer: SpeechTokenizer | None
) -> ARAdapter:
    """A fresh model in the layout of `frontend` ("module:Class"), its text tokenizer in `folder`.

    Text and speech share one time axis, as in ARS; the vocabulary's size is the text tokenizer's.
    """
    text = text_tokenizer(str(folder))
    options = {  # each front end reads those that it knows
        "tokenizer": str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder),
        "start_of_audio": len(text), "pad": text.pad_token_id,
        "events": [],
    }  # fmt: skip
    config = ARConfig(
        frontend=frontend, frontend_options=options,
        tokens_per_phoneme=TOKENS_PER_PIECE, model=sizes,
    )  # fmt: skip
    return ARAdapter(config, tokenizer)


class Reader:
    """Rows in the model's own layout, and the loss of a batch of them."""

    def __init__(self, adapter: ARAdapter, budget: int):
        self.adapter, self.budget = adapter, budget
        self.lm = language_model(adapter)
        self.lm.body.set_attn_implementation("eager")  # the guided loss reads attention weights
        layers = self.lm.body.config.num_hidden_layers
        self.guided = (layers // 2 - 1, layers // 2)

    def layout(self, target: str, lang: str, before: str = "") -> tuple[list[int], ...]:
        """Ids of head, text of the reference, target text and tail, as at inference."""
        prompt = Prompt("", target, "", lang, before, "", lang, NOTHING)
        return self.adapter.frontend.text(prompt, heard=bool(before))

    def columns(self, head: int, ids: Sequence[int], texts: Sequence[str]) -> list[Tensor]:
        """For each of `texts`, in which column of the row each of its characters stands.

        `ids` are the row's text, from column `head` on; it says `texts` one after the other.
        """
        said, ends = spelled(self.adapter.frontend.tokenizer, [i - self.lm.first for i in ids])
        found, start = [], 0
        for text in texts:
            start = said.index(text.encode(), start)
            offsets = list(accumulate((len(c.encode()) for c in text), initial=start))
            found.append(torch.tensor([head + bisect_right(ends, byte) for byte in offsets[:-1]]))
            start = offsets[-1]
        return found

    def loss(
        self, rows: list[Row], head: nn.Module, noisy: tuple[int, int], guide: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of a batch, and the guided term if wanted.

        Up to 30 % of the inputs among the ids from noisy[0] to noisy[1] are replaced at random.
        """
        where = pad_sequence([r["where"] for r in rows], batch_first=True, padding_value=-1)
        batch = self.adapter.pad([{k: v for k, v in r.items() if k != "where"} for r in rows])
        embedded = F.dropout(self.lm.embed(corrupt(batch["input_ids"], *noisy)), 0.1)
        out = self.lm.body(
            inputs_embeds=embedded, position_ids=batch["position_ids"],
            attention_mask=batch["attention_mask"], use_cache=False, output_attentions=guide,
        )  # fmt: skip
        loss = self.nats(out.last_hidden_state, batch["labels"], head)
        return loss, guidance(out.attentions, self.guided, where) if guide else None

    def nats(
        self, states: Tensor, labels: Tensor, head: nn.Module, reduction: str = "mean"
    ) -> Tensor:
        """Cross-entropy of the labels that count, from states [B, T, H]."""
        counted = labels != IGNORE
        first = self.lm.first if head is self.lm.write else 0
        return F.cross_entropy(head(states[counted]), labels[counted] - first, reduction=reduction)

    @torch.inference_mode()
    def measure(self, rows: list[Row], head: nn.Module) -> float:
        """Nats a label over all rows, without noise."""
        total, count = 0.0, 0
        for start in range(0, len(rows), 32):
            some = [{k: v for k, v in r.items() if k != "where"} for r in rows[start : start + 32]]
            batch = self.adapter.pad(some)
            states = self.lm.body(
                inputs_embeds=self.lm.embed(batch["input_ids"]),
                position_ids=batch["position_ids"], attention_mask=batch["attention_mask"],
                use_cache=False,
            ).last_hidden_state  # fmt: skip
            total += self.nats(states, batch["labels"], head, "sum").item()
            count += int((batch["labels"] != IGNORE).sum())
        return round(total / count, 4)


class TextTask(Reader):
    """Running text and pronunciation lines, both languages alike; `share` of a step are the latter."""

    def __init__(
        self, adapter: ARAdapter, lines: list[Line], budget: int, share: float, guidance_steps: int
    ):
        super().__init__(adapter, budget)
        self.share, self.guidance_steps = share, guidance_steps
        self.groups: dict[tuple[str, str], list[Line]] = {}
        for line in lines:
            self.groups.setdefault((line.kind, line.lang), []).append(line)
        known = adapter.frontend.tokenizer.get_vocab()
        sounds = {name[2:-2]: i for name, i in known.items() if re.fullmatch(r"<\|.\|>", name)}
        self.sounds = {symbol: self.lm.first + i for symbol, i in sounds.items()}
        self.marks = {name: self.lm.first + known[name] for name in (PAD, SOUNDS, END)}

    def pick(self, kinds: Sequence[str]) -> list[Line]:
        """Some lines of one of the kinds and one language, each as likely as the others."""
        groups = [group for (kind, _), group in sorted(self.groups.items()) if kind in kinds]
        group = groups[chance(len(groups))]
        return [group[chance(len(group))] for _ in range(1 + chance(MOST[group[0].kind]))]

    def text_row(self, lines: Sequence[Line]) -> Row:
        """Lines of text and the mark of their end."""
        text = "\n".join(line.text for line in lines)
        pieces = [self.lm.first + i for i in self.adapter.frontend.tokenizer(text)["input_ids"]]
        ids = torch.tensor([*pieces, self.marks[PAD]])
        return {
            "input_ids": ids[:-1],
            "position_ids": torch.arange(len(pieces), dtype=torch.float32),
            "labels": ids[1:],
            "where": torch.full((len(pieces),), -1),
        }

    def sound_row(self, lines: Sequence[Line], noise: float = 1.0) -> Row:
        """Text, then its phonemes, at the rate that text is spoken at in a row of speech."""
        gaps = lines[0].kind, lines[0].lang
        texts = [line.text for line in lines]
        head, _, said, tail = self.layout(TEXT_GAP[gaps].join(texts), lines[0].lang)
        symbols, where = [], []
        for line, column in zip(lines, self.columns(len(head), said, texts), strict=True):
            gap = SOUND_GAP[gaps] if symbols else ""
            symbols += gap + line.phonemes
            where += [-1] * len(gap) + column[list(line.places)].tolist()
        answer = [self.sounds[symbol] for symbol in symbols]
        prefix = [*head, *said, *tail[:-1], self.marks[SOUNDS]]
        rate = noise * len(answer) / len(said)
        before = [-1] * (len(prefix) - 1)
        return {
            "input_ids": torch.tensor([*prefix, *answer]),
            "position_ids": self.adapter.positions(
                len(said), len(answer), rate, len(head), len(tail)
            ),
            "labels": torch.tensor([IGNORE] * len(before) + [*answer, self.marks[END]]),
            "where": torch.tensor([*before, *where, -1]),
        }

    def draw_sounds(self) -> Row:
        """A row of words or of sentences."""
        return self.sound_row(self.pick(KINDS), near_one(0.2))

    def sound_loss(self, budget: int, guide: bool) -> tuple[Tensor, Tensor | None]:
        """Nats a phoneme of a batch worth `budget`, and its guided term if wanted."""
        rows = like_lengths(self.draw_sounds, lambda r: len(r["input_ids"]), budget)
        ids = self.sounds.values()
        return self.loss(rows, self.lm.write, (min(ids), max(ids) + 1), guide)

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts: nats a piece of text, nats a phoneme."""
        aloud, guide = int(self.budget * self.share), step < self.guidance_steps
        sounds, term = self.sound_loss(aloud, guide)
        rows = like_lengths(
            lambda: self.text_row(self.pick(("text", "sentence"))),
            lambda r: len(r["input_ids"]),
            self.budget - aloud,
        )
        text, _ = self.loss(rows, self.lm.write, (0, 0), guide=False)
        parts = {"text": text.item(), "sounds": sounds.item()}
        loss = self.share * sounds + (1 - self.share) * text
        if term is not None:
            parts["guidance"] = term.item()
            loss = loss + guidance_weight(step, self.guidance_steps) * term
        return loss, parts

    def held_out(self, lines: list[Line], lang: str) -> dict[str, float]:
        """Nats a piece of text, and nats a phoneme of words and of sentences, never trained on."""
        kinds = {
            kind: [line for line in lines if (line.kind, line.lang) == (kind, lang)]
            for kind in KINDS
        }
        found = {
            f"held_out_{kind}_{lang}": self.measure(
                [self.sound_row([line]) for line in some], self.lm.write
            )
            for kind, some in kinds.items()
        }
        text = [self.text_row([line]) for line in kinds["sentence"]]
        return found | {f"held_out_text_{lang}": self.measure(text, self.lm.write)}


class SpeechTask(Reader):
    """Joined utterances of one voice behind their raw text, the first of them the reference speech.

    `share` of a step are pronunciation lines still, lest words that no speech says be forgotten.
    """

    def __init__(
        self,
        text: TextTask,
        rows: list[Utterance],
        versions: dict[str, list[Segment]],
        budget: int,
        longest: int,
        share: float,
        guidance_steps: int,
    ):
        super().__init__(text.adapter, budget)
        self.text, self.longest, self.share = text, longest, share
        self.guidance_steps = guidance_steps
        rows = [row for row in rows if versions[row.id]]
        self.versions = {row.id: by_character(row, versions[row.id]) for row in rows}
        self.speakers = Speakers(rows)

    def row(self, rows: list[Utterance], segments: list[Segment], noise: float = 1.0) -> Row:
        """Utterances in one row; `segments` are their tokens and the character that each sounds."""
        lang, texts = rows[0].lang, [row.text for row in rows]
        gap, heard = TEXT_GAP["sentence", lang], len(rows) > 1
        head, before, said, tail = self.layout(
            gap.join(texts[heard:]), lang, texts[0] if heard else ""
        )
        columns = self.columns(len(head), [*before, *said], texts)
        where = [column[s.phoneme] for column, s in zip(columns, segments, strict=True)]
        prefix = torch.tensor([*head, *before, *said, *tail])
        rate = noise * len(segments[0].tokens) / len(before or said)
        positions = self.adapter.positions(len(before) + len(said), 0, rate, len(head), len(tail))
        row = self.adapter.sequence(prefix, positions, torch.cat([s.tokens for s in segments]))
        outside = torch.full((len(prefix) - 1,), -1)
        return row | {"where": torch.cat([outside, *where, torch.tensor([-1])])}

    def draw(self, count: int) -> Row:
        """A row of `count` utterances, all in one version."""
        rows = self.speakers.pick(count)
        segments = in_version(self.versions, rows, chance(len(VERSIONS)))
        return self.row(rows, segments, near_one(0.07 if count > 1 else 0.2))

    def __call__(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and its parts: nats a speech token, nats a phoneme."""
        aloud, guide = int(self.budget * self.share), step < self.guidance_steps
        count = 1 + chance(self.longest)
        rows = like_lengths(
            lambda: self.draw(count), lambda r: len(r["input_ids"]), self.budget - aloud
        )
        offset = self.adapter.frontend.offset
        codes = offset, offset + self.adapter.config.tokens
        speech, term = self.loss(rows, self.lm.speak, codes, guide)
        parts, loss = {"ce": speech.item()}, speech
        if aloud:
            sounds, _ = self.text.sound_loss(aloud, guide=False)
            parts["sounds"] = sounds.item()
            loss = (1 - self.share) * speech + self.share * sounds
        if term is not None:
            parts["guidance"] = term.item()
            loss = loss + guidance_weight(step, self.guidance_steps) * term
        return loss, parts

    def held_out(
        self, rows: list[Utterance], versions: dict[str, list[Segment]], lang: str
    ) -> float:
        """Nats a token of single utterances the training never saw."""
        some = [
            self.row([row], by_character(row, versions[row.id][:1]))
            for row in rows
            if row.lang == lang
        ]
        return self.measure(some, self.lm.speak)


def by_character(row: Utterance, segments: Sequence[Segment]) -> list[Segment]:
    """Segments whose tokens are told by character of the raw text instead of by phoneme."""
    characters = torch.tensor(places(row.text, row.phonemes, row.lang))
    return [Segment(s.tokens, characters[s.phoneme]) for s in segments]
