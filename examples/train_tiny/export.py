"""Write weights in the plain Hugging Face layout: config.json, generation_config.json, model.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from formats import END, PAD, SPECIAL_TOKENS
from model import Shape
from safetensors.torch import save_file
from torch import Tensor
from vocabulary import MAX_POSITIONS

PAD_ID, END_ID = SPECIAL_TOKENS.index(PAD), SPECIAL_TOKENS.index(END)


def config(shape: Shape) -> dict[str, object]:
    """config.json of LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": None,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
        "use_cache": True,
    }


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def export(weights: Mapping[str, Tensor], shape: Shape, folder: Path) -> None:
    """Write the model in bfloat16; the weights file is replaced in one move (nobody reads half of it)."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", config(shape))
    generation: dict[str, object] = {"do_sample": False, "eos_token_id": END_ID, "pad_token_id": PAD_ID}
    _write(folder / "generation_config.json", {**generation, "max_new_tokens": 128})
    tensors = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in weights.items()}
    part = folder / "model.safetensors.part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.chmod(0o644)
    os.replace(part, folder / "model.safetensors")
