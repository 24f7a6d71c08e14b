"""GPT-2: learned positions, layer norms, biases everywhere, a plain MLP, and weights kept transposed."""

from __future__ import annotations

from sgl_like.kernels.linear import Linear
from sgl_like.runtime.models import llama
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.decoder import Decoder
from sgl_like.runtime.models.layers import ACTIVATIONS, MLP, Attention, Block, LayerNorm
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.weights import WeightSource


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config."""
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if fields.flag(name):
            raise fields.error(name, "is not supported")
    heads, hidden = fields.integer("n_head"), fields.integer("n_embd")
    layers = fields.integer("n_layer", most=llama.MOST_LAYERS)
    if hidden % heads:
        raise fields.error("n_embd", f"must be a multiple of n_head, {heads}, not {hidden}")
    head_dim = hidden // heads
    return ModelConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate_size=fields.integer("n_inner", 4 * hidden),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        activation=fields.one_of("activation_function", llama.ACTIVATION_NAMES, "gelu_new"),
        max_position=fields.integer("n_positions", 1024),
        windows=(None,) * layers,
        attention_scale=head_dim**-0.5 if fields.flag("scale_attn_weights", True) else 1.0,
        rope=None,
        tied_embeddings=fields.flag("tie_word_embeddings", True),
        gated_mlp=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        dtype=fields.text("dtype", fields.text("torch_dtype", "float32")),
    )


def build(config: ModelConfig, weights: WeightSource) -> Decoder:
    """``GPT2LMHeadModel``, whose tensors may be named as in it or as in the ``GPT2Model`` inside."""
    c, hidden, wide = config, config.hidden_size, config.intermediate_size
    root = weights.first_root(("transformer.", ""), "wte.weight")

    def norm(name: str) -> LayerNorm:
        weight, bias = (weights.get(f"{name}.{part}", (hidden,)) for part in ("weight", "bias"))
        return LayerNorm(weight, bias, c.norm_eps)

    def linear(name: str, rows: int, columns: int) -> Linear:
        return weights.linear({name: rows}, columns, bias=True, transposed=True)

    def block(index: int) -> Block:
        at = f"{root}h.{index}."
        qkv, output = (
            linear(f"{at}attn.c_attn", 3 * hidden, hidden),
            linear(f"{at}attn.c_proj", hidden, hidden),
        )
        up, down = linear(f"{at}mlp.c_fc", wide, hidden), linear(f"{at}mlp.c_proj", hidden, wide)
        return Block(
            attention_norm=norm(f"{at}ln_1"),
            attention=Attention(c, index, qkv, output),
            mlp_norm=norm(f"{at}ln_2"),
            mlp=MLP(up, down, ACTIVATIONS[c.activation]),
        )

    embed, head = llama.load_vocabulary(config, weights, f"{root}wte")
    return Decoder(
        config=c,
        dtype=weights.dtype,
        device=weights.device,
        embed=embed,
        positions=weights.get(f"{root}wpe.weight", (c.max_position, hidden)),
        blocks=[block(index) for index in range(c.layers)],
        norm=norm(f"{root}ln_f"),
        head=head,
    )
