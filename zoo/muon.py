"""Muon for the matrices inside a transformer, in bfloat16 where the machine multiplies that.

The update is the momentum's nearest orthogonal matrix (Jordan et al. 2024), by the Newton-Schulz
polynomials of Polar Express (Amsel et al. 2025). `torch.optim.Muon` iterates in bfloat16 only,
which a CPU without it does a hundred times slower.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from intp.device import precision

OUTSIDE = ("embed", "head", "llm_decoder")  # tables of the vocabulary, by their names
POLYNOMIALS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Each of [N, R, C] with its singular values brought near 1."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16() if precision() == "bf16" else matrices
    x = x.mT if tall else x
    x = x / (1.02 * x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to the size that AdamW's update has."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One update; matrices of one shape go through the iteration together."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for shape, members in alike.items():
                for p in members:
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                ahead = [p.grad.lerp(self.state[p]["momentum"], group["momentum"]) for p in members]
                updates = orthogonalise(torch.stack(ahead)) * 0.2 * max(shape) ** 0.5
                for p, update in zip(members, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def optimizers(
    model: nn.Module, lr: float, weight_decay: float, kind: str
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or (`kind="muon"`) for all but the matrices inside the layers."""
    matrices = [
        p
        for name, p in model.named_parameters()
        if kind == "muon" and p.ndim == 2 and not any(part in name for part in OUTSIDE)
    ]
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    adamw = torch.optim.AdamW(rest, lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    return [adamw] + ([Muon(matrices, lr, weight_decay=weight_decay)] if matrices else [])
