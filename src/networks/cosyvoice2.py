"""CosyVoice 2's language model, with the names of the published `llm.pt`.

Upstream: `cosyvoice/llm/llm.py` (`Qwen2LM`, `Qwen2Encoder`). Text, speech, and the two marks between
them have a table each; here they share one numbering, so that the model takes ids as any causal
language model does: speech first (its rows are also the output's), then sos, task id, then text.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from networks.causal_lm import causal_lm

MARKS = 2  # rows of llm_embedding: sos, task id
EXTRA = 3  # speech rows past the codes: end, one that is unused, and the fill of streaming
QWEN2_05B: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}  # fmt: skip


class Qwen2Encoder(nn.Module):
    """Qwen2 under the name that the published keys give it."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        self.model = causal_lm(sizes)


class Qwen2LM(nn.Module):
    """Text and speech ids to logits of the speech rows. Names as in the published checkpoint.

    `speech_tokens` counts the codes; `sizes` are of transformers' Qwen2Config, by default those of
    Qwen2-0.5B. `llm.model.lm_head` is in the published file and takes no part.
    """

    def __init__(self, speech_tokens: int = 6561, **sizes: Any):
        super().__init__()
        self.llm = Qwen2Encoder(QWEN2_05B | sizes)
        width = self.llm.model.config.hidden_size
        self.llm_embedding = nn.Embedding(MARKS, width)
        self.speech_embedding = nn.Embedding(speech_tokens + EXTRA, width)
        self.llm_decoder = nn.Linear(width, speech_tokens + EXTRA)
        for module in (self.llm_embedding, self.speech_embedding, self.llm_decoder):
            nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.llm_decoder.bias)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids [B, T] to embeddings [B, T, H], each from its own table."""
        speech = self.speech_embedding.num_embeddings
        text = self.llm.model.get_input_embeddings()
        spoken = self.speech_embedding(ids.clamp_max(speech - 1))
        marks = self.llm_embedding((ids - speech).clamp(0, MARKS - 1))
        written = text((ids - speech - MARKS).clamp_min(0))
        other = torch.where((ids < speech + MARKS)[..., None], marks, written)
        return torch.where((ids < speech)[..., None], spoken, other)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        """Logits [B, K, speech_tokens + 3] of the last K = `logits_to_keep` positions (0: all).

        `input_ids` [B, T] in the numbering above; `attention_mask` [B, T] or boolean [B, 1, T, T];
        `position_ids` [B, T]; `cache` and `use_cache` as of transformers' causal models.
        """
        out = self.llm.model.model(
            inputs_embeds=self.embed(input_ids), attention_mask=attention_mask,
            position_ids=position_ids, cache=cache, use_cache=use_cache,
        )  # fmt: skip
        hidden = out.last_hidden_state[:, -logits_to_keep:]
        return CausalLMOutputWithPast(logits=self.llm_decoder(hidden), cache=out.cache)
