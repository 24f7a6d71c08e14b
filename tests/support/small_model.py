"""Model folders of a few thousand random weights with a byte-level tokenizer, for tests of the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sgl_like.runtime.tokenizer.token_bytes import byte_alphabet

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "eos_token_id": 256,
}


def make_tokenizer(merges: list[tuple[str, str]] | None = None) -> Tokenizer:
    """Ids 0..255 are the bytes, 256.. the special tokens, then the merged pieces (each of ASCII text)."""
    vocab = byte_alphabet()
    pieces = {a + b for a, b in merges or ()}
    vocab.update({piece: 256 + len(SPECIAL) + i for i, piece in enumerate(sorted(pieces))})
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges or []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    for i, text in enumerate(SPECIAL):
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        assert merges or tokenizer.token_to_id(text) == 256 + i
    return tokenizer


def make_model(
    folder: Path,
    seed: int = 0,
    scale: float = 0.5,
    merges: list[tuple[str, str]] | None = None,
    **changes: Any,
) -> Path:
    """Write a loadable model folder; `merges` go into its tokenizer, `changes` into its config."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(merges)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(SPECIAL[0])
    config = {**CONFIG, "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": end, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": TEMPLATE, "eos_token": "<|end|>"})
    )
    save_file(_weights(config, seed, scale), folder / "model.safetensors")
    return folder


def _weights(config: dict[str, Any], seed: int, scale: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden, wide, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    out = {"model.embed_tokens.weight": random(vocab, hidden), "model.norm.weight": torch.ones(hidden)}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = random(vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        out[at + "input_layernorm.weight"] = torch.ones(hidden)
        out[at + "post_attention_layernorm.weight"] = torch.ones(hidden)
        for name, rows, columns in (
            ("self_attn.q_proj", q, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, q),
            ("mlp.gate_proj", wide, hidden),
            ("mlp.up_proj", wide, hidden),
            ("mlp.down_proj", hidden, wide),
        ):
            out[f"{at}{name}.weight"] = random(rows, columns)
    return out
