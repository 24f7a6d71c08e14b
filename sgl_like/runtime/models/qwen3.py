"""Qwen3: a Llama that normalises the queries and keys of each head."""

from __future__ import annotations

from dataclasses import replace

from sgl_like.runtime.models import llama, qwen2
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.model_config import ModelConfig

build = llama.build


def read(fields: ConfigFields) -> ModelConfig:
    """Read a config."""
    config = llama.read(fields.with_defaults({"head_dim": 128}))
    return replace(config, qk_norm=True, windows=qwen2.read_windows(fields, config.layers))
