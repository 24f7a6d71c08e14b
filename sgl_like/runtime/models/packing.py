"""Checkpoints whose linear layers AWQ or GPTQ packed in 4 bits: what ``config.json`` says of it, and reading them.

A layer has ``qweight``, ``qzeros`` and ``scales`` (`kernels.quantized` draws them) in place of ``weight``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sgl_like.errors import ModelLoadError
from sgl_like.kernels.quantized import Int4Numbers, unpack_awq, unpack_gptq
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.tensor_reader import TensorReader

GPTQ_OFFSETS = {"gptq": 1, "gptq_v2": 0}
"""What zero points are stored less, by ``checkpoint_format``."""


class Packing(NamedTuple):
    """How a checkpoint's layers are packed.

    Args:
        method: ``"awq"`` or ``"gptq"``.
        group: columns that share a scale; ``None``: all.
        zero_offset: see `unpack_gptq`.
    """

    method: str
    group: int | None
    zero_offset: int = 0

    def read(self, reader: TensorReader, name: str, rows: int, columns: int) -> Int4Numbers:
        """A layer of ``[rows, columns]``.

        Raises:
            ModelLoadError: a tensor is missing or has another shape, or columns are in another order.
        """

        def tensor(kind: str, shape: tuple[int, int], dtype: torch.dtype = torch.int32) -> Tensor:
            out = torch.empty(shape, dtype=dtype)
            reader.read_into(f"{name}.{kind}", out)
            return out

        group = self.group or columns
        if columns % group or columns % 8 or rows % 8:
            raise ModelLoadError(
                f"layer {name}: {rows} x {columns} weights cannot be packed in words of 8 and groups of {group}"
            )
        zeros = tensor("qzeros", (columns // group, rows // 8))
        scales = tensor("scales", (columns // group, rows), torch.float32)
        if self.method == "awq":
            return unpack_awq(tensor("qweight", (columns, rows // 8)), zeros, scales)
        if reader.has(f"{name}.g_idx"):
            groups = torch.empty(columns, dtype=torch.int32)
            reader.read_into(f"{name}.g_idx", groups)
            if not torch.equal(groups, torch.arange(columns, dtype=torch.int32) // group):
                raise ModelLoadError(
                    f"layer {name}: groups are in the order of activations (desc_act), which is not supported"
                )
        return unpack_gptq(tensor("qweight", (columns // 8, rows)), zeros, scales, self.zero_offset)


def read_packing(fields: ConfigFields) -> Packing | None:
    """What ``quantization_config`` says; ``None`` where there is none.

    Raises:
        ModelLoadError: weights are kept in a way that is not supported.
    """
    if not fields.value("quantization_config", None):
        return None
    section = fields.section("quantization_config")
    method = section.text("quant_method", "?")
    if method not in ("awq", "gptq"):
        raise fields.error(
            "quantization_config", f"says weights are quantised with {method!r}; supported: 'awq' and 'gptq'"
        )
    if (bits := section.integer("bits")) != 4:
        raise section.error("bits", f"must be 4, not {bits}")
    group = section.value("group_size", 128)
    size = None if group == -1 else section.integer("group_size", 128)
    if method == "awq":
        section.one_of("version", {"gemm": "gemm", "GEMM": "gemm"}, "gemm")
        return Packing(method, size)
    form = section.text("checkpoint_format", "gptq")
    if form not in GPTQ_OFFSETS:
        raise section.error(
            "checkpoint_format", f"{form!r} is not supported; known: {', '.join(GPTQ_OFFSETS)}"
        )
    return Packing(method, size, GPTQ_OFFSETS[form])
