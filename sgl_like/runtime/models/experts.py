"""Loading mixtures of experts, as all families write them."""

from __future__ import annotations

from collections.abc import Sequence

from sgl_like.kernels.device_linear import Int4DeviceLinear, RoundedLinear
from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.grouped import stack
from sgl_like.kernels.linear import DenseLinear
from sgl_like.runtime.models.layers import GatedMLP, MixtureOfExperts, StackedExperts
from sgl_like.runtime.models.llama import gated_mlp
from sgl_like.runtime.models.model_config import ExpertsConfig, ModelConfig
from sgl_like.runtime.models.weights import WeightSource

DEVICE_LINEARS = (DenseLinear, RoundedLinear, Int4DeviceLinear)
"""What `make_linear` makes for GPUs."""


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
    """Experts as two stacks of matrices; as they are if they have biases."""
    plain = [
        linear.weight
        for each in experts
        for linear in (each.gate_up, each.down)
        if isinstance(linear, DEVICE_LINEARS) and linear.bias is None
    ]
    if len(plain) < 2 * len(experts):
        return experts
    return StackedExperts(stack(plain[::2]), stack(plain[1::2]), len(experts), experts[0].activation)
