"""Muon for the layers' matrices, AdamW for the rest, and an average of the weights.

Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/) orthogonalises the momentum with five
Newton-Schulz steps; updates are scaled by 0.2 * sqrt(longer side) so that one learning rate fits both
optimizers (Liu et al. 2025, arXiv:2502.16982).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(batch: Tensor, steps: int = 5) -> Tensor:
    """Nearly the orthogonal factor of every matrix, in bfloat16.  # [count, rows, columns]"""
    a, b, c = NEWTON_SCHULZ
    x: Tensor = batch.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-2, -1) if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum 0.95 (Nesterov), orthogonalised in stacks of equal shape, decoupled weight decay."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            stacks: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                stacks[parameter.shape].append(parameter)
            for shape, parameters in stacks.items():
                moved = []
                for parameter in parameters:
                    gradient = parameter.grad
                    assert gradient is not None, "every matrix takes part in the loss"
                    buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    buffer.lerp_(gradient, 1 - group["momentum"])
                    moved.append(gradient.lerp(buffer, group["momentum"]))
                scale = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, orthogonalize(torch.stack(moved)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.to(parameter.dtype), alpha=-scale)


def make_optimizers(model: nn.Module, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the two-dimensional weights inside the layers, AdamW for embedding and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    embedding = [p for name, p in model.named_parameters() if "embed" in name]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": embedding, "weight_decay": weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return [Muon(matrices, lr, weight_decay), torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)]


class Average:
    """Exponential moving average of the weights, with a short memory at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights = {name: p.detach().clone() for name, p in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the current weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, p in model.state_dict().items():
            self.weights[name].lerp_(p, 1 - decay)
