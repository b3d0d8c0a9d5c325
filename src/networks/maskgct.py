"""MaskGCT's text-to-semantic transformer, in the layout of its published checkpoint.

Facts from upstream (Amphion `models/tts/maskgct/maskgct_t2s.py` and `llama_nar.py`; `DiffLlamaPrefix`
there): bidirectional Llama layers whose RMSNorm weights are a linear function of the diffusion time,
over phonemes (through an MLP), then speech tokens, a masked one replaced by `mask_emb`. Sizes are
configuration: hidden 1536, 16 layers, 16 heads, 8192 codes and 1024 phonemes are the published ones.

Plain torch: upstream's second stage needs transformers 4.41, whose Llama layers have another
interface than today's, and both must run in one process.

B samples, P phonemes, T speech tokens, S = P + T, H = hidden_size. Masks are True where valid.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY_BASE = 10_000.0
NORM_EPS = 1e-6


class SinusoidalPosEmb(nn.Module):
    """Sine and cosine of the diffusion time in [0, 1], unscaled: [B] -> [B, H]."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, time: Tensor) -> Tensor:
        """Embed the times [B]."""
        half = self.width // 2
        exponents = torch.arange(half, device=time.device) * -(math.log(10_000) / (half - 1))
        angles = time[:, None] * exponents.exp()
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LlamaAdaptiveRMSNorm(nn.Module):
    """RMSNorm whose weight comes from the time embedding [B, H]; starts as a plain RMSNorm."""

    def __init__(self, width: int):
        super().__init__()
        self.to_weight = nn.Linear(width, width)
        nn.init.zeros_(self.to_weight.weight)
        nn.init.ones_(self.to_weight.bias)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """Normalise x [B, S, H]."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = x * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + NORM_EPS)
        return (self.to_weight(step)[:, None] * normed).to(x.dtype)


def rotary(positions: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, 1, S, head_width / 2] of positions [B, S], which may be fractions."""
    even = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None, :, None].float() / ROTARY_BASE ** (even / head_width)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x [B, heads, S, head_width]: dimension i pairs with i + head_width / 2, as in Llama."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    """Bidirectional self-attention with rotary positions and no biases.

    Returns its output and, where `attention` is "eager", the weights [B, heads, S, S], for whoever
    hooks a layer (guided attention in pretraining).
    """

    def __init__(self, width: int, heads: int, attention: str):
        super().__init__()
        self.heads, self.eager = heads, attention == "eager"
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], bias: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over x [B, S, H]; `bias` [B, 1, 1, S] is 0 at valid keys, else -inf."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, weights = rotate(q, *turn), rotate(k, *turn), None
        if self.eager:
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            weights = (scores + bias).softmax(-1).to(v.dtype)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), weights


class MLP(nn.Module):
    """Llama's gated MLP (SwiGLU)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, S, H] -> [B, S, H]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaNARDecoderLayer(nn.Module):
    """One Llama layer with adaptive norms."""

    def __init__(self, width: int, heads: int, inner: int, attention: str):
        super().__init__()
        self.self_attn = Attention(width, heads, attention)
        self.mlp = MLP(width, inner)
        self.input_layernorm = LlamaAdaptiveRMSNorm(width)
        self.post_attention_layernorm = LlamaAdaptiveRMSNorm(width)

    def forward(self, x: Tensor, step: Tensor, turn: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        """x [B, S, H] at time embedding `step` [B, H]."""
        x = x + self.self_attn(self.input_layernorm(x, step), turn, bias)[0]
        return x + self.mlp(self.post_attention_layernorm(x, step))


def perceptron(width: int) -> nn.Sequential:
    """The two-layer MLP that upstream puts on phonemes and on the time."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


class DiffLlama(nn.Module):
    """Layers over phonemes and speech tokens at one diffusion time; gives the tokens' part."""

    def __init__(self, width: int, layers: int, heads: int, inner: int, attention: str):
        super().__init__()
        self.head_width = width // heads
        self.layers = nn.ModuleList(
            LlamaNARDecoderLayer(width, heads, inner, attention) for _ in range(layers)
        )
        self.norm = LlamaAdaptiveRMSNorm(width)
        self.diff_step_embedding = SinusoidalPosEmb(width)
        self.diff_step_mlp = perceptron(width)
        self.cond_mlp = perceptron(width)

    def forward(
        self, x: Tensor, time: Tensor, phones: Tensor, valid: Tensor, positions: Tensor
    ) -> Tensor:
        """Tokens x [B, T, H] and embedded phonemes [B, P, H] at time [B] -> [B, T, H].

        `valid` and `positions` [B, P + T] are of phonemes, then tokens.
        """
        step = self.diff_step_mlp(self.diff_step_embedding(time.to(x.dtype)))
        turn = rotary(positions, self.head_width)
        bias = torch.zeros_like(valid, dtype=x.dtype).masked_fill(~valid, -torch.inf)[:, None, None]
        hidden = torch.cat([self.cond_mlp(phones), x], dim=1)
        for layer in self.layers:
            hidden = layer(hidden, step, turn, bias)
        return self.norm(hidden, step)[:, phones.shape[1] :]


class MaskGCT_T2S(nn.Module):
    """Text to semantic (speech) tokens by masked generation. Names as in the published checkpoint.

    `phone_table` counts the rows of the phoneme embedding, the last of which is padding;
    `intermediate_size` is 4 * hidden_size upstream; `attention` is "sdpa" or "eager".
    """

    def __init__(
        self,
        hidden_size: int = 1536,
        num_layers: int = 16,
        num_heads: int = 16,
        cond_codebook_size: int = 8192,
        phone_table: int = 1024,
        intermediate_size: int | None = None,
        attention: str = "sdpa",
    ):
        super().__init__()
        self.mask_emb = nn.Embedding(1, hidden_size)
        self.to_logit = nn.Linear(hidden_size, cond_codebook_size)
        self.cond_emb = nn.Embedding(cond_codebook_size, hidden_size)
        self.phone_emb = nn.Embedding(phone_table, hidden_size, padding_idx=phone_table - 1)
        inner = intermediate_size or 4 * hidden_size
        self.diff_estimator = DiffLlama(hidden_size, num_layers, num_heads, inner, attention)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Normal weights of deviation 0.02, zero biases and padding; norms start plain."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()
        if isinstance(module, LlamaAdaptiveRMSNorm):  # after its linear layer: apply goes bottom up
            nn.init.zeros_(module.to_weight.weight)
            nn.init.ones_(module.to_weight.bias)

    def hidden(
        self,
        token_ids: Tensor,
        token_mask: Tensor,
        mask: Tensor,
        time: Tensor,
        phone_ids: Tensor,
        phone_mask: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B, T, H] before `to_logit`; arguments as `forward`."""
        tokens = torch.where(mask[..., None], self.mask_emb.weight, self.cond_emb(token_ids))
        valid = torch.cat([phone_mask, token_mask], dim=1)
        if positions is None:
            positions = (valid.cumsum(1) - 1).clamp_min(0)
        phones = self.phone_emb(phone_ids)
        return self.diff_estimator(tokens, time, phones, valid, positions)

    def forward(
        self,
        token_ids: Tensor,
        token_mask: Tensor,
        mask: Tensor,
        time: Tensor,
        phone_ids: Tensor,
        phone_mask: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, cond_codebook_size] of the speech tokens.

        `token_ids` [B, T], of which `mask` hides some, valid where `token_mask`; `time` [B] in
        [0, 1]; `phone_ids` [B, P], valid where `phone_mask` (P = 0: no text, guidance's null pass);
        `positions` [B, P + T], by default one counter over the valid phonemes, then tokens.
        """
        return self.to_logit(
            self.hidden(token_ids, token_mask, mask, time, phone_ids, phone_mask, positions)
        )
