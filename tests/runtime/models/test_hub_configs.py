"""Configs as well-known models have them on the hub, against the sizes that their cards give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sgl_like.errors import ModelLoadError
from sgl_like.runtime.models.load import parameter_count, read_model_config

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.5] * 48}


def decoder(
    name: str,
    hidden: int,
    wide: int,
    layers: int,
    heads: tuple[int, int],
    vocab: int,
    context: int,
    **more: Any,
) -> dict[str, Any]:
    """The fields that most configs have; `heads` are query and key-value heads."""
    return {
        "architectures": [f"{name}ForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **more,
    }


# Name, config, billions of parameters, longest sequence, layers with a window.
MODELS: list[tuple[str, dict[str, Any], float, int, int]] = [
    (
        "Llama-3.1-8B",
        decoder("Llama", 4096, 14336, 32, (32, 8), 128256, 131072, rope_scaling=LLAMA3, rope_theta=5e5),
        8.03,
        131072,
        0,
    ),
    (
        "Mistral-7B-v0.1",
        decoder("Mistral", 4096, 14336, 32, (32, 8), 32000, 32768, sliding_window=4096),
        7.24,
        32768,
        32,
    ),
    (
        "Mistral-7B-v0.3",
        decoder("Mistral", 4096, 14336, 32, (32, 8), 32768, 32768, sliding_window=None),
        7.25,
        32768,
        0,
    ),
    (
        "Qwen2.5-7B",
        decoder(
            "Qwen2", 3584, 18944, 28, (28, 4), 152064, 131072,
            use_sliding_window=False, sliding_window=131072, max_window_layers=28,
        ),
        7.62,
        131072,
        0,
    ),
    (
        "Qwen3-0.6B",
        decoder(
            "Qwen3", 1024, 3072, 28, (16, 8), 151936, 40960,
            head_dim=128, tie_word_embeddings=True, use_sliding_window=False, sliding_window=None, rope_scaling=None,
        ),
        0.596,
        40960,
        0,
    ),
    (
        "gemma-2-2b",
        decoder(
            "Gemma2", 2304, 9216, 26, (8, 4), 256000, 8192,
            head_dim=256, sliding_window=4096, hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=256,
            tie_word_embeddings=None,
        ),
        2.61,
        8192,
        13,
    ),
    (
        "gemma-3-1b-it",
        decoder(
            "Gemma3", 1152, 6912, 26, (4, 1), 262144, 32768,
            head_dim=256, sliding_window=512, sliding_window_pattern=6, hidden_act=None, rope_local_base_freq=10000,
            hidden_activation="gelu_pytorch_tanh", rope_scaling=None, tie_word_embeddings=None,
        ),
        1.0,
        32768,
        22,
    ),
    (
        "Phi-3-mini-4k-instruct",
        decoder("Phi3", 3072, 8192, 32, (32, 32), 32064, 4096, rope_scaling=None, sliding_window=2047,
                original_max_position_embeddings=4096, attention_bias=False),
        3.82,
        4096,
        32,
    ),
    (
        "Phi-3.5-mini-instruct",
        decoder("Phi3", 3072, 8192, 32, (32, 32), 32064, 131072, rope_scaling=LONGROPE, sliding_window=262144,
                original_max_position_embeddings=4096),
        3.82,
        4096,
        32,
    ),
    (
        "phi-4",
        decoder("Phi3", 5120, 17920, 40, (40, 10), 100352, 16384, rope_scaling=None, sliding_window=None,
                original_max_position_embeddings=16384, rope_theta=250000),
        14.66,
        16384,
        0,
    ),
    (
        "gpt2",
        {"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
         "n_ctx": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"},
        0.124,
        1024,
        0,
    ),
    (
        "Mixtral-8x7B-v0.1",
        decoder("Mixtral", 4096, 14336, 32, (32, 8), 32000, 32768, sliding_window=None, rope_theta=1e6,
                num_local_experts=8, num_experts_per_tok=2),
        46.7,
        32768,
        0,
    ),
    (
        "Qwen1.5-MoE-A2.7B",
        decoder("Qwen2Moe", 2048, 5632, 24, (16, 16), 151936, 8192, use_sliding_window=False, sliding_window=32768,
                max_window_layers=21, decoder_sparse_step=1, moe_intermediate_size=1408, num_experts=60,
                shared_expert_intermediate_size=5632, num_experts_per_tok=4, norm_topk_prob=False),
        14.3,
        8192,
        0,
    ),
    (
        "Qwen3-30B-A3B",
        decoder("Qwen3Moe", 2048, 6144, 48, (32, 4), 151936, 40960, head_dim=128, use_sliding_window=False,
                sliding_window=None, decoder_sparse_step=1, moe_intermediate_size=768, num_experts=128,
                num_experts_per_tok=8, norm_topk_prob=True, mlp_only_layers=[], rope_scaling=None),
        30.5,
        40960,
        0,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "raw, billions, context, windows", [m[1:] for m in MODELS], ids=[m[0] for m in MODELS]
)
def test_size_context_and_windows(
    raw: dict[str, Any], billions: float, context: int, windows: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_model_config(tmp_path)
    assert parameter_count(config) == pytest.approx(billions * 1e9, rel=0.006)
    assert config.max_position == context
    assert sum(window is not None for window in config.windows) == windows


def test_a_context_may_be_asked_for(tmp_path: Path) -> None:
    raw = next(raw for name, raw, *_ in MODELS if name.startswith("Phi-3.5"))
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert [read_model_config(tmp_path, n).max_position for n in (1000, 4096, 4097)] == [4096, 4096, 131072]


JUNK = [None, "x", -1, 0, 1.5, 10**30, float("nan"), True, [], [0], ["x"], {}, {"x": 1}]


@pytest.mark.parametrize("raw", [m[1] for m in MODELS], ids=[m[0] for m in MODELS])
def test_junk_in_a_field_is_an_error_or_nothing(raw: dict[str, Any], tmp_path: Path) -> None:
    optional = {
        "rope_scaling",
        "rope_parameters",
        "layer_types",
        "head_dim",
        "mlp_only_layers",
        "attention_bias",
    }
    optional |= {"quantization_config", "original_max_position_embeddings", "partial_rotary_factor", "dtype"}
    for name in raw.keys() | optional:
        for junk in JUNK:
            (tmp_path / "config.json").write_text(json.dumps({**raw, name: junk}))
            try:
                read_model_config(tmp_path)
            except ModelLoadError as error:
                assert name in str(error) or "architecture" in str(error) or "heads" in str(error)
    for name in LLAMA3 | LONGROPE | {"rope_type": 0, "attention_factor": 0, "mscale": 0, "beta_fast": 0}:
        for kind in ("llama3", "longrope", "yarn", "linear", "dynamic"):
            for junk in JUNK:
                rope = LLAMA3 | LONGROPE | {"rope_type": kind, "mscale_all_dim": 1.0, name: junk}
                (tmp_path / "config.json").write_text(json.dumps({**raw, "rope_scaling": rope}))
                try:
                    config = read_model_config(tmp_path)
                except ModelLoadError as error:
                    assert name in str(error) or "_factor" in str(error)
                else:
                    assert config.rope is None or config.rope.frequencies().isfinite().all()
