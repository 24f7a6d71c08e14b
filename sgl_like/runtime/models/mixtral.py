"""Mixtral: a Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from dataclasses import replace

from sgl_like.runtime.models import llama
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.decoder import Decoder
from sgl_like.runtime.models.experts import load_experts
from sgl_like.runtime.models.layers import Layer
from sgl_like.runtime.models.model_config import ExpertsConfig, ModelConfig
from sgl_like.runtime.models.weights import WeightSource


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config."""
    config = llama.read(fields.with_defaults({"rms_norm_eps": 1e-5, "rope_theta": 1e6}))
    experts = ExpertsConfig(
        layers=frozenset(range(config.layers)),
        count=fields.integer("num_local_experts", 8),
        active=fields.integer("num_experts_per_tok", 2),
        intermediate_size=config.intermediate_size,
        normalize=True,
    )
    windows = (fields.optional_integer("sliding_window"),) * config.layers
    return replace(config, windows=windows, experts=experts)


def build(config: ModelConfig, weights: WeightSource) -> Decoder:
    """``MixtralForCausalLM``."""
    return llama.build_with(config, weights, _load_experts)


def _load_experts(config: ModelConfig, weights: WeightSource, at: str, index: int) -> Layer:
    assert config.experts is not None
    return load_experts(config, config.experts, weights, f"{at}block_sparse_moe.", ("w1", "w3", "w2"))
