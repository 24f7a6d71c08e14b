"""Mistral: a Llama whose tokens may see only a window."""

from __future__ import annotations

from dataclasses import replace

from sgl_like.runtime.models import llama
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.model_config import ModelConfig

build = llama.build


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config."""
    config = llama.read(fields)
    return replace(config, windows=(fields.optional_integer("sliding_window", 4096),) * config.layers)
