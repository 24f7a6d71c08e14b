from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sgl_like.errors import ModelLoadError
from sgl_like.runtime.models.load import load_model, read_model_config
from tests.support.forward import run
from tests.support.four_bits import pack_model
from tests.support.interpreted import only_cpu
from tests.support.small_model import make_model

WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
AWQ = {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "desc_act": False, "sym": False}
GPTQ_2 = {**GPTQ, "checkpoint_format": "gptq_v2"}
IDS = [5, 99, 32, 200, 77, 3]


def folders(tmp_path: Path, group: int, config: dict[str, Any]) -> tuple[Path, Path]:
    plain = make_model(tmp_path / "plain", scale=0.1, **WIDE)
    pack_model(plain, tmp_path / "packed", group, config)
    return plain, tmp_path / "packed"


@only_cpu("on devices layers stay packed: tests/kernels/triton/test_triton_packing.py")
@pytest.mark.parametrize("group", [32, 128, -1])
@pytest.mark.parametrize("config", [AWQ, GPTQ, GPTQ_2], ids=["awq", "gptq", "gptq 2"])
def test_a_packed_model_is_the_dense_one(config: dict[str, Any], group: int, tmp_path: Path) -> None:
    plain, packed = folders(tmp_path, group, config)
    for dtype, quantization in (("float32", None), ("bfloat16", None), ("float32", "int8")):
        expected = run(load_model(plain, dtype, quantization=quantization), IDS, [6])
        found = run(load_model(packed, dtype, quantization=quantization), IDS, [6])
        assert torch.equal(found, expected)


def change(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    save_file(weights, folder / "model.safetensors")


def test_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    _, packed = folders(tmp_path, 32, {**GPTQ, "desc_act": True})
    load_model(packed)  # in no other order after all
    name = "model.layers.0.mlp.down_proj"
    change(packed, f"{name}.g_idx", torch.arange(256, dtype=torch.int32).flip(0) // 32)
    with pytest.raises(
        ModelLoadError, match=r"down_proj: groups are in the order of activations \(desc_act\)"
    ):
        load_model(packed)
    change(packed, f"{name}.g_idx", None)
    load_model(packed)


@pytest.mark.parametrize(
    "name, tensor, message",
    [
        ("qweight", torch.zeros(32, 100, dtype=torch.int32), r"shape \[32, 100\], the config says \[32, 128\]"),
        ("scales", None, "no tensor 'model.layers.0.mlp.down_proj.scales'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    name: str, tensor: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    _, packed = folders(tmp_path, 32, GPTQ)
    change(packed, f"model.layers.0.mlp.down_proj.{name}", tensor)
    with pytest.raises(ModelLoadError, match=message):
        load_model(packed)


def test_sizes_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path, quantization_config={**AWQ, "group_size": 64})
    change(folder, "model.layers.0.self_attn.q_proj.qweight", torch.zeros(1))
    with pytest.raises(ModelLoadError, match=r"q_proj: 32 x 32 weights cannot be packed .* groups of 64"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"bits": 3}, "quantization_config.bits must be 4, not 3"),
        ({"quant_method": "bitsandbytes"}, "quantised with 'bitsandbytes'; supported: 'awq' and 'gptq'"),
        ({"quant_method": "awq", "version": "gemv"}, "version 'gemv' is not supported"),
        ({"checkpoint_format": "marlin"}, "checkpoint_format 'marlin' is not supported"),
        ({"group_size": 0}, "group_size must be an integer of at least 1"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path, quantization_config={**GPTQ, **changes})
    with pytest.raises(ModelLoadError, match=message):
        read_model_config(folder)


def test_the_folder_need_not_be_read_for_random_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path, quantization_config={**GPTQ, "group_size": 32})
    (folder / "model.safetensors").unlink()
    model = load_model(folder, load_format="dummy")
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == model.config.hidden_size
