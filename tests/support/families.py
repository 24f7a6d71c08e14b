"""Small random models of every family, made and saved by `transformers`, with the byte-level tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.support.small_model import make_tokenizer

VOCAB = 260
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
MSCALE = {"mscale": 0.7, "mscale_all_dim": 1.3, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.5, 4.0, 9.0],
    "partial_rotary_factor": 0.75,
}
EXPERTS = {"num_experts": 6, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
MIXED = ["full_attention", "sliding_attention", "sliding_attention"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama, GELU, no groups": ("LlamaConfig", {"hidden_act": "gelu", "num_key_value_heads": 4}),
    "llama 3 rope": ("LlamaConfig", {"rope_parameters": LLAMA3_ROPE, "hidden_size": 64}),
    "linear rope": ("LlamaConfig", {"rope_parameters": LINEAR}),
    "dynamic rope": ("LlamaConfig", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}),
    "mistral": ("MistralConfig", {"sliding_window": 20}),
    "mistral, wide heads, no window": (
        "MistralConfig",
        {"sliding_window": None, "head_dim": 24, "num_key_value_heads": 1},
    ),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2, windows above": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen2, yarn": ("Qwen2Config", {"rope_parameters": YARN, "head_dim": 16}),
    "qwen3": ("Qwen3Config", {"head_dim": 24, "rope_parameters": YARN | MSCALE}),
    "qwen3, windows": (
        "Qwen3Config",
        {"head_dim": 16, "use_sliding_window": True, "sliding_window": 30, "layer_types": MIXED},
    ),
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 16, "sliding_window": 12, "query_pre_attn_scalar": 20, "rms_norm_eps": 1e-3},
    ),
    "gemma2, low caps": (
        "Gemma2Config",
        {
            "head_dim": 16,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "attention_bias": True,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 16, "sliding_window": 10, "num_hidden_layers": 7, "query_pre_attn_scalar": 24},
    ),
    "gemma3, other layers": (
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "sliding_window": 25,
            "layer_types": MIXED,
            "rope_parameters": {"full_attention": LINEAR, "sliding_attention": {"rope_theta": 5000.0}},
            "final_logit_softcapping": 5.0,
            "rms_norm_eps": 1e-3,
        },
    ),
    "phi3": ("Phi3Config", {"sliding_window": 33}),
    "phi3, longrope": (
        "Phi3Config",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 150, "tie_word_embeddings": True},
    ),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    "gpt2, other": (
        "GPT2Config",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 200,
            "n_inner": 40,
            "activation_function": "silu",
            "scale_attn_weights": False,
            "tie_word_embeddings": False,
        },
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 5, "sliding_window": 40}),
    "qwen2 moe": (
        "Qwen2MoeConfig",
        EXPERTS | {"shared_expert_intermediate_size": 20, "decoder_sparse_step": 2, "qkv_bias": False},
    ),
    "qwen2 moe, windows": (
        "Qwen2MoeConfig",
        EXPERTS
        | {
            "shared_expert_intermediate_size": 56,
            "norm_topk_prob": True,
            "use_sliding_window": True,
            "sliding_window": 15,
            "max_window_layers": 2,
        },
    ),
    "qwen3 moe": (
        "Qwen3MoeConfig",
        EXPERTS | {"head_dim": 16, "norm_topk_prob": True, "mlp_only_layers": [1], "rms_norm_eps": 1e-3},
    ),
}


def make_family(folder: Path, name: str, **changes: Any) -> Any:
    """Write a loadable folder of a family; returns the model of `transformers`, float32, as it was saved."""
    import transformers

    config_class, options = FAMILIES[name]
    small = {k: v for k, v in SMALL.items() if config_class != "GPT2Config" or "token" in k or "vocab" in k}
    config = getattr(transformers, config_class)(**{**small, **options, **changes})
    return save(folder, transformers.AutoModelForCausalLM.from_config(config))


def save(folder: Path, model: Any, **options: Any) -> Any:
    """Give a model of `transformers` random weights, and save it with a tokenizer."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        matrix = parameter.ndim > 1
        torch.nn.init.normal_(parameter, std=0.2 if matrix else 0.1, generator=generator)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight") and "gemma" not in model.config.model_type:
            parameter.data += 1.0  # the weight of a norm
    model = model.float().eval()
    model.save_pretrained(folder, **options)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    return model
