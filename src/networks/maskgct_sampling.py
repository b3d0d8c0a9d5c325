"""MaskGCT's iterative decoding: all tokens at once, the least sure ones masked again, step by step.

Facts from upstream (Amphion `MaskGCT_T2S.reverse_diffusion`): top-k, then temperature * t and Gumbel
noise pick a token; what stays is decided by its probability among the k plus t * Gumbel noise;
sin(pi t / 2) of the tokens stay masked; guidance acts on hidden states, against a pass without text
and reference whose positions restart at 0. Ours: each row has its own random numbers, lengths and
deviation in the rescaling, so that batch mates change nothing.

B samples, P phonemes, R reference tokens, N target tokens, V codes, H = hidden_size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from networks.maskgct import MaskGCT_T2S

TINY = 1e-10
LEAST_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Unmasking:
    """Settings, as published: `cfg` is guidance's strength, `rescale` how far its deviation is undone."""

    steps: int = 25
    cfg: float = 2.5
    rescale: float = 0.75
    temperature: float = 0.9
    top_k: int = 164


def masked_share(time: Tensor) -> Tensor:
    """The schedule sin(pi t / 2): the share of tokens that is masked at time t in [0, 1]."""
    return torch.sin(time * math.pi / 2)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise from uniform draws, guarded as upstream guards it."""
    return -torch.log(-torch.log(uniform + TINY) + TINY)


@torch.inference_mode()
def unmask(
    model: MaskGCT_T2S,
    inputs: dict[str, Tensor],
    target_mask: Tensor,
    generators: Sequence[torch.Generator],
    settings: Unmasking,
) -> Tensor:
    """Target tokens [B, N] for the rows of `inputs`, the arguments of `MaskGCT_T2S.forward`.

    The last N tokens of each row are the target, valid where `target_mask` [B, N]; what `token_ids`
    holds there is not read. Row i draws from generator i (on the CPU) alone.
    """
    lengths, masked = target_mask.sum(1), target_mask
    width = target_mask.shape[1]
    ids = torch.zeros_like(target_mask, dtype=torch.long)
    reference = inputs["token_ids"][:, :-width]
    shown = torch.zeros_like(reference, dtype=torch.bool)
    for step in range(settings.steps):
        now = 1 - step / settings.steps
        state = {
            "token_ids": torch.cat([reference, ids], 1),
            "mask": torch.cat([shown, masked], 1),
            "time": torch.full((len(ids),), now, device=ids.device),
        }
        logits = model.to_logit(_guided(model, inputs | state, target_mask, settings))
        greedy = step == settings.steps - 1
        drawn, sureness = _draw(logits, lengths, generators, now, greedy, settings)
        ids = torch.where(masked, drawn, ids)
        share = masked_share(torch.tensor(1 - (step + 1) / settings.steps))
        remaining = (share * lengths).long()
        if not remaining.any():
            break
        order = sureness.masked_fill(~masked, torch.inf).argsort(1)
        masked = order.argsort(1) < remaining[:, None]
    return ids


def _guided(
    model: MaskGCT_T2S, inputs: dict[str, Tensor], target_mask: Tensor, settings: Unmasking
) -> Tensor:
    """Hidden states [B, N, H] of the target under classifier-free guidance."""
    width = target_mask.shape[1]
    hidden = model.hidden(**inputs)[:, -width:]
    if settings.cfg == 0:
        return hidden
    null = model.hidden(
        token_ids=inputs["token_ids"][:, -width:],
        token_mask=target_mask,
        mask=inputs["mask"][:, -width:],
        time=inputs["time"],
        phone_ids=inputs["phone_ids"][:, :0],
        phone_mask=inputs["phone_mask"][:, :0],
    )
    guided = hidden + settings.cfg * (hidden - null)
    rescaled = guided * (_deviation(hidden, target_mask) / _deviation(guided, target_mask))
    return settings.rescale * rescaled + (1 - settings.rescale) * guided


def _deviation(x: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation [B, 1, 1] of each row of x [B, N, H] over its valid positions."""
    weight = mask[..., None].to(x.dtype)
    count = weight.sum((1, 2), keepdim=True) * x.shape[2]
    mean = (x * weight).sum((1, 2), keepdim=True) / count
    return (((x - mean) ** 2 * weight).sum((1, 2), keepdim=True) / (count - 1)).sqrt()


def _draw(
    logits: Tensor,
    lengths: Tensor,
    generators: Sequence[torch.Generator],
    now: float,
    greedy: bool,
    settings: Unmasking,
) -> tuple[Tensor, Tensor]:
    """A token for every position of logits [B, N, V] and how sure it is, both [B, N].

    Noise is drawn over all V codes and used at the k that count, in upstream's order.
    """
    values, codes = logits.float().topk(min(settings.top_k, logits.shape[2]), dim=-1)
    choice, order = [], []
    for row, generator in enumerate(generators):
        count = int(lengths[row])
        if not greedy:
            noise = torch.rand(count, logits.shape[2], generator=generator)
            choice.append(noise.gather(1, codes[row, :count].cpu()))
        order.append(torch.rand(count, generator=generator))
    scaled = values
    if not greedy:
        temperature = max(settings.temperature * now, LEAST_TEMPERATURE)
        noise = pad_sequence(choice, batch_first=True, padding_value=0.5).to(logits.device)
        scaled = values / temperature + gumbel(noise)
    best = scaled.argmax(-1, keepdim=True)
    probability = values.softmax(-1).gather(2, best).squeeze(2)
    doubt = pad_sequence(order, batch_first=True, padding_value=0.5).to(logits.device)
    return codes.gather(2, best).squeeze(2), now * gumbel(doubt) + probability
