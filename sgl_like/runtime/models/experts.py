"""Loading mixtures of experts, as all families write them."""

from __future__ import annotations

from sgl_like.runtime.models.layers import MixtureOfExperts
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
    return MixtureOfExperts(
        router=weights.get(f"{at}gate.weight", (experts.count, hidden)),
        experts=[
            gated_mlp(config, weights, f"{at}experts.{i}.", experts.intermediate_size, names)
            for i in range(experts.count)
        ],
        active=experts.active,
        normalize=experts.normalize,
        shared=gated_mlp(config, weights, f"{at}shared_expert.", shared) if shared else None,
        shared_gate=weights.get(f"{at}shared_expert_gate.weight", (1, hidden)) if shared else None,
    )
