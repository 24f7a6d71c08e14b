"""Gemma 2: norms before and after attention and MLP, whose weights are kept less 1; GeGLU; soft-capped scores and
logits; embeddings scaled by the root of their size; every other layer has a window.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sgl_like.runtime.models import llama
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.decoder import Decoder
from sgl_like.runtime.models.layers import Block, RmsNorm
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.weights import WeightSource

DEFAULTS = {"tie_word_embeddings": True, "head_dim": 256, "query_pre_attn_scalar": 256}


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config."""
    fields = fields.with_defaults(DEFAULTS)
    config = read_common(fields)
    window = fields.optional_integer("sliding_window", 4096)
    return replace(
        config,
        windows=fields.windows(config.layers, window, lambda layer: layer % 2 == 0),
        attention_softcap=fields.optional_number("attn_logit_softcapping", 50.0),
        final_softcap=fields.optional_number("final_logit_softcapping", 30.0),
    )


def read_common(fields: ConfigFields) -> ModelConfig:
    """What Gemma 2 and 3 have in common."""
    if fields.flag("use_bidirectional_attention"):
        raise fields.error("use_bidirectional_attention", "is not supported")
    activation = fields.one_of("hidden_activation", llama.ACTIVATION_NAMES, "gelu_pytorch_tanh")
    scale = fields.number("query_pre_attn_scalar") ** -0.5
    return replace(llama.read(fields), activation=activation, attention_scale=scale)


def build(config: ModelConfig, weights: WeightSource, root: str = "model.") -> Decoder:
    """``Gemma2ForCausalLM``; the names of all tensors begin with `root`."""

    def norm(name: str, size: int = config.hidden_size) -> RmsNorm:
        weight = weights.get(f"{name}.weight", (size,), torch.float32)
        return RmsNorm(weight + 1.0, config.norm_eps)

    def block(index: int) -> Block:
        at = f"{root}layers.{index}."
        return Block(
            attention_norm=norm(f"{at}input_layernorm"),
            attention=llama.load_attention(config, weights, f"{at}self_attn.", index, norm),
            attention_after=norm(f"{at}post_attention_layernorm"),
            mlp_norm=norm(f"{at}pre_feedforward_layernorm"),
            mlp=llama.load_gated_mlp(config, weights, at, index),
            mlp_after=norm(f"{at}post_feedforward_layernorm"),
        )

    embed, head = llama.load_vocabulary(config, weights, f"{root}embed_tokens")
    return Decoder(
        config=config,
        dtype=weights.dtype,
        device=weights.device,
        embed=embed,
        embedding_scale=config.hidden_size**0.5,
        blocks=[block(index) for index in range(config.layers)],
        norm=norm(f"{root}norm"),
        head=head,
    )
