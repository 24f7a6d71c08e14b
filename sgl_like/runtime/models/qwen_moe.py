"""Qwen2-MoE, a Qwen2 with mixtures of experts and an expert that all tokens go to, and Qwen3-MoE, a Qwen3 with
mixtures alone. Some layers may have plain MLPs.
"""

from __future__ import annotations

from dataclasses import replace

from sgl_like.runtime.models import llama, qwen2
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.decoder import Decoder
from sgl_like.runtime.models.experts import load_experts
from sgl_like.runtime.models.layers import Layer
from sgl_like.runtime.models.model_config import ExpertsConfig, ModelConfig
from sgl_like.runtime.models.weights import WeightSource


def read_qwen2(fields: ConfigFields) -> ModelConfig:
    """Read a config of ``Qwen2MoeForCausalLM``."""
    config = llama.read(fields)
    window, lowest = qwen2.read_window(fields), fields.integer("max_window_layers", 28, least=0)
    windows = fields.windows(config.layers, window, lambda layer: layer % 2 == 0 and layer < lowest)
    experts = _read_experts(fields, config.layers, count=60, active=4, width=1408)
    experts = replace(experts, shared_size=fields.integer("shared_expert_intermediate_size", 5632))
    bias = fields.flag("qkv_bias", True)
    return replace(config, qkv_bias=bias, output_bias=False, windows=windows, experts=experts)


def read_qwen3(fields: ConfigFields) -> ModelConfig:
    """Read a config of ``Qwen3MoeForCausalLM``."""
    config = llama.read(fields)
    windows = (qwen2.read_window(fields),) * config.layers
    experts = _read_experts(fields, config.layers, count=128, active=8, width=768)
    return replace(config, qk_norm=True, windows=windows, experts=experts)


def build(config: ModelConfig, weights: WeightSource) -> Decoder:
    """``Qwen2MoeForCausalLM`` and ``Qwen3MoeForCausalLM``."""
    return llama.build_with(config, weights, _load_mlp)


def _load_mlp(config: ModelConfig, weights: WeightSource, at: str, index: int) -> Layer:
    if config.experts is None or index not in config.experts.layers:
        return llama.load_gated_mlp(config, weights, at, index)
    return load_experts(config, config.experts, weights, f"{at}mlp.")


def _read_experts(fields: ConfigFields, layers: int, count: int, active: int, width: int) -> ExpertsConfig:
    step, plain = fields.integer("decoder_sparse_step", 1), fields.indices("mlp_only_layers")
    return ExpertsConfig(
        layers=frozenset(i for i in range(layers) if i not in plain and (i + 1) % step == 0),
        count=fields.integer("num_experts", fields.value("num_local_experts", count)),  # both are written
        active=fields.integer("num_experts_per_tok", active),
        intermediate_size=fields.integer("moe_intermediate_size", width),
        normalize=fields.flag("norm_topk_prob"),
    )
