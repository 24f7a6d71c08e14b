"""Loading mixtures of experts, as all families write them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.linear import DenseLinear
from sgl_like.runtime.models.layers import GatedMLP, MixtureOfExperts, StackedExperts
from sgl_like.runtime.models.llama import gated_mlp
from sgl_like.runtime.models.model_config import ExpertsConfig, ModelConfig
from sgl_like.runtime.models.weights import WeightSource


def load_experts(
    config: ModelConfig,
    experts: ExpertsConfig,
    weights: WeightSource,
    at: str,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> MixtureOfExperts:
    """Router, experts and shared expert under the prefix `at`; each expert's matrices have these `names`.

    The router is never quantised: it is small, and a wrong choice of experts costs much.
    """
    hidden, shared = config.hidden_size, experts.shared_size
    each = [
        gated_mlp(config, weights, f"{at}experts.{i}.", experts.intermediate_size, names)
        for i in range(experts.count)
    ]
    return MixtureOfExperts(
        router=weights.get(f"{at}gate.weight", (experts.count, hidden)),
        experts=stacked(each) if by_triton(weights.device) else each,
        active=experts.active,
        normalize=experts.normalize,
        shared=gated_mlp(config, weights, f"{at}shared_expert.", shared) if shared else None,
        shared_gate=weights.get(f"{at}shared_expert_gate.weight", (1, hidden)) if shared else None,
    )


def stacked(experts: Sequence[GatedMLP]) -> StackedExperts | Sequence[GatedMLP]:
    """Experts whose matrices are plain and without biases as two stacks; others as they are."""
    gates, downs = [each.gate_up for each in experts], [each.down for each in experts]
    plain = [each for each in (*gates, *downs) if isinstance(each, DenseLinear) and each.bias is None]
    if len(plain) < 2 * len(experts):
        return experts
    weights = [each.weight for each in plain]
    return StackedExperts(
        torch.stack(weights[: len(experts)]), torch.stack(weights[len(experts) :]), experts[0].activation
    )
