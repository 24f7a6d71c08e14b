"""A model's shape, read from the ``config.json`` of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgl_like.errors import ModelLoadError


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama 3's frequency scaling: long wavelengths are stretched by `factor`, short ones kept."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder of Llama's architecture."""

    architecture: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    rope_linear_factor: float
    max_position: int
    tied_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    dtype: str

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ModelConfig:
        """From the parsed ``config.json``, of old (``rope_theta``) and new (``rope_parameters``) spelling.

        Raises:
            ModelLoadError: a field is missing, senseless, or asks for something not supported.
        """
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            rope = _rope(config)
            made = cls(
                architecture=str((config.get("architectures") or ["?"])[0]),
                vocab_size=int(config["vocab_size"]),
                hidden_size=hidden,
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                intermediate_size=int(config["intermediate_size"]),
                norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                rope_theta=float(rope.get("rope_theta", 10_000.0)),
                rope_scaling=_llama3_scaling(rope),
                rope_linear_factor=float(rope["factor"]) if rope["rope_type"] == "linear" else 1.0,
                max_position=int(config.get("max_position_embeddings", 2048)),
                tied_embeddings=bool(config.get("tie_word_embeddings", False)),
                attention_bias=bool(config.get("attention_bias", False)),
                mlp_bias=bool(config.get("mlp_bias", False)),
                dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
            )
        except KeyError as error:
            raise ModelLoadError(f"config.json: {error.args[0]!r} is missing") from error
        except (TypeError, ValueError) as error:
            raise ModelLoadError(f"config.json: {error}") from error
        made._check(config)
        return made

    def _check(self, config: Mapping[str, Any]) -> None:
        if self.heads % self.kv_heads:
            raise ModelLoadError(
                f"config.json: {self.heads} heads cannot be shared by {self.kv_heads} key-value heads"
            )
        if self.head_dim % 2:
            raise ModelLoadError(
                f"config.json: head_dim {self.head_dim} is odd; rotary embedding needs pairs"
            )
        if config.get("hidden_act", "silu") != "silu":
            raise ModelLoadError(
                f"config.json: hidden_act {config['hidden_act']!r} is not supported; silu is"
            )


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    if rope["rope_type"] not in ("default", "llama3", "linear"):
        raise ModelLoadError(
            f"config.json: rope type {rope['rope_type']!r} is not supported; default, linear and llama3 are"
        )
    return rope


def _llama3_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    if rope["rope_type"] != "llama3":
        return None
    return RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_position=int(rope["original_max_position_embeddings"]),
    )
