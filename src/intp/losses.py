"""The preference losses of Section 4 as pure functions of tensors: B samples, T positions.

Three scores of one sample (a log-probability, minus a flow-matching error, a masked
log-probability), and one Bradley-Terry core on the ratio of policy and reference.
"""

from dataclasses import dataclass
from pkgutil import resolve_name

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100


def _reduce(values: Tensor, mask: Tensor, reduction: str) -> Tensor:
    """Sum or mean of values [B, ...] over the positions where mask [B, ...] holds: [B]."""
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction: expected 'sum' or 'mean', got {reduction!r}")
    weights = mask.to(values.dtype)
    total = torch.where(mask.bool(), values, 0).flatten(1).sum(1)
    return total if reduction == "sum" else total / weights.flatten(1).sum(1).clamp_min(1)


def ar_logps(logits: Tensor, labels: Tensor, reduction: str = "sum") -> Tensor:
    """Sequence log-probability of an autoregressive model, the log p(y|x) of Eq. 3: [B].

    `logits` [B, T, V] at t predict `labels` [B, T] at t (no shift inside); labels of -100, the
    text, the prompt speech and the padding, do not count.
    """
    counted = labels != IGNORE
    logps = -F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
    return _reduce(logps, counted, reduction)


def flow_matching_error(
    velocity: Tensor, target: Tensor, mask: Tensor, reduction: str = "mean"
) -> Tensor:
    """Squared error of the velocity on the target frames, the norm of Eqs. 4 and 7: [B].

    `velocity` and `target` y_1 - y_0 [B, T, C]; `mask` [B, T] holds on target frames, not on the
    reference speech nor on padding. "mean" is over frames and bands; the paper leaves it open.
    """
    error = (velocity - target) ** 2
    return _reduce(error, mask[..., None].expand_as(error), reduction)


def masked_logps(logits: Tensor, tokens: Tensor, mask: Tensor, reduction: str = "sum") -> Tensor:
    """Log-probability of the masked tokens given the others, the sum of Eqs. 8 and 9: [B].

    `logits` [B, T, V], `tokens` [B, T]; `mask` [B, T] holds where a token was masked (Section 4.3
    says "unmasked"; Eq. 8 weighs the masked ones).
    """
    logps = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return _reduce(logps, mask, reduction)


@dataclass(frozen=True)
class PreferenceLoss:
    """What `preference_loss` returns: the loss (a scalar), the rest [B] and detached."""

    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor
    margin: Tensor
    accuracy: Tensor


def preference_loss(
    chosen_logratio: Tensor,
    rejected_logratio: Tensor,
    *,
    beta: float,
    kind: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    """The Bradley-Terry core shared by Eqs. 3, 6 and 9, and its variants by TRL's names.

    A logratio [B] is the policy's score minus the reference's, where the score is a log-probability
    or minus the flow-matching error. Eq. 7 as printed lost a parenthesis: beta multiplies the
    difference of both terms. `kind`: "sigmoid" (with `label_smoothing`, conservative DPO), "robust"
    (needs label_smoothing < 0.5), "ipo", "hinge", or your own as "module:function", called with both
    logratios and beta for losses [B]. Raises ValueError for anything else.
    """
    logits = chosen_logratio - rejected_logratio
    smooth = label_smoothing
    if not 0 <= smooth < 0.5:
        raise ValueError(f"label_smoothing: expected 0 <= x < 0.5, got {smooth}")
    if kind == "sigmoid":
        losses = -(1 - smooth) * F.logsigmoid(beta * logits) - smooth * F.logsigmoid(-beta * logits)
    elif kind == "robust":
        clean, flipped = F.logsigmoid(beta * logits), F.logsigmoid(-beta * logits)
        losses = (-(1 - smooth) * clean + smooth * flipped) / (1 - 2 * smooth)
    elif kind == "ipo":
        losses = (logits - 1 / (2 * beta)) ** 2
    elif kind == "hinge":
        losses = torch.relu(1 - beta * logits)
    elif ":" in kind:
        losses = resolve_name(kind)(chosen_logratio, rejected_logratio, beta)
    else:
        raise ValueError(f"kind: no sigmoid, robust, ipo, hinge or module:function: {kind!r}")
    chosen, rejected = beta * chosen_logratio.detach(), beta * rejected_logratio.detach()
    margin = chosen - rejected
    return PreferenceLoss(losses.mean(), chosen, rejected, margin, (margin > 0).to(margin.dtype))
