"""Llama 1 to 3: RMS norms before attention and a SwiGLU MLP. Most families are this with something changed.

Query, key and value are one matmul, gate and up another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.nn import functional

from sgl_like.kernels.linear import Linear
from sgl_like.kernels.rotary import HeadNorms
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.decoder import Decoder, Embed
from sgl_like.runtime.models.layers import GATED_ACTIVATIONS, Attention, Block, GatedMLP, Layer, RmsNorm
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.rope import read_rope
from sgl_like.runtime.models.weights import WeightSource

ACTIVATION_NAMES = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
MOST_LAYERS = 10_000  # what is more is no model
LoadMLP = Callable[[ModelConfig, WeightSource, str, int], Layer]
"""Loads the MLP of a layer: config, weights, the layer's prefix in their names, and its number."""


def read(fields: ConfigFields, rotary_share: float = 1.0) -> ModelConfig:
    """Read a config in Llama's words.

    Args:
        fields: the config.
        rotary_share: part of each head that is turned.
    """
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    layers = fields.integer("num_hidden_layers", most=MOST_LAYERS)
    head_dim = fields.integer("head_dim", max(hidden // heads, 1))
    context = fields.integer("max_position_embeddings", 2048)
    section = fields.section("rope_parameters", "rope_scaling")
    bias = fields.flag("attention_bias")
    theta = fields.number("rope_theta", 10_000.0)
    return ModelConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate_size=fields.integer("intermediate_size"),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        activation=fields.one_of("hidden_act", ACTIVATION_NAMES, "silu"),
        max_position=context,
        windows=(None,) * layers,
        attention_scale=head_dim**-0.5,
        rope=read_rope(fields, section, int(head_dim * rotary_share), context, theta),
        tied_embeddings=fields.flag("tie_word_embeddings"),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=fields.flag("mlp_bias"),
        dtype=fields.text("dtype", fields.text("torch_dtype", "float32")),
    )


def build(config: ModelConfig, weights: WeightSource) -> Decoder:
    """``LlamaForCausalLM`` and what differs from it in its config alone."""
    return build_with(config, weights, load_gated_mlp)


def build_with(config: ModelConfig, weights: WeightSource, load_mlp: LoadMLP) -> Decoder:
    """A Llama with MLPs of another kind."""

    def norm(name: str, size: int = config.hidden_size) -> RmsNorm:
        return RmsNorm(weights.get(f"{name}.weight", (size,)), config.norm_eps)

    def block(index: int) -> Block:
        at = f"model.layers.{index}."
        return Block(
            attention_norm=norm(f"{at}input_layernorm"),
            attention=load_attention(config, weights, f"{at}self_attn.", index, norm),
            mlp_norm=norm(f"{at}post_attention_layernorm"),
            mlp=load_mlp(config, weights, at, index),
        )

    embed, head = load_vocabulary(config, weights, "model.embed_tokens")
    return Decoder(
        config=config,
        dtype=weights.dtype,
        device=weights.device,
        embed=embed,
        blocks=[block(index) for index in range(config.layers)],
        norm=norm("model.norm"),
        head=head,
    )


def load_vocabulary(config: ModelConfig, weights: WeightSource, name: str) -> tuple[Embed, Linear]:
    """The embedding called `name`, and the head, which is the same matrix in memory where they are tied."""
    if config.tied_embeddings:
        head = weights.linear({name: config.vocab_size}, config.hidden_size, sensitive=True)
        return head.weight_rows, head
    table = weights.get(f"{name}.weight", (config.vocab_size, config.hidden_size))
    head = weights.linear({"lm_head": config.vocab_size}, config.hidden_size, sensitive=True)
    return partial(functional.embedding, weight=table), head


def load_attention(
    config: ModelConfig, weights: WeightSource, at: str, index: int, norm: Callable[[str, int], RmsNorm]
) -> Attention:
    """The attention of a layer, whose matrices are ``q_proj``, ``k_proj``, ``v_proj`` and ``o_proj`` under `at`."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    heads = {f"{at}{name}_proj": size for name, size in (("q", q), ("k", kv), ("v", kv))}
    head_norms = None
    if config.qk_norm:
        queries, keys = (norm(f"{at}{name}_norm", config.head_dim).weight for name in ("q", "k"))
        head_norms = HeadNorms(queries, keys, config.norm_eps)
    return Attention(
        config=config,
        index=index,
        qkv=weights.linear(heads, config.hidden_size, config.qkv_bias),
        output=weights.linear({f"{at}o_proj": config.hidden_size}, q, config.output_bias),
        head_norms=head_norms,
    )


def load_gated_mlp(config: ModelConfig, weights: WeightSource, at: str, index: int) -> Layer:
    """The MLP of a layer."""
    return gated_mlp(config, weights, f"{at}mlp.", config.intermediate_size)


def gated_mlp(
    config: ModelConfig,
    weights: WeightSource,
    at: str,
    width: int,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> GatedMLP:
    """An MLP of some width, whose matrices have these `names` under the prefix `at`."""
    gate, up, down = (at + name for name in names)
    return GatedMLP(
        gate_up=weights.linear({gate: width, up: width}, config.hidden_size, config.mlp_bias),
        down=weights.linear({down: config.hidden_size}, width, config.mlp_bias),
        activation=GATED_ACTIVATIONS[config.activation],
    )
