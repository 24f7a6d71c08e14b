"""Phi-3, 3.5 and 4: a Llama whose file has queries, keys and values as one matrix, and gate and up as another.

The small ones turn only a part of each head, and have LongRoPE.
"""

from __future__ import annotations

from dataclasses import replace

from sgl_like.runtime.models import llama
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.decoder import Decoder
from sgl_like.runtime.models.layers import GATED_ACTIVATIONS, Attention, Block, GatedMLP, RmsNorm
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.weights import WeightSource


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config."""
    section = fields.section("rope_parameters", "rope_scaling")
    share = section.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    if share > 1:
        raise fields.error("partial_rotary_factor", f"must be at most 1, not {share}")
    config = llama.read(fields.with_defaults({"rms_norm_eps": 1e-5}), rotary_share=share)
    return replace(config, windows=(fields.optional_integer("sliding_window"),) * config.layers)


def build(config: ModelConfig, weights: WeightSource) -> Decoder:
    """``Phi3ForCausalLM``."""
    c, hidden = config, config.hidden_size

    def norm(name: str) -> RmsNorm:
        return RmsNorm(weights.get(f"{name}.weight", (hidden,)), c.norm_eps)

    def block(index: int) -> Block:
        at, q = f"model.layers.{index}.", c.heads * c.head_dim
        qkv = weights.linear({f"{at}self_attn.qkv_proj": q + 2 * c.kv_heads * c.head_dim}, hidden)
        return Block(
            attention_norm=norm(f"{at}input_layernorm"),
            attention=Attention(c, index, qkv, weights.linear({f"{at}self_attn.o_proj": hidden}, q)),
            mlp_norm=norm(f"{at}post_attention_layernorm"),
            mlp=GatedMLP(
                gate_up=weights.linear({f"{at}mlp.gate_up_proj": 2 * c.intermediate_size}, hidden),
                down=weights.linear({f"{at}mlp.down_proj": hidden}, c.intermediate_size),
                activation=GATED_ACTIVATIONS[c.activation],
            ),
        )

    embed, head = llama.load_vocabulary(config, weights, "model.embed_tokens")
    return Decoder(
        config=c,
        dtype=weights.dtype,
        device=weights.device,
        embed=embed,
        blocks=[block(index) for index in range(c.layers)],
        norm=norm("model.norm"),
        head=head,
    )
