"""Whisper's decoder, greedy and batched, over short audio contexts that are completed with silence.

An encoder that sees 8 s instead of 30 is four times as fast, but a decoder that is left with so few
frames drops whole sentences (10.8 % WER instead of 2.1 on joined recordings). It behaves as with
30 s if the missing frames are there as those of silence: the same for every clip, so their keys and
values are computed once and attended as one matrix for the whole batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperForConditionalGeneration

Memory = list[tuple[Tensor, Tensor]]  # keys and values a layer


class Batch(NamedTuple):
    """What every step needs of the rows that still speak; masks are True where a frame counts."""

    rows: Tensor  # [B], where the row stands in the result
    own: Memory  # [B, H, T, D]
    own_mask: Tensor  # [B, 1, 1, T]
    tail: Memory  # [H, S, D], shared
    tail_mask: Tensor  # [B, 1, 1, S]
    past: Memory  # [B, H, tokens, D]

    def select(self, keep: Tensor) -> "Batch":
        """The rows [B] that `keep` marks."""
        own, past = ([(k[keep], v[keep]) for k, v in memory] for memory in (self.own, self.past))
        masks = self.own_mask[keep], self.tail_mask[keep]
        return Batch(self.rows[keep], own, masks[0], self.tail, masks[1], past)


class GreedyDecoder:
    """The decoder of a Whisper of transformers; `silence` [1500, D] completes shorter contexts."""

    def __init__(self, model: WhisperForConditionalGeneration, silence: Tensor | None) -> None:
        self.decoder, self.logits = model.model.decoder, model.proj_out
        self.heads = model.config.decoder_attention_heads
        empty = torch.empty(0, model.config.d_model, device=model.device, dtype=model.dtype)
        self.tail = self._frames(empty if silence is None else silence)

    @torch.inference_mode()
    def __call__(
        self,
        encoded: list[Tensor],
        prefixes: list[list[int]],
        limits: list[int],
        end: int,
        banned: dict[bool, Tensor],
    ) -> list[list[int]]:
        """The likeliest tokens of each row until `end`, at most `limits` of them.

        `encoded` holds encoder states [T, D] of any lengths, `prefixes` are equally long, `banned`
        tokens are never chosen at the first step (True) and later (False).
        """
        batch = self._begin(encoded)
        tokens = torch.tensor(prefixes, device=batch.rows.device)
        chosen: list[list[int]] = [[] for _ in limits]
        position = 0
        while len(batch.rows):
            states = self._step(tokens, position, batch)
            logits = self.logits(states[:, -1])
            logits[:, banned[position == 0]] = -torch.inf
            position += tokens.shape[1]
            heard = logits.argmax(dim=-1)
            going = torch.zeros_like(heard, dtype=torch.bool)
            for i, (row, token) in enumerate(zip(batch.rows.tolist(), heard.tolist(), strict=True)):
                if token != end:
                    chosen[row].append(token)
                    going[i] = len(chosen[row]) < limits[row]
            if not going.all():
                batch, heard = batch.select(going), heard[going]
            tokens = heard[:, None]
        return chosen

    def _begin(self, encoded: list[Tensor]) -> Batch:
        lengths = torch.tensor([len(e) for e in encoded], device=encoded[0].device)[:, None]
        start, longest = int(lengths.min()), int(lengths.max())
        tail = [(k[:, start:], v[:, start:]) for k, v in self.tail]
        places = torch.arange(max(longest, start + tail[0][0].shape[1]), device=lengths.device)
        return Batch(
            torch.arange(len(encoded), device=lengths.device),
            self._frames(pad_sequence(encoded, batch_first=True)),
            (places[:longest] < lengths)[:, None, None],
            tail,
            (places[start : start + tail[0][0].shape[1]] >= lengths)[:, None, None],
            [],
        )

    def _frames(self, states: Tensor) -> Memory:
        """Keys and values [..., H, T, D / H] of encoder states [..., T, D], for every layer."""
        layers = [layer.encoder_attn for layer in self.decoder.layers]
        return [(self._split(a.k_proj(states)), self._split(a.v_proj(states))) for a in layers]

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _step(self, tokens: Tensor, position: int, batch: Batch) -> Tensor:
        """Decoder states [B, L, D] of tokens [B, L] at `position`; extends `batch.past`."""
        places = self.decoder.embed_positions.weight[position : position + tokens.shape[1]]
        x = self.decoder.embed_tokens(tokens) + places
        for index, layer in enumerate(self.decoder.layers):
            y, attention = layer.self_attn_layer_norm(x), layer.self_attn
            key, value = self._split(attention.k_proj(y)), self._split(attention.v_proj(y))
            if position == 0:
                batch.past.append((key, value))
            else:
                past = batch.past[index]
                batch.past[index] = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            y = torch.nn.functional.scaled_dot_product_attention(
                self._split(attention.q_proj(y)), *batch.past[index], is_causal=position == 0
            )
            x = x + attention.out_proj(y.transpose(1, 2).flatten(2))
            attention = layer.encoder_attn
            y = self._split(attention.q_proj(layer.encoder_attn_layer_norm(x)))
            y = self._attend(y, batch, index)
            x = x + attention.out_proj(y.transpose(1, 2).flatten(2))
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        return self.decoder.layer_norm(x)

    def _attend(self, query: Tensor, batch: Batch, index: int) -> Tensor:
        """Attention of query [B, H, L, D] over each row's own frames and the shared silence."""
        (key, value), (tail_key, tail_value) = batch.own[index], batch.tail[index]
        query = query * query.shape[-1] ** -0.5
        own = (query @ key.mT).masked_fill(~batch.own_mask, -torch.inf)
        shared = torch.einsum("bhld,hsd->bhls", query, tail_key)
        shared = shared.masked_fill(~batch.tail_mask, -torch.inf)
        weight = torch.softmax(torch.cat([own, shared], dim=-1), dim=-1)
        own, shared = weight.split([own.shape[-1], shared.shape[-1]], dim=-1)
        return own @ value + torch.einsum("bhls,hsd->bhld", shared, tail_value)
