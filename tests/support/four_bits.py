"""Checkpoints packed in 4 bits as AWQ and GPTQ write them, independently of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

AWQ_SLOTS = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where each of eight outputs next to each other is in AWQ's words."""


def _words(values: Tensor, slots: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """``[n, rows]`` to int32 ``[n, rows / 8]``."""
    words = torch.zeros(len(values), values.shape[1] // 8, dtype=torch.int64)
    for column in range(values.shape[1]):
        words[:, column // 8] |= values[:, column].long() << 4 * slots[column % 8]
    return torch.where(words >= 2**31, words - 2**32, words).int()


def awq_tensors(values: Tensor, scales: Tensor, zeros: Tensor) -> dict[str, Tensor]:
    """A layer's tensors, from ``[columns, rows]`` and ``[columns / group, rows]``."""
    return {"qweight": _words(values, AWQ_SLOTS), "qzeros": _words(zeros, AWQ_SLOTS), "scales": scales}


def gptq_tensors(values: Tensor, scales: Tensor, zeros: Tensor, zero_offset: int = 1) -> dict[str, Tensor]:
    """Likewise, with the order of groups."""
    group = len(values) // len(scales)
    return {
        "qweight": _words(values.T).T.contiguous(),
        "qzeros": _words(zeros - zero_offset),
        "scales": scales,
        "g_idx": torch.arange(len(values), dtype=torch.int32) // group,
    }


def pack_model(folder: Path, packed: Path, group: int, config: dict[str, Any]) -> None:
    """Round the layers of the model in `folder` to 4 bits with random zero points, in place, and pack them elsewhere.

    Args:
        folder: a model, whose layers become what the packed ones stand for.
        packed: the new folder.
        group: columns that share a scale; -1: all.
        config: its ``quantization_config``.
    """
    weights = load_file(folder / "model.safetensors")
    out = {}
    for name, weight in weights.items():
        if "_proj." not in name:
            out[name] = weight
            continue
        columns = weight.shape[1]
        groups = weight.T.reshape(columns // (columns if group == -1 else group), -1, len(weight))
        scales = (groups.abs().amax(dim=1) / 6).half()
        zeros = torch.randint(6, 10, scales.shape)
        values = (groups / scales[:, None].float()).round().long() + zeros[:, None]
        values = values.clamp(0, 15)
        dense = (values - zeros[:, None]) * scales[:, None].float()
        weights[name] = dense.reshape(columns, -1).T.contiguous()
        arguments = values.reshape(columns, -1), scales, zeros
        if config["quant_method"] == "awq":
            tensors = awq_tensors(*arguments)
        else:
            tensors = gptq_tensors(*arguments, zero_offset=int(config.get("checkpoint_format") != "gptq_v2"))
        out.update({name.replace("weight", kind): tensor for kind, tensor in tensors.items()})
    packed.mkdir()
    for file in folder.glob("*.json"):
        (packed / file.name).write_bytes(file.read_bytes())
    raw = json.loads((folder / "config.json").read_text())
    (packed / "config.json").write_text(
        json.dumps(raw | {"quantization_config": {"group_size": group, **config}})
    )
    save_file(weights, folder / "model.safetensors")
    save_file(out, packed / "model.safetensors")
