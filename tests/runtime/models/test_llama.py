"""Our Llama against the one in `transformers`, at random weights in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sgl_like.errors import ConfigError, ModelLoadError
from sgl_like.kernels.attention import AttentionRows
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.load import EMBEDDED_MODEL, Model, find_model, load_model
from tests.support.small_model import make_model

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "multi-head, tied": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "multi-query, wide heads": {"num_key_value_heads": 1, "head_dim": 24},
    "llama3 scaling": {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0, "hidden_size": 64},
    "linear scaling": {"rope_scaling": {"type": "linear", "factor": 4.0}},
}


def run(model: Model, ids: list[int], chunks: list[int]) -> torch.Tensor:
    """Logits at every place, computed chunk by chunk over scattered slots."""
    shape = model.config
    pool = KVPool(shape.layers, 300, shape.kv_heads, shape.head_dim, model.dtype)
    slots = np.random.default_rng(0).permutation(300)[: len(ids)].astype(np.int32)
    out, at = [], 0
    with torch.inference_mode():
        for size in chunks:
            end = at + size
            rows = AttentionRows(np.array([0, size], np.int32), np.array([0, end], np.int32), slots[:end])
            batch = ForwardBatch(
                torch.tensor(ids[at:end]), torch.arange(at, end), torch.from_numpy(slots[at:end]).long(), rows
            )
            out.append(model.logits(model.forward(batch, pool)))
            at = end
    return torch.cat(out)


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    folder = make_model(tmp_path, seed=len(name), scale=0.2, **SHAPES[name])
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, 256, (140,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0]
    model = load_model(folder, "float32")
    for chunks in ([140], [100, 1, 1, 38], [1] * 140):
        assert (run(model, ids, chunks) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("bias", [True, False])
def test_sharded_folder_written_by_transformers(bias: bool, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=120, attention_bias=bias, mlp_bias=bias, rope_parameters={"rope_type": "default",
        "rope_theta": 5000.0}, max_position_embeddings=64,
    )  # fmt: skip
    theirs = LlamaForCausalLM(config).float().eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    with torch.inference_mode():
        expected = theirs(torch.arange(60)[None]).logits[0]
    ours = run(load_model(tmp_path, "float32"), list(range(60)), [60])
    assert (ours - expected).abs().max() < 1e-4


def test_bfloat16_is_close_to_float32(tmp_path: Path) -> None:
    folder = make_model(tmp_path, scale=0.2)
    wide, narrow = load_model(folder, "float32"), load_model(folder, "bfloat16")
    a, b = run(wide, list(range(50)), [30, 20]), run(narrow, list(range(50)), [30, 1, 19])
    assert (a - b).abs().max() < 0.05 * a.abs().max()


def test_dummy_weights_are_the_same_every_time(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    (folder / "model.safetensors").unlink()
    a, b = (run(load_model(folder, load_format="dummy"), [1, 2, 3], [3]) for _ in range(2))
    assert torch.equal(a, b) and a.std() > 0.1


def test_a_missing_or_damaged_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no such folder, and not a Hugging Face id"):
        find_model("no/such/folder/here")
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        load_model(tmp_path)
    folder = make_model(tmp_path / "m")
    with pytest.raises(ConfigError, match="dtype must be"):
        load_model(folder, dtype="float8")
    with pytest.raises(ConfigError, match="load_format must be"):
        load_model(folder, load_format="gguf")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelLoadError, match="not a readable safetensors file"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"no model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architectures": ["BertModel"]}, "architecture 'BertModel' is not supported"),
        ({"num_key_value_heads": 3}, "4 heads cannot be shared by 3"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "rope type 'yarn' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"hidden_size": "wide"}, "config.json: invalid literal"),
        ({"intermediate_size": 50}, r"gate_proj.weight has shape \[48, 32\], the config says \[50, 32\]"),
        ({"num_hidden_layers": 3}, "the weights have no tensor 'model.layers.2"),
    ],
)
def test_what_a_config_asks_for_is_checked(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    import json

    folder = make_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ModelLoadError, match=message):
        load_model(folder)


def test_a_missing_config_field_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "hidden_size": 32}')
    with pytest.raises(ModelLoadError, match="'num_attention_heads' is missing"):
        load_model(tmp_path)


def test_the_embedded_model_equals_transformers() -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, dtype=torch.float32).eval()
    ids = list(range(0, 4000, 40))
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0]
    assert (run(load_model(EMBEDDED_MODEL, "float32"), ids, [60, 40]) - expected).abs().max() < 1e-4
