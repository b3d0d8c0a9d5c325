"""Whose voice it is, at `paper` scale: WavLM-Large with an ECAPA-TDNN head (UniSpeech).

`ECAPA_TDNN_SMALL` of UniSpeech `downstreams/speaker_verification`, as seed-tts-eval uses it; the
checkpoint is its `wavlm_large_finetune.pth`. The head computes on upstream's own names, the backbone
is transformers' WavLM with fairseq's names mapped onto it; every size is read off the checkpoint.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import WavLMConfig, WavLMModel

from intp.device import default_device
from judges.base import JudgeError, each, unit

BACKBONE = "feature_extract.model."
SURPLUS = re.compile(r"loss_calculator\..*|.*(label_embs_concat|final_proj|project_q|quantizer).*")
SLICES = 8  # of a block's channels; the last passes through
FAIRSEQ_TO_TRANSFORMERS = (
    (r"^post_extract_proj", "feature_projection.projection"),
    (r"^layer_norm", "feature_projection.layer_norm"),
    (r"^mask_emb", "masked_spec_embed"),
    (r"(conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"(conv_layers\.\d+)\.2\.1\.", r"\1.layer_norm."),
    (r"pos_conv\.0\.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"pos_conv\.0\.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"pos_conv\.0\.bias", "pos_conv_embed.conv.bias"),
    (r"self_attn_layer_norm", "layer_norm"),
    (r"self_attn\.grep_linear", "attention.gru_rel_pos_linear"),
    (r"self_attn\.grep_a", "attention.gru_rel_pos_const"),
    (r"self_attn\.relative_attention_bias", "attention.rel_attn_embed"),
    (r"self_attn\.", "attention."),
    (r"fc1", "feed_forward.intermediate_dense"),
    (r"fc2", "feed_forward.output_dense"),
)


def head_names() -> set[str]:
    """Every weight of the head, as upstream names it."""
    linear = {"conv", "linear", "pooling.linear1", "pooling.linear2", "layer1.conv"}
    norms = {"bn", "layer1.bn"}
    for layer in ("layer2", "layer3", "layer4"):
        linear |= {f"{layer}.SE_Connect.linear{i}" for i in (1, 2)}
        linear |= {f"{layer}.Conv1dReluBn{i}.conv" for i in (1, 2)}
        norms |= {f"{layer}.Conv1dReluBn{i}.bn" for i in (1, 2)}
        linear |= {f"{layer}.Res2Conv1dReluBn.convs.{i}" for i in range(SLICES - 1)}
        norms |= {f"{layer}.Res2Conv1dReluBn.bns.{i}" for i in range(SLICES - 1)}
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {f"{name}.{leaf}" for name in norms for leaf in leaves}
    return names | {f"{name}.{leaf}" for name in linear for leaf in leaves[:2]} | {"feature_weight"}


def build_backbone(weights: dict[str, Tensor]) -> tuple[WavLMModel, list[str], list[str]]:
    """WavLM of the layer-norm kind (Large) from fairseq's names; also keys missing and surplus."""
    size = {name: values.shape for name, values in weights.items()}
    convs = [size[n] for n in sorted(size) if re.fullmatch(r".*conv_layers\.\d\.0\.weight", n)]
    buckets, heads = size["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    hidden, group, positions = size["encoder.pos_conv.0.weight_v"]
    config = WavLMConfig(
        hidden_size=hidden,
        num_hidden_layers=sum(name.endswith(".fc1.weight") for name in size),
        num_attention_heads=heads,
        intermediate_size=size["encoder.layers.0.fc1.weight"][0],
        conv_dim=tuple(shape[0] for shape in convs),
        conv_kernel=tuple(shape[2] for shape in convs),
        num_conv_pos_embeddings=positions,
        num_conv_pos_embedding_groups=hidden // group,
        num_buckets=buckets,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    renamed = {}
    for name, values in weights.items():
        for pattern, replacement in FAIRSEQ_TO_TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        renamed[name] = values
    backbone = WavLMModel(config).eval()
    return backbone, *backbone.load_state_dict(renamed, strict=False)


class WavLMSimilarity:
    """Embeddings of WavLM-TDNN, one clip at a time."""

    def __init__(self, path: Path) -> None:
        """Load `wavlm_large_finetune.pth`; raises JudgeError for a key too few or too many.

        Upstream loads with strict=False, which hides a head left untrained.
        """
        self.device = default_device()
        weights = torch.load(path, map_location=self.device, weights_only=True)["model"]
        inner = {n.removeprefix(BACKBONE): w for n, w in weights.items() if n.startswith(BACKBONE)}
        self.head = {n: w for n, w in weights.items() if not n.startswith(BACKBONE)}
        self.backbone, missing, surplus = build_backbone(inner)
        self.backbone.to(self.device)
        missing += sorted(head_names() - self.head.keys())
        surplus += sorted(self.head.keys() - head_names())
        surplus = [name for name in surplus if not SURPLUS.fullmatch(name)]
        if missing or surplus:
            raise JudgeError(f"{path}: missing {missing[:5]}, not understood {surplus[:5]}")
        self.id = f"wavlm-tdnn {path.name}"

    def embed(self, audio: Sequence[np.ndarray], progress: str | None = None) -> np.ndarray:
        """Unit vectors [clips, 256]. Raises JudgeError for empty or non-finite clips."""
        return unit(np.stack(each(self._embed, audio, progress)))

    @torch.inference_mode()
    def _embed(self, clip: np.ndarray) -> np.ndarray:
        """Embedding [D] of samples [N], padded to the two frames that the norm needs."""
        wave = F.pad(torch.from_numpy(clip), (0, max(0, 720 - len(clip))))[None].to(self.device)
        share = torch.softmax(self.head["feature_weight"], dim=0)[:, None, None, None]
        x = F.instance_norm((share * self.hidden_states(wave)).sum(dim=0).transpose(1, 2) + 1e-6)
        x = self._conv(x, "layer1.conv", "layer1.bn")
        out2 = self._block(x, "layer2.", 2)
        out3 = self._block(out2, "layer3.", 3)
        x = torch.cat([out2, out3, self._block(out3, "layer4.", 4)], dim=1)
        x = F.relu(self._linear(x, "conv"))
        weight = self._linear(torch.tanh(self._linear(x, "pooling.linear1")), "pooling.linear2")
        weight = torch.softmax(weight, dim=2)
        mean = (weight * x).sum(dim=2)
        variance = (weight * x.square()).sum(dim=2) - mean.square()
        x = torch.cat([mean, variance.clamp_min(1e-9).sqrt()], dim=1)
        return self._linear(self._norm(x, "bn"), "linear")[0].cpu().numpy()

    def hidden_states(self, wave: Tensor) -> Tensor:
        """What enters each layer of WavLM and, normalised, what leaves the last: [L + 1, 1, T, C].

        s3prl's expert layer-normalises the waveform [1, N] for WavLM-Large, and takes these states.
        """
        wave = F.layer_norm(wave, wave.shape[-1:])
        x = self.backbone.feature_extractor(wave).transpose(1, 2)
        x, _ = self.backbone.feature_projection(x)
        encoder, bias, states = self.backbone.encoder, None, []
        x = x + encoder.pos_conv_embed(x)
        for layer in encoder.layers:
            states.append(x)
            x, bias = layer(x, position_bias=bias)
        return torch.stack([*states, encoder.layer_norm(x)])

    def _block(self, x: Tensor, name: str, dilation: int) -> Tensor:
        """One SE-Res2 block on [1, C, T]."""
        inner = f"{name}Res2Conv1dReluBn."
        y = self._conv(x, f"{name}Conv1dReluBn1.conv", f"{name}Conv1dReluBn1.bn")
        *slices, last = y.chunk(SLICES, dim=1)
        done = [torch.zeros_like(last)]
        for i, part in enumerate(slices):
            done.append(
                self._conv(done[-1] + part, f"{inner}convs.{i}", f"{inner}bns.{i}", dilation)
            )
        y = torch.cat([*done[1:], last], dim=1)
        y = self._conv(y, f"{name}Conv1dReluBn2.conv", f"{name}Conv1dReluBn2.bn")
        gate = F.relu(self._linear(y.mean(dim=2), f"{name}SE_Connect.linear1"))
        return x + y * torch.sigmoid(self._linear(gate, f"{name}SE_Connect.linear2"))[:, :, None]

    def _conv(self, x: Tensor, conv: str, norm: str, dilation: int = 1) -> Tensor:
        """Convolution, ReLU, then batch norm, in this order, at the same length."""
        weight, bias = self.head[f"{conv}.weight"], self.head[f"{conv}.bias"]
        padding = dilation * (weight.shape[2] // 2)
        return self._norm(F.relu(F.conv1d(x, weight, bias, 1, padding, dilation)), norm)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.head[f"{name}.weight"], self.head[f"{name}.bias"]
        return F.linear(x, weight, bias) if weight.ndim == 2 else F.conv1d(x, weight, bias)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        leaves = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.head[f"{name}.{leaf}"] for leaf in leaves))
