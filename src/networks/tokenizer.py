"""The speech tokenizer of the mini models: log-mel in, one FSQ code per two frames, log-mel out.

31.25 tokens a second, 8·5·5·5 = 1,000 codes (finite scalar quantisation), supervised by phonemes
through a CTC head on the *quantised* codes, as CosyVoice's tokens are supervised by text. The
decoder takes the timbre from a reference recording, so the codes need not carry it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from intp.audio import FRAME_RATE, N_MELS

FRAMES_PER_TOKEN = 2
TOKEN_RATE = FRAME_RATE / FRAMES_PER_TOKEN


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the tokenizer; `phonemes` are the labels of the CTC head (blank is index 0)."""

    width: int = 320
    expansion: int = 3
    encoder_layers: int = 4
    ctc_layers: int = 1
    decoder_layers: int = 5
    frame_layers: int = 2
    frame_width: int = 160
    timbre_width: int = 192
    timbre_layers: int = 2
    timbre_dim: int = 128
    levels: list[int] = field(default_factory=lambda: [8, 5, 5, 5])
    phonemes: list[str] = field(default_factory=list)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then an MLP; optionally shifted and scaled by a timbre [B, D]."""

    def __init__(self, width: int, expansion: int, condition: int = 0):
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, elementwise_affine=condition == 0)
        self.film = nn.Linear(condition, 2 * width) if condition else None
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor, mask: Tensor, condition: Tensor | None = None) -> Tensor:
        """One residual step over x [B, N, width]; mask [B, N, 1]."""
        h = self.depthwise((x * mask).transpose(1, 2)).transpose(1, 2)
        h = self.norm(h)
        if self.film is not None:
            shift, scale = self.film(condition)[:, None].chunk(2, dim=-1)
            h = h * (1 + scale) + shift
        return x + self.scale * self.down(F.gelu(self.up(h)))


class Stack(nn.Module):
    """A linear layer, `layers` blocks and a final norm; padding never reaches a valid position."""

    def __init__(self, inputs: int, width: int, layers: int, expansion: int, condition: int = 0):
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, expansion, condition) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor, condition: Tensor | None = None) -> Tensor:
        """x [B, N, inputs] to [B, N, width]; mask [B, N, 1]."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, mask, condition)
        return self.norm(x)


class FSQ(nn.Module):
    """Finite scalar quantisation (Mentzer et al., 2024): round each bounded dimension to its levels."""

    def __init__(self, levels: list[int]):
        super().__init__()
        steps = torch.tensor(levels)
        self.register_buffer("levels", steps, persistent=False)
        basis = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0)
        self.register_buffer("basis", basis, persistent=False)
        self.size = int(steps.prod())

    def bound(self, z: Tensor) -> Tensor:
        """Squash [.., D] into (-half, half) with an offset for even level counts."""
        half = (self.levels - 1) * (1 - 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = (offset / half).atanh()
        return (z + shift).tanh() * half - offset

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise [.., D] with a straight-through gradient: values in [-1, 1], codes [..]."""
        bounded = self.bound(z)
        rounded = bounded + (bounded.round() - bounded).detach()
        codes = ((rounded.detach().round() + self.levels // 2) * self.basis).sum(-1).long()
        return rounded / (self.levels // 2), codes

    def values(self, codes: Tensor) -> Tensor:
        """The quantised vector [.., D] of codes [..]."""
        digits = (codes[..., None] // self.basis) % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)


class SpeechTokenizer(nn.Module):
    """Encoder, FSQ, CTC head, timbre encoder and decoder. Frames [B, T, 100] have even T."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        c = config
        pair = FRAMES_PER_TOKEN * N_MELS
        self.register_buffer("mel_mean", torch.zeros(N_MELS))
        self.register_buffer("mel_std", torch.ones(N_MELS))
        self.encoder = Stack(pair, c.width, c.encoder_layers, c.expansion)
        self.to_code = nn.Linear(c.width, len(c.levels))
        self.fsq = FSQ(c.levels)
        self.ctc = Stack(len(c.levels), c.width, c.ctc_layers, c.expansion)
        self.to_phoneme = nn.Linear(c.width, len(c.phonemes) + 1)
        self.timbre = Stack(pair, c.timbre_width, c.timbre_layers, c.expansion)
        self.to_timbre = nn.Linear(2 * c.timbre_width, c.timbre_dim)
        self.decoder = Stack(len(c.levels), c.width, c.decoder_layers, c.expansion, c.timbre_dim)
        self.to_frames = nn.Linear(c.width, FRAMES_PER_TOKEN * c.frame_width)
        self.refine = Stack(c.frame_width, c.frame_width, c.frame_layers, c.expansion, c.timbre_dim)
        self.to_mel = nn.Linear(c.frame_width, N_MELS)

    def normalise(self, mel: Tensor) -> Tensor:
        """Log-mel [.., 100] to zero mean and unit variance per band."""
        return (mel - self.mel_mean) / self.mel_std

    def encode(self, mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised mel [B, T, 100], token mask [B, T/2] -> code vectors [B, T/2, D], codes."""
        hidden = self.encoder(mel.unflatten(1, (-1, FRAMES_PER_TOKEN)).flatten(2), mask[..., None])
        return self.fsq(self.to_code(hidden))

    def phoneme_logits(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """CTC logits [B, N, phonemes + 1] of code vectors [B, N, D]."""
        return self.to_phoneme(self.ctc(vectors, mask[..., None]))

    def embed_timbre(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Timbre [B, timbre_dim] of normalised mel [B, T, 100], token mask [B, T/2]."""
        weight = mask[..., None].to(mel.dtype)
        pairs = mel.unflatten(1, (-1, FRAMES_PER_TOKEN)).flatten(2)
        hidden = self.timbre(pairs, weight)
        count = weight.sum(1).clamp_min(1)
        mean = (hidden * weight).sum(1) / count
        spread = (((hidden - mean[:, None]) ** 2 * weight).sum(1) / count + 1e-5).sqrt()
        return self.to_timbre(torch.cat([mean, spread], dim=-1))

    def decode(self, vectors: Tensor, timbre: Tensor, mask: Tensor) -> Tensor:
        """Normalised mel [B, 2N, 100] of code vectors [B, N, D] in the given timbre."""
        weight = mask[..., None].to(vectors.dtype)
        hidden = self.to_frames(self.decoder(vectors, weight, timbre))
        frames = hidden.unflatten(2, (FRAMES_PER_TOKEN, -1)).flatten(1, 2)
        wide = weight.repeat_interleave(FRAMES_PER_TOKEN, dim=1)
        return self.to_mel(self.refine(frames, wide, timbre))

    @torch.inference_mode()
    def tokens(self, mel: Tensor) -> Tensor:
        """Codes [T // 2] of one log-mel spectrogram [T, 100] (not normalised)."""
        even = self.normalise(mel[: len(mel) // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN])[None]
        return self.encode(even, even.new_ones(1, even.shape[1] // FRAMES_PER_TOKEN))[1][0]

    @torch.inference_mode()
    def speech(self, codes: Tensor, reference: Tensor) -> Tensor:
        """Log-mel [2N, 100] of codes [N] in the timbre of a reference log-mel [T, 100]."""
        even = self.normalise(reference[: len(reference) // 2 * 2])[None]
        timbre = self.embed_timbre(even, even.new_ones(1, even.shape[1] // FRAMES_PER_TOKEN))
        vectors = self.fsq.values(codes)[None]
        mel = self.decode(vectors, timbre, vectors.new_ones(1, len(codes)))[0]
        return mel * self.mel_std + self.mel_mean

    def save(self, path: Path) -> None:
        """Write weights (bf16) and configuration to one safetensors file."""
        weights = {k: v.to(torch.bfloat16).contiguous() for k, v in self.state_dict().items()}
        save_file(weights, path, metadata={"config": json.dumps(asdict(self.config))})

    @classmethod
    def load(cls, path: Path) -> "SpeechTokenizer":
        """Read what `save` wrote; evaluation mode, float32."""
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            config = TokenizerConfig(**json.loads(file.metadata()["config"]))
        model = cls(config)
        model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        return model.eval()
