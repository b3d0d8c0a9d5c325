"""The diffusion transformer of F5-TTS, the velocity u of Eqs. 4 and 7.

Module tree and state-dict names are those of the published checkpoints' `transformer.*` (upstream:
`f5_tts/model/backbones/dit.py`, `modules.py`), so that they load with `strict=True`. At equal lengths
the output is upstream's. At unequal lengths a row of ours sees its own frames only, in convolutions,
response normalisation and attention; upstream's sees the padding in the last two.

B rows, N frames, L text symbols, D the width of the transformer.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_WIDTH = 256
LAYER_NORM_EPS = 1e-6


def sinusoids(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [..., F] of positions [...] times angular frequencies [F]."""
    angles = positions[..., None].to(frequencies.dtype) * frequencies
    return angles.cos(), angles.sin()


class RotaryEmbedding(nn.Module):
    """Rotary positions with base 10,000; the frequencies are a saved buffer, as in x-transformers."""

    def __init__(self, dim_head: int):
        super().__init__()
        inv_freq = 10_000.0 ** (-torch.arange(0, dim_head, 2).float() / dim_head)
        self.register_buffer("inv_freq", inv_freq)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine [N, dim_head / 2] of frames 0 to N - 1."""
        return sinusoids(torch.arange(length, device=self.inv_freq.device), self.inv_freq)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor], heads: int) -> Tensor:
    """Turn the first `heads` heads of x [B, H, N, dim_head]; neighbouring dimensions are a pair."""
    cos, sin = rotary
    even, odd = x[:, :heads].unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([turned.to(x.dtype), x[:, heads:]], dim=1)


class TimeEmbedding(nn.Module):
    """The flow's time t, as sinusoids of 1000 t, through an MLP."""

    def __init__(self, dim: int):
        super().__init__()
        self.time_mlp = nn.Sequential(nn.Linear(TIME_WIDTH, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, time: Tensor) -> Tensor:
        """time [B] in [0, 1] to [B, D]."""
        half = TIME_WIDTH // 2
        steps = torch.arange(half, device=time.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10_000) / (half - 1) * steps)
        angles = 1000 * time[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.time_mlp(waves.to(self.time_mlp[0].weight.dtype))


class GRN(nn.Module):
    """Global response normalisation over time (ConvNeXt V2)."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, N, dim]; only frames of `valid` [B, N, 1] enter a channel's norm."""
        norm = torch.linalg.vector_norm(x * valid, dim=1, keepdim=True)
        relative = norm / (norm.mean(-1, keepdim=True) + 1e-6)
        return self.gamma * (x * relative) + self.beta + x


class ConvNeXtV2Block(nn.Module):
    """Depthwise convolution over time, then an MLP with response normalisation."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.pwconv1 = nn.Linear(dim, inner)
        self.grn = GRN(inner)
        self.pwconv2 = nn.Linear(inner, dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """One residual step over x [B, N, dim], zero outside `valid` [B, N, 1]."""
        h = self.norm(self.dwconv(x.transpose(1, 2)).transpose(1, 2))
        return x + self.pwconv2(self.grn(F.gelu(self.pwconv1(h)), valid))


class TextEmbedding(nn.Module):
    """Text symbols, one a frame from the first frame on, then filler (row 0 of the table).

    With `mask_padding` (v1) fillers are zeroed before the first and after every block; without it
    (v0) they take part.
    """

    def __init__(self, symbols: int, width: int, layers: int, mask_padding: bool):
        super().__init__()
        self.text_embed = nn.Embedding(symbols + 1, width)
        self.text_blocks = nn.ModuleList(ConvNeXtV2Block(width, 2 * width) for _ in range(layers))
        self.mask_padding = mask_padding

    def forward(self, text: Tensor, valid: Tensor, drop: bool = False) -> Tensor:
        """Ids [B, L] padded with -1, to [B, N, width]; `valid` [B, N, 1] holds on a row's own frames.

        Text beyond the last frame is cut. `drop` embeds filler, but where text was stays known:
        upstream takes the mask before it drops the text.
        """
        frames = valid.shape[1]
        ids = F.pad(text[:, :frames] + 1, (0, max(0, frames - text.shape[1])))
        ids = ids.masked_fill(~valid[..., 0], 0)
        keep = ids[..., None] != 0 if self.mask_padding else valid
        x = self.text_embed(torch.zeros_like(ids) if drop else ids)
        x = (x + self.positions(frames, x)) * keep
        for block in self.text_blocks:
            x = block(x, valid) * keep
        return x

    @staticmethod
    def positions(length: int, like: Tensor) -> Tensor:
        """Absolute positions [N, width]: cosines, then sines, in the dtype of `like`."""
        width = like.shape[-1]
        steps = torch.arange(0, width, 2, device=like.device).float() / width
        waves = sinusoids(torch.arange(length, device=like.device), 1 / 10_000.0**steps)
        return torch.cat(waves, dim=-1).to(like.dtype)


class ConvPositionEmbedding(nn.Module):
    """Two grouped convolutions of 31 frames that tell a frame where it is."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv1d = nn.Sequential(
            nn.Conv1d(dim, dim, 31, groups=16, padding=15),
            nn.Mish(),
            nn.Conv1d(dim, dim, 31, groups=16, padding=15),
            nn.Mish(),
        )

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, N, D] to [B, N, D], zero outside `valid` [B, N, 1]."""
        valid = valid.transpose(1, 2)
        x = x.transpose(1, 2) * valid
        for layer in self.conv1d:
            x = layer(x) * valid
        return x.transpose(1, 2)


class InputEmbedding(nn.Module):
    """Noised speech, condition and text of a frame, side by side, to the transformer's width."""

    def __init__(self, mel_dim: int, text_dim: int, dim: int):
        super().__init__()
        self.proj = nn.Linear(2 * mel_dim + text_dim, dim)
        self.conv_pos_embed = ConvPositionEmbedding(dim)

    def forward(self, x: Tensor, condition: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        """x and condition [B, N, mel_dim], text [B, N, text_dim] to [B, N, D]."""
        x = self.proj(torch.cat([x, condition, text], dim=-1))
        return self.conv_pos_embed(x, valid) + x


class Attention(nn.Module):
    """Self-attention that never attends to padding (upstream's default does)."""

    def __init__(self, dim: int, heads: int, dim_head: int, dropout: float, rotated: int):
        super().__init__()
        self.heads, self.rotated = heads, rotated
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, heads * dim_head) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """x [B, N, D] to [B, N, D]; `mask` [B, N] holds on the frames to attend to."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        q, k = rotate(q, rotary, self.rotated), rotate(k, rotary, self.rotated)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.to_out(y.transpose(1, 2).flatten(2))


class Modulation(nn.Module):
    """Shifts, scales and gates as a linear function of the time embedding (adaptive layer norm)."""

    def __init__(self, dim: int, parts: int):
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(dim, parts * dim)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """time [B, D] to `parts` tensors [B, 1, D]."""
        return self.linear(F.silu(time))[:, None].chunk(self.parts, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm of x [B, N, D] without affine part, then scale and shift [B, 1, D]."""
    return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS) * (1 + scale) + shift


class FeedForward(nn.Module):
    """The MLP of a block."""

    def __init__(self, dim: int, mult: int, dropout: float):
        super().__init__()
        first = nn.Sequential(nn.Linear(dim, mult * dim), nn.GELU(approximate="tanh"))
        self.ff = nn.Sequential(first, nn.Dropout(dropout), nn.Linear(mult * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N, D] to [B, N, D]."""
        return self.ff(x)


class DiTBlock(nn.Module):
    """Attention and MLP, each modulated and gated by time."""

    def __init__(
        self, dim: int, heads: int, dim_head: int, ff_mult: int, dropout: float, rotated: int
    ):
        super().__init__()
        self.attn_norm = Modulation(dim, 6)
        self.attn = Attention(dim, heads, dim_head, dropout, rotated)
        self.ff = FeedForward(dim, ff_mult, dropout)

    def forward(
        self, x: Tensor, time: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> Tensor:
        """x [B, N, D] and time [B, D] to [B, N, D]."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.attn_norm(time)
        x = x + gate * self.attn(modulate(x, shift, scale), mask, rotary)
        return x + ff_gate * self.ff(modulate(x, ff_shift, ff_scale))


class DiT(nn.Module):
    """F5-TTS's transformer over mel frames.

    `pe_attn_head` (v0: 1, v1: None) is how many heads know positions, None for all, and
    `text_mask_padding` (v0: False, v1: True) is `TextEmbedding`'s. Neither shows in a tensor's name
    or shape, and the wrong value ruins the speech in silence: hence no defaults.
    """

    def __init__(
        self,
        *,
        symbols: int,
        dim: int,
        depth: int,
        heads: int,
        ff_mult: int,
        text_dim: int,
        conv_layers: int,
        text_mask_padding: bool,
        pe_attn_head: int | None,
        dim_head: int = 64,
        mel_dim: int = 100,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.time_embed = TimeEmbedding(dim)
        self.text_embed = TextEmbedding(symbols, text_dim, conv_layers, text_mask_padding)
        self.input_embed = InputEmbedding(mel_dim, text_dim, dim)
        self.rotary_embed = RotaryEmbedding(dim_head)
        rotated = heads if pe_attn_head is None else pe_attn_head
        self.transformer_blocks = nn.ModuleList(
            DiTBlock(dim, heads, dim_head, ff_mult, dropout, rotated) for _ in range(depth)
        )
        self.norm_out = Modulation(dim, 2)
        self.proj_out = nn.Linear(dim, mel_dim)
        # Every block starts as the identity and the velocity at zero, as upstream's v1 did.
        modulations = [block.attn_norm.linear for block in self.transformer_blocks]
        for layer in (*modulations, self.norm_out.linear, self.proj_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def embed_text(
        self, text: Tensor, mask: Tensor, text_frames: Tensor | None = None, drop: bool = False
    ) -> Tensor:
        """Text ids [B, L], padded with -1, to what each frame hears of them: [B, N, text_dim].

        `mask` [B, N] holds on a row's own frames. `text_frames` [B, N] says which symbol a frame
        hears; without it frame n hears symbol n and the later frames nothing (as published).
        """
        x = self.text_embed(text, mask[..., None], drop)
        if text_frames is None:
            return x
        return x.gather(1, text_frames[..., None].expand(-1, -1, x.shape[-1])) * mask[..., None]

    def velocity(
        self, x: Tensor, condition: Tensor, text: Tensor, time: Tensor, mask: Tensor
    ) -> Tensor:
        """`forward` on embedded text [B, N, text_dim], which a sampler computes once."""
        time = self.time_embed(time)
        x = self.input_embed(x, condition, text, mask[..., None])
        rotary = self.rotary_embed(x.shape[1])
        for block in self.transformer_blocks:
            x = block(x, time, mask, rotary)
        scale, shift = self.norm_out(time)
        return self.proj_out(modulate(x, shift, scale))

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        text: Tensor,
        time: Tensor,
        mask: Tensor | None = None,
        text_frames: Tensor | None = None,
        *,
        drop_audio: bool = False,
        drop_text: bool = False,
    ) -> Tensor:
        """The velocity [B, N, mel_dim] at noised speech x [B, N, mel_dim] and time [B] in [0, 1].

        `condition` [B, N, mel_dim] is the reference speech, zero elsewhere; text, mask and
        text_frames as in `embed_text`. `drop_audio` and `drop_text` take the condition away.
        """
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        embedded = self.embed_text(text, mask, text_frames, drop_text)
        condition = torch.zeros_like(condition) if drop_audio else condition
        return self.velocity(x, condition, embedded, time, mask)
