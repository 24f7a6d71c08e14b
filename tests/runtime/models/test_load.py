"""Folders as they are found: shards, dtypes, spellings of the config, models within models, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from sgl_like.errors import ConfigError, ModelLoadError
from sgl_like.kernels import linear
from sgl_like.runtime.models import weights
from sgl_like.runtime.models.load import EMBEDDED_MODEL, find_model, load_model, read_model_config
from tests.support.families import SMALL, make_family, save
from tests.support.forward import run
from tests.support.small_model import make_model

IDS = list(range(60))


def check(folder: Path, theirs: Any) -> None:
    """The folder gives the logits of a model of `transformers`."""
    with torch.inference_mode():
        expected = theirs(input_ids=torch.tensor([IDS])).logits[0]
    assert (run(load_model(folder, "float32"), IDS, [40, 20]) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("piece", [1, 1000, 2**25])
def test_shards_read_in_pieces(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAPPED_AT_ONCE", piece)
    theirs = make_family(tmp_path, "qwen2 moe")
    save(tmp_path, theirs, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 2
    (tmp_path / "model.safetensors").unlink()
    check(tmp_path, theirs)


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_packed_in_pieces(
    load_format: str, quantization: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_family(tmp_path, "qwen2")  # 260 tokens: five pieces of 64 rows, the last one of 4

    def logits() -> torch.Tensor:
        return run(load_model(tmp_path, "bfloat16", load_format, quantization=quantization), IDS, [40, 20])

    whole = logits()
    monkeypatch.setattr(linear, "PACKED_AT_ONCE", 1)
    assert torch.equal(logits(), whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_files_of_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = make_family(tmp_path, "gemma2").to(dtype)
    theirs.save_pretrained(tmp_path)
    assert read_model_config(tmp_path).dtype == str(dtype).removeprefix("torch.")
    check(tmp_path, type(theirs).from_pretrained(tmp_path, dtype=torch.float32).eval())


def test_a_text_model_beside_an_image_encoder(tmp_path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**SMALL, "head_dim": 16, "sliding_window": 10, "query_pre_attn_scalar": 24}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
              "image_size": 8, "patch_size": 4}  # fmt: skip
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )
    theirs = save(tmp_path, model)
    check(tmp_path, theirs)
    old = {name.replace("model.language_model.", "language_model.model."): tensor
           for name, tensor in load_file(tmp_path / "model.safetensors").items()}  # fmt: skip
    assert any(name.startswith("language_model.model.") for name in old)
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    check(tmp_path, theirs)


def test_a_text_config_may_leave_out_what_is_usual(tmp_path: Path) -> None:
    """That of ``google/gemma-3-4b-it``, as it is."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    raw = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": text,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_model_config(tmp_path)
    assert (config.vocab_size, config.heads, config.kv_heads, config.head_dim) == (262_208, 8, 4, 256)
    assert config.windows.count(None) == 5 and config.windows[5] is None and config.windows[0] == 1024
    assert config.rope is not None and config.rope.theta == 1e6 and config.rope.scaling is not None
    assert (
        config.local_rope is not None and config.local_rope.theta == 1e4 and config.local_rope.scaling is None
    )
    assert config.tied_embeddings and config.dtype == "bfloat16" and config.parameter_count() == 3_879_895_040


def test_gpt2_may_be_saved_without_its_head(tmp_path: Path) -> None:
    theirs = make_family(tmp_path, "gpt2")
    bare = {name.removeprefix("transformer."): tensor
            for name, tensor in load_file(tmp_path / "model.safetensors").items()}  # fmt: skip
    save_file(bare | {"h.0.attn.bias": torch.ones(1, 1, 4, 4)}, tmp_path / "model.safetensors")
    check(tmp_path, theirs)


def test_old_spellings_of_a_config(tmp_path: Path) -> None:
    """``rope_theta`` and ``rope_scaling``; ``torch_dtype``; "su", LongRoPE's first name."""
    make_family(tmp_path, "phi3, longrope")
    expected = read_model_config(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    rope, dtype = config.pop("rope_parameters"), config.pop("dtype")
    config["rope_scaling"] = {"type": "su", **{key: rope[key] for key in ("short_factor", "long_factor")}}
    config |= {"rope_theta": 10000.0, "partial_rotary_factor": 0.75, "torch_dtype": dtype}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_model_config(tmp_path) == expected


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


def test_what_is_taken_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights only where they are wanted, and not the same ones in other formats."""
    files = [
        "config.json",
        "tokenizer.json",
        "model-00001-of-00002.safetensors",
        "consolidated.safetensors",
        "onnx/model.json",
        "pytorch_model.bin",
    ]
    taken: list[list[str]] = []

    def download(model: str, **patterns: Any) -> str:
        assert model == "some/model"
        taken.append(list(filter_repo_objects(files, **patterns)))
        return "/there"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_model("some/model") == find_model("some/model", with_weights=False) == Path("/there")
    assert taken == [files[:3], files[:2]]


def test_a_missing_or_damaged_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no such folder, and not a Hugging Face id"):
        find_model("no/such/folder/here")
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        load_model(tmp_path)
    folder = make_model(tmp_path / "m")
    with pytest.raises(ConfigError, match="dtype must be"):
        load_model(folder, dtype="float8")
    with pytest.raises(ConfigError, match="'float16' is not supported"):
        load_model(folder, dtype="float16")
    with pytest.raises(ConfigError, match="load_format must be"):
        load_model(folder, load_format="gguf")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelLoadError, match="not a readable safetensors file"):
        load_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"no model\.safetensors .*convert \['pytorch_model.bin'\]"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architectures": ["BertModel"]}, "architecture 'BertModel' is not supported"),
        ({"num_key_value_heads": 3}, "4 heads cannot be shared by 3"),
        ({"rope_scaling": {"type": "mrope"}}, "rope_scaling.type 'mrope' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "'rope_scaling.factor' is missing"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 0}},
            "rope_scaling.factor must be a number greater",
        ),
        (
            {"rope_scaling": {"rope_type": "longrope", "short_factor": [1], "long_factor": []}},
            "rope_scaling.short_factor must be a list of 4 numbers",
        ),
        ({"rope_parameters": {"full_attention": {}}}, "rope_parameters.full_attention is not supported"),
        ({"rope_scaling": []}, "rope_scaling must be an object"),
        ({"head_dim": 7}, "head_dim makes 7 numbers to turn; rotary embedding needs pairs"),
        ({"hidden_act": "relu6"}, "hidden_act 'relu6' is not supported"),
        ({"hidden_size": "wide"}, "hidden_size must be an integer of at least 1, not 'wide'"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
        (
            {"quantization_config": {"quant_method": "fp8"}},
            "quantised with 'fp8'; supported: 'awq' and 'gptq'",
        ),
        ({"architectures": ["Gemma2ForCausalLM"], "layer_types": ["full"]}, "layer_types must be 2 times"),
        ({"architectures": ["MixtralForCausalLM"], "num_local_experts": 1}, "num_experts_per_tok is 2, of 1"),
        (
            {"architectures": ["MistralForCausalLM"], "sliding_window": 0},
            "sliding_window must be an integer of",
        ),
        ({"architectures": ["GPT2LMHeadModel"]}, "'n_head' is missing"),
        ({"intermediate_size": 50}, r"gate_proj.weight has shape \[48, 32\], the config says \[50, 32\]"),
        ({"num_hidden_layers": 3}, "the weights have no tensor 'model.layers.2"),
    ],
)
def test_what_a_config_asks_for_is_checked(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
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
