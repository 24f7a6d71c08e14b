"""Qwen2 and 2.5: a Llama with biases on queries, keys and values; the upper layers may have a window."""

from __future__ import annotations

from dataclasses import replace

from sgl_like.runtime.models import llama
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.model_config import ModelConfig

build = llama.build


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config."""
    config = llama.read(fields)
    return replace(config, qkv_bias=True, output_bias=False, windows=read_windows(fields, config.layers))


def read_windows(fields: ConfigFields, layers: int) -> tuple[int | None, ...]:
    """The layers' windows, which ``use_sliding_window`` switches on."""
    lowest = fields.integer("max_window_layers", 28, least=0)
    return fields.windows(layers, read_window(fields), lambda layer: layer >= lowest)


def read_window(fields: ConfigFields) -> int | None:
    """The window, if it is switched on."""
    return fields.optional_integer("sliding_window", 4096) if fields.flag("use_sliding_window") else None
