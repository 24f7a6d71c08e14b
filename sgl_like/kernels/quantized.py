"""Matrix products with small weights on GPUs: int8 and fp8 with rounded activations, int4 with activations as they are.

    int8_linear(x, w, w_scale, bias)   w int8 [rows, columns], w_scale float32 [rows]; x is rounded to int8 by its rows
    fp8_linear(x, w, w_scale, bias)    the same in float8 e4m3
    int4_linear(x, w, bias)            w: `Int4Weight`; groups of columns share a scale and a zero point

All give ``x @ W^T + bias`` as ``[tokens, rows]`` in x's dtype (float32 or bfloat16), sums in int32 or float32.

`Int4Weight` holds what AWQ and GPTQ files hold in a layout of its own, in which a program reads weights side by side
and needs no shuffles: of each `SPAN` = 128 columns, word r has the columns ``r, 16 + r, 32 + r, ...``, 4 bits each.

    words    int32     [columns / 8, rows]          word 16 b + r has columns 128 b + 16 i + r in bits 4 i ... 4 i + 3
    scales   float32 or bfloat16 [columns / group, rows]
    zeros    uint8     [columns / group, rows]       a weight is (bits - zero) * scale
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPAN = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Column (of eight outputs) that AWQ keeps in the bits 4 i of a word."""


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """Weights of 4 bits; see the module's contract."""

    words: Tensor
    scales: Tensor
    zeros: Tensor
    group: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, columns)``."""
        return self.words.shape[1], self.words.shape[0] * 8

    def dense(self) -> Tensor:
        """The weights as they are computed with, float32 ``[rows, columns]``."""
        spans = self.words.view(-1, 16, self.words.shape[1])
        parts = torch.stack([(spans >> 4 * i) & 15 for i in range(8)], dim=1)  # [spans, 8, 16, rows]
        values = parts.reshape(-1, self.words.shape[1]).float()
        scales, zeros = (each.float().repeat_interleave(self.group, 0) for each in (self.scales, self.zeros))
        return ((values - zeros) * scales).T.contiguous()


def pack_int4(values: Tensor, scales: Tensor, zeros: Tensor, group: int) -> Int4Weight:
    """From plain numbers.

    Args:
        values: integers in [0, 15], ``[columns, rows]``; columns are a multiple of 128.
        scales: ``[columns / group, rows]``.
        zeros: likewise.
        group: columns that share a scale; a multiple of 16.
    """
    columns, rows = values.shape
    assert columns % SPAN == 0 and group % 16 == 0 and columns % group == 0
    parts = values.view(-1, 8, 16, rows).to(torch.int64)
    words = sum(parts[:, i] << 4 * i for i in range(8))
    assert isinstance(words, Tensor)
    signed = torch.where(words >= 2**31, words - 2**32, words)
    return Int4Weight(
        signed.reshape(-1, rows).to(torch.int32).contiguous(),
        scales.contiguous(),
        zeros.to(torch.uint8).contiguous(),
        group,
    )


def from_gptq(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, group: int, zero_offset: int = 1
) -> Int4Weight:
    """From a GPTQ file without activation order: words along the columns, zero points stored less `zero_offset`.

    Args:
        qweight: int32 ``[columns / 8, rows]``.
        qzeros: int32 ``[columns / group, rows / 8]``.
        scales: ``[columns / group, rows]``.
        group: columns that share a scale.
        zero_offset: 1 in files of the first version, 0 in those of the second.
    """
    values = torch.stack([(qweight >> 4 * i) & 15 for i in range(8)], dim=1).reshape(-1, qweight.shape[1])
    zeros = torch.stack([(qzeros >> 4 * i) & 15 for i in range(8)], dim=2).reshape(len(qzeros), -1)
    return pack_int4(values, scales, zeros + zero_offset, group)


def from_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor, group: int) -> Int4Weight:
    """From an AWQ file: words along the rows, in AWQ's order.

    Args:
        qweight: int32 ``[columns, rows / 8]``.
        qzeros: int32 ``[columns / group, rows / 8]``.
        scales: ``[columns / group, rows]``.
        group: columns that share a scale.
    """

    def unpacked(words: Tensor) -> Tensor:
        parts = torch.empty(*words.shape, 8, dtype=torch.int32, device=words.device)
        for i, column in enumerate(AWQ_ORDER):
            parts[..., column] = (words >> 4 * i) & 15
        return parts.reshape(len(words), -1)

    return pack_int4(unpacked(qweight), scales, unpacked(qzeros), group)


def round_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows of ``[n, columns]`` as int8 or fp8 e4m3, and float32 scales ``[n]``; the reference of `triton.quantized`."""
    most = 127.0 if dtype == torch.int8 else 448.0
    wide = x.float()
    scales = wide.abs().amax(dim=1).clamp(min=1e-10) / most
    scaled = wide / scales[:, None]
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scales


def rounded_reference(x: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """int8 and fp8: the rounded numbers multiplied in float32."""
    values, scales = round_rows(x, w.dtype)
    out = (values.float() @ w.float().T) * scales[:, None] * w_scale[None, :]
    return (out if bias is None else out + bias.float()).to(x.dtype)


def int4_reference(x: Tensor, w: Int4Weight, bias: Tensor | None = None) -> Tensor:
    """int4, with dense weights in float32."""
    out = x.float() @ w.dense().T
    return (out if bias is None else out + bias.float()).to(x.dtype)
