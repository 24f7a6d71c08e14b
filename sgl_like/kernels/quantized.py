"""Matrix products with small weights on GPUs: int8 and fp8 with rounded activations, int4 with activations as they are.

    int8_linear(x, w, w_scale, bias)   w int8 [rows, columns], w_scale float32 [rows]; x is rounded to int8 by its rows
    fp8_linear(x, w, w_scale, bias)    the same in float8 e4m3
    int4_linear(x, w, bias)            w: `Int4Weight`; groups of columns share a scale and a zero point

All give ``x @ W^T + bias`` as ``[tokens, rows]`` in x's dtype (float32 or bfloat16), sums in int32 or float32.

`Int4Weight` holds what AWQ and GPTQ files hold in a layout of its own, in which a program reads weights side by side
and needs no shuffles: of each `SPAN` = 128 columns, word r of 32 has the columns ``r, 32 + r, 64 + r, 96 + r``.

    words    int16 [columns / 4, rows]        word 32 b + r has column 128 b + 32 i + r in bits 4 i ... 4 i + 3
    steps    int32 [columns / group, rows]    the upper 24 bits are a float32 scale, the lower 8 an integer zero point

A weight is ``(bits - zero) * scale``. 24 bits hold scales of bfloat16 and of float16 as they are; those of float32
are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SPAN = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Column (of eight outputs) that AWQ keeps in the bits 4 i of a word."""


@dataclass(frozen=True, slots=True)
class RoundedWeight:
    """int8 or fp8 weights, ``[rows, columns]`` or a stack of such, with scales of the rows, float32 ``[..., rows]``."""

    values: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the weights."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Memory of weights and scales."""
        return self.values.nbytes + self.scales.nbytes

    @staticmethod
    def stack(weights: Sequence[RoundedWeight]) -> RoundedWeight:
        """Matrices of one shape as a stack."""
        values, scales = [each.values for each in weights], [each.scales for each in weights]
        return RoundedWeight(torch.stack(values), torch.stack(scales))

    def __getitem__(self, at: int | Tensor) -> RoundedWeight:
        """A matrix of a stack, or rows of a matrix."""
        return RoundedWeight(self.values[at], self.scales[at])

    def dense(self) -> Tensor:
        """The weights as they are computed with, float32."""
        return self.values.float() * self.scales.unsqueeze(-1)


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """Weights of 4 bits; see the module's contract. Several matrices may be stacked: ``[matrices, ...]`` each."""

    words: Tensor
    steps: Tensor
    group: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, columns)``."""
        return self.words.shape[-1], self.words.shape[-2] * 4

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales and zero points."""
        return self.words.nbytes + self.steps.nbytes

    def to(self, device: torch.device | str) -> Int4Weight:
        """The same on a device."""
        return Int4Weight(self.words.to(device), self.steps.to(device), self.group)

    @staticmethod
    def stack(weights: Sequence[Int4Weight]) -> Int4Weight:
        """Matrices of one shape and group as a stack."""
        words, steps = [each.words for each in weights], [each.steps for each in weights]
        return Int4Weight(torch.stack(words), torch.stack(steps), weights[0].group)

    def __getitem__(self, at: int) -> Int4Weight:
        """A matrix of a stack."""
        return Int4Weight(self.words[at], self.steps[at], self.group)

    def of_rows(self, ids: Tensor) -> Int4Weight:
        """Some rows of one matrix."""
        return Int4Weight(self.words[:, ids], self.steps[:, ids], self.group)

    def dense(self) -> Tensor:
        """The weights of one matrix as they are computed with, float32 ``[rows, columns]``."""
        rows, columns = self.shape
        spans = self.words.reshape(-1, 32, rows)
        values = torch.stack([(spans >> 4 * i) & 15 for i in range(4)], dim=1).view(columns, rows)
        zeros = (self.steps & 255).repeat_interleave(self.group, 0)
        scales = (self.steps & -256).view(torch.float32).repeat_interleave(self.group, 0)
        return ((values - zeros) * scales).T.contiguous()


class Int4Numbers(NamedTuple):
    """Weights of 4 bits as plain numbers, transposed as the files have them.

    Args:
        values: integers in [0, 15], ``[columns, rows]``.
        scales: ``[columns / group, rows]``.
        zeros: likewise, integers in [0, 127].
    """

    values: Tensor
    scales: Tensor
    zeros: Tensor

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return len(self.values) // len(self.scales)

    def dense(self) -> Tensor:
        """The weights, float32 ``[rows, columns]``."""
        group = self.group
        values = self.values.float() - self.zeros.float().repeat_interleave(group, 0)
        return (values * self.scales.float().repeat_interleave(group, 0)).T.contiguous()


@dataclass(frozen=True, slots=True)
class SymmetricInt4:
    """Weights of 4 bits whose zero points are all 8: a `linear.Weight` that int4 layers of CPUs take as it is."""

    numbers: Int4Numbers
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """``[rows, columns]``."""
        return self.numbers.values.T.shape

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Some rows as a dense matrix."""
        return Int4Numbers(*(each[:, rows] for each in self.numbers)).dense().to(self.dtype)

    def four_bits(self, rows: slice, group: int) -> tuple[Tensor, Tensor]:
        """Some rows as int8 in [-8, 7], and their scales for each `group` columns, which divides the weights' own."""
        values = self.numbers.values[:, rows].T.to(torch.int8) - 8
        scales = self.numbers.scales[:, rows].T.to(torch.bfloat16)
        return values.contiguous(), scales.repeat_interleave(self.numbers.group // group, 1)


def pack_int4(numbers: Int4Numbers) -> Int4Weight:
    """What `fits_int4` in the layout of the kernels."""
    (columns, rows), group = numbers.values.shape, numbers.group
    assert fits_int4(columns, group)
    parts = numbers.values.reshape(-1, 4, 32, rows).to(torch.int32)
    words = parts[:, 0] | parts[:, 1] << 4 | parts[:, 2] << 8 | parts[:, 3] << 12
    bits = (numbers.scales.float().contiguous().view(torch.int32) + 128) & -256  # to the nearest
    steps = bits | numbers.zeros.to(torch.int32)
    return Int4Weight(words.to(torch.int16).reshape(-1, rows).contiguous(), steps.contiguous(), group)


def fits_int4(columns: int, group: int) -> bool:
    """Whether `Int4Weight` can have such weights."""
    return columns % SPAN == 0 and columns % group == 0 and (group in (32, 64) or group % SPAN == 0)


def unpack_gptq(qweight: Tensor, qzeros: Tensor, scales: Tensor, zero_offset: int) -> Int4Numbers:
    """From a GPTQ file: words along the columns, zero points along the rows.

    Args:
        qweight: int32 ``[columns / 8, rows]``.
        qzeros: int32 ``[columns / group, rows / 8]``.
        scales: ``[columns / group, rows]``.
        zero_offset: what zero points are stored less: 1 in files of the first version, 0 in those of the second.
    """
    values = torch.stack([_nibble(qweight, i) for i in range(8)], dim=1).view(-1, qweight.shape[1])
    zeros = torch.stack([_nibble(qzeros, i) for i in range(8)], dim=2).view(len(qzeros), -1)
    return Int4Numbers(values, scales, zeros + zero_offset)


def unpack_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Int4Numbers:
    """From an AWQ file (``gemm``): words along the rows, in AWQ's order.

    Args:
        qweight: int32 ``[columns, rows / 8]``.
        qzeros: int32 ``[columns / group, rows / 8]``.
        scales: ``[columns / group, rows]``.
    """

    def unpacked(words: Tensor) -> Tensor:
        parts = torch.empty(*words.shape, 8, dtype=torch.uint8, device=words.device)
        for i, column in enumerate(AWQ_ORDER):
            parts[..., column] = _nibble(words, i)
        return parts.view(len(words), -1)

    return Int4Numbers(unpacked(qweight), scales, unpacked(qzeros))


def _nibble(words: Tensor, i: int) -> Tensor:
    """Bits ``4 i ... 4 i + 3`` of int32 numbers, uint8."""
    return ((words >> 4 * i) & 15).to(torch.uint8)


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
