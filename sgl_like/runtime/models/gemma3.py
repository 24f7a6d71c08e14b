"""Gemma 3, its text model: a Gemma 2 that normalises queries and keys instead of capping their scores. Of six layers
five have a window, and rotary angles of their own.
"""

from __future__ import annotations

from dataclasses import replace

from sgl_like.runtime.models import gemma2
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.decoder import Decoder
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.rope import read_rope
from sgl_like.runtime.models.weights import WeightSource

DEFAULTS = {
    **gemma2.DEFAULTS,
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}
ROOTS = ("model.", "language_model.model.", "model.language_model.")
"""What the names of the text model's tensors begin with: alone, and beside an image encoder (in two spellings)."""


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config, or the text model's part of one."""
    if "text_config" in fields:
        fields = fields.section("text_config").with_defaults(fields.subset("dtype", "torch_dtype"))
    fields = fields.with_defaults(DEFAULTS)
    if fields.value("attn_logit_softcapping", None) is not None:
        raise fields.error(
            "attn_logit_softcapping", "is not supported: Gemma 3 normalises queries and keys instead"
        )
    section = fields.section("rope_parameters", "rope_scaling")
    if "full_attention" in section:
        whole, local = section.section("full_attention"), section.section("sliding_attention")
    else:
        whole, local = section, ConfigFields({}, "")
    config = gemma2.read_common(fields.without("rope_parameters", "rope_scaling"))
    window = fields.optional_integer("sliding_window", 4096)
    period = fields.integer("sliding_window_pattern", 6)
    context, turned = config.max_position, config.head_dim
    global_theta, local_theta = fields.number("rope_theta", 1e6), fields.number("rope_local_base_freq", 1e4)
    return replace(
        config,
        windows=fields.windows(config.layers, window, lambda layer: (layer + 1) % period != 0),
        final_softcap=fields.optional_number("final_logit_softcapping"),
        qk_norm=True,
        rope=read_rope(fields, whole, turned, context, global_theta),
        local_rope=read_rope(fields, local, turned, context, local_theta),
    )


def build(config: ModelConfig, weights: WeightSource) -> Decoder:
    """``Gemma3ForCausalLM``, and the text model of ``Gemma3ForConditionalGeneration``."""
    return gemma2.build(config, weights, weights.first_root(ROOTS, "embed_tokens.weight"))
