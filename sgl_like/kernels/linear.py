"""Linear layers: ``y = x W^T + b``, in whatever format the weights are kept.

Contract: a `Linear` takes ``x: [tokens, columns]``, float32 or bfloat16, and gives ``[tokens, rows]`` in the same.

    float32     torch's matmul
    bfloat16    products of bfloat16, sums in float32
    int8        a scale for each output (row of W); each row of x is rounded to int8 with a scale of its own
    int4        a bfloat16 scale for each 32 weights of an output; x as for int8

The last three lie in blocks made for the processor's vector instructions (`tiles`), packed once, and their result for
a row does not depend on the other rows. `reference` says what each computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sgl_like.kernels import packed_linear
from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.packed_linear import BLOCK, GROUP
from sgl_like.kernels.quantized import (
    Int4Numbers,
    RoundedWeight,
    SymmetricInt4,
    fits_int4,
    pack_int4,
    round_rows,
)
from sgl_like.kernels.threads import Call, TaskKernel, run_call

CPU = torch.device("cpu")
ROUNDED_INSIDE = 4
"""Rows up to which each thread rounds x itself: less work than another call."""

PACKED_AT_ONCE = 2**20
"""Weights that are rounded and packed at a time."""
Scratch = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Gives memory of a shape that is nobody else's until the calls have run."""


class Weight(Protocol):
    """What a layer is made of: a tensor, or what gives its rows when they are asked for."""

    @property
    def shape(self) -> torch.Size:
        """``[rows, columns]``."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """float32 or bfloat16."""
        ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Some rows next to each other, from a multiple of `BLOCK` on."""
        ...


class Linear(Protocol):
    """A linear layer, its weights prepared once."""

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales and bias."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        ...

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of W in the model's dtype, ``[n, columns]``: W as a table of embeddings."""
        ...


class DenseLinear:
    """Weights as they are.

    Args:
        weight: ``[rows, columns]``, float32 or bfloat16.
        bias: ``[rows]``, or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    @property
    def nbytes(self) -> int:
        """Memory of weights and bias."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights, ``[n, columns]``."""
        return functional.embedding(ids, self.weight)


class PackedLinear:
    """What the packed formats share: shape, bias, and the call of their kernel."""

    kernel: TaskKernel
    rounds_x = True

    def __init__(self, weight: Weight, bias: Tensor | None, group: int) -> None:
        self._rows, self._columns = weight.shape
        self._dtype = weight.dtype
        self._group = group
        self._bias = torch.zeros(self._rows) if bias is None else bias.float().contiguous()
        self._scales = torch.empty(0)
        self._weight = torch.empty(0, dtype=torch.uint8)

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales and bias."""
        return self._weight.nbytes + self._scales.nbytes + self._bias.nbytes

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return self._rows

    @cached_property
    def _places(self) -> tuple[int, int, int]:
        return self._weight.data_ptr(), self._scales.data_ptr(), self._bias.data_ptr()

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        out = torch.empty(x.shape[0], self._rows, dtype=x.dtype)
        x = x.contiguous()
        if not self.rounds_x and x.dtype != torch.bfloat16:
            x = x.to(torch.bfloat16)
        scratch: list[Tensor] = []

        def kept(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            scratch.append(torch.empty(shape, dtype=dtype))
            return scratch[-1]

        for call in self.calls(x, out, kept):
            run_call(call, threads=1 if call.kernel is packed_linear.round_rows and call.tasks <= 8 else None)
        return out

    def calls(self, x: Tensor, out: Tensor, scratch: Scratch, added: Tensor | None = None) -> list[Call]:
        """The kernels' calls, one after the other.

        Args:
            x: contiguous; bfloat16 for bfloat16 weights.
            out: ``[tokens, rows]``, contiguous.
            scratch: gives memory for what is between them.
            added: ``[tokens, rows]``, contiguous, of out's dtype: the result, rounded, is added to it. May be `out`.
        """
        count = len(x)
        scales = totals = x
        raw = self.rounds_x and count <= ROUNDED_INSIDE
        found = []
        if self.rounds_x and not raw:
            values, scales = scratch(x.shape, torch.int8), scratch((count,), torch.float32)
            totals = scratch((count, self._columns // self._group), torch.int32)
            found.append(_rounding(x, self._group, values, scales, totals))
            x = values
        numbers = (
            count, self._rows, self._columns, x.data_ptr(), scales.data_ptr(), totals.data_ptr(), *self._places,
            out.data_ptr(), int(out.dtype == torch.bfloat16), raw, 0 if added is None else added.data_ptr(),
        )  # fmt: skip
        found.append(Call(self.kernel, -(-self._rows // BLOCK) if count else 0, numbers))
        return found


def rounded(x: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ``x: [n, columns]`` as int8, their scales (float32 ``[n]``), and int32 sums of groups of columns."""
    count, columns = x.shape
    values = torch.empty(count, columns, dtype=torch.int8)
    scales = torch.empty(count)
    totals = torch.empty(count, columns // group, dtype=torch.int32)
    run_call(_rounding(x, group, values, scales, totals))
    return values, scales, totals


def _rounding(x: Tensor, group: int, values: Tensor, scales: Tensor, totals: Tensor) -> Call:
    numbers = (
        *x.shape, group, x.data_ptr(), values.data_ptr(), scales.data_ptr(), totals.data_ptr(),
        int(x.dtype == torch.bfloat16),
    )  # fmt: skip
    return Call(packed_linear.round_rows, len(x), numbers)


class Int8Linear(PackedLinear):
    """Weights rounded to int8, one scale for each output.

    Args:
        weight: ``[rows, columns]``, float32 or bfloat16; columns are a multiple of 4.
        bias: ``[rows]``, or ``None``.
    """

    kernel = packed_linear.bytes_linear

    def __init__(self, weight: Weight, bias: Tensor | None = None) -> None:
        super().__init__(weight, bias, weight.shape[1])
        self._scales = torch.empty(self._rows)
        self._weight = _empty_blocks(self._rows, self._columns, 4, torch.uint8)
        for rows in _pieces(weight):
            values, self._scales[rows] = int8_weights(weight[rows])
            _fill_blocks(self._weight, values.view(torch.uint8) ^ 128, rows.start)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights as they are computed with, ``[n, columns]``."""
        values = (_unblocked(self._weight, ids) ^ 128).view(torch.int8)
        return (values.float() * self._scales[ids, None]).to(self._dtype)


class Int4Linear(PackedLinear):
    """Weights rounded to 4 bits in groups of 32 along the columns.

    Args:
        weight: ``[rows, columns]``, float32 or bfloat16; columns are a multiple of 32.
        bias: ``[rows]``, or ``None``.
    """

    kernel = packed_linear.nibbles_linear

    def __init__(self, weight: Weight, bias: Tensor | None = None) -> None:
        super().__init__(weight, bias, GROUP)
        self._weight = _empty_blocks(self._rows, self._columns // 2, 4, torch.uint8)
        self._scales = _empty_blocks(self._rows, self._columns // GROUP, 1, torch.bfloat16)
        for rows in _pieces(weight):
            if isinstance(weight, SymmetricInt4):
                values, scales = weight.four_bits(rows, GROUP)
            else:
                values, scales = int4_weights(weight[rows])
            pairs = (values + 8).view(len(values), -1, 2, 4)
            nibbles = (pairs[:, :, 0] | pairs[:, :, 1] << 4).view(torch.uint8)
            _fill_blocks(self._weight, nibbles.reshape(len(values), -1), rows.start)
            _fill_blocks(self._scales, scales, rows.start)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights as they are computed with, ``[n, columns]``."""
        packed = _unblocked(self._weight, ids).view(len(ids), -1, 1, 4)
        values = torch.cat((packed & 15, packed >> 4), dim=2).view(len(ids), -1, GROUP).float() - 8
        scales = _unblocked(self._scales, ids)
        return (values * scales.float().unsqueeze(2)).view(len(ids), -1).to(self._dtype)


class BFloat16Linear(PackedLinear):
    """bfloat16 weights in blocks.

    Args:
        weight: ``[rows, columns]`` bfloat16; columns are even.
        bias: ``[rows]``, or ``None``.
    """

    kernel = packed_linear.bfloats_linear
    rounds_x = False

    def __init__(self, weight: Weight, bias: Tensor | None = None) -> None:
        super().__init__(weight, bias, 0)
        self._weight = _empty_blocks(self._rows, self._columns, 2, torch.bfloat16)
        for rows in _pieces(weight):
            _fill_blocks(self._weight, weight[rows], rows.start)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights, ``[n, columns]``."""
        return _unblocked(self._weight, ids)


def int8_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``[rows, columns]`` as int8 in [-127, 127] and a float32 scale for each row."""
    wide = weight.float()
    scales = wide.abs().amax(dim=1).clamp_(min=1e-30).div_(127)
    return (wide / scales[:, None]).round_().to(torch.int8), scales


def int4_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``[rows, columns]`` as integers in [-8, 7] and bfloat16 scales ``[rows, columns / 32]``.

    The scale is the number of greatest size over -8, so that this number is exact, as in llama.cpp's q4_0.
    """
    groups = weight.float().view(len(weight), -1, GROUP)
    extreme = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scales = (extreme / -8).to(torch.bfloat16)
    factors = torch.where(scales == 0, 1.0, scales.float())
    values = (groups / factors).round_().clamp_(-8, 7).to(torch.int8)
    return values.view(weight.shape), scales.squeeze(2)


def _pieces(weight: Weight) -> Iterator[slice]:
    """Rows that are packed at a time: what packing needs besides is small then."""
    rows, columns = weight.shape
    step = max(1, PACKED_AT_ONCE // (BLOCK * columns)) * BLOCK
    for at in range(0, rows, step):
        yield slice(at, min(at + step, rows))


def _empty_blocks(rows: int, columns: int, together: int, dtype: torch.dtype) -> Tensor:
    """``[rows / 64, columns / together, 4, 16, together]``, zeros beyond the last row."""
    out = torch.empty(-(-rows // BLOCK), columns // together, 4, 16, together, dtype=dtype)
    if rows % BLOCK:
        out[-1] = 0
    return out


def _fill_blocks(blocks: Tensor, values: Tensor, first: int) -> None:
    """Put rows ``[n, columns]`` into their blocks, from row `first` on, which begins a block.

    All whole blocks are one copy: many small ones on several threads wait for each other where a machine is busy.
    """
    together = blocks.shape[-1]
    flat = blocks[first // BLOCK :].view(-1, blocks.shape[1], BLOCK, together)
    rows = values.reshape(len(values), -1, together)
    whole = len(rows) // BLOCK
    flat[:whole] = rows[: whole * BLOCK].view(whole, BLOCK, rows.shape[1], together).transpose(1, 2)
    if len(rows) % BLOCK:
        flat[whole, :, : len(rows) % BLOCK] = rows[whole * BLOCK :].transpose(0, 1)


def _unblocked(blocks: Tensor, rows: Tensor) -> Tensor:
    """Some rows of what lies in blocks: ``[n, columns]``."""
    return blocks[rows // BLOCK, :, rows % BLOCK // 16, rows % 16].reshape(len(rows), -1)


def make_linear(
    weight: Weight,
    bias: Tensor | None = None,
    quantization: str | None = None,
    device: torch.device = CPU,
) -> Linear:
    """The fastest layer for these weights on a device.

    Args:
        weight: ``[rows, columns]``, float32 or bfloat16.
        bias: ``[rows]``, or ``None``.
        quantization: ``None``, ``"int8"``, ``"int4"`` or, on GPUs, ``"fp8"``. Where columns cannot be grouped (a
            multiple of 32 on CPUs, of 128 on GPUs), int4 becomes int8. On CPUs, where they are no multiple of 4, int8
            becomes the weights as they are.
        device: where the layer runs; weights are moved there.
    """
    if by_triton(device):
        return _device_linear(weight[:].to(device), None if bias is None else bias.to(device), quantization)
    columns = weight.shape[1]
    if quantization == "int4" and columns % GROUP == 0:
        return Int4Linear(weight, bias)
    if quantization is not None and columns % 4 == 0:
        return Int8Linear(weight, bias)
    if weight.dtype == torch.bfloat16 and columns % 2 == 0:
        return BFloat16Linear(weight, bias)
    return DenseLinear(weight[:], bias)


def make_packed_linear(
    numbers: Int4Numbers,
    bias: Tensor | None,
    dtype: torch.dtype,
    quantization: str | None = None,
    device: torch.device = CPU,
) -> Linear:
    """The layer for weights that come in 4 bits.

    On GPUs they stay as they are if the kernels have such groups; on CPUs if int4 is asked for and all zero points are
    8 (scales become bfloat16). Otherwise they become a dense matrix, of which `make_linear` makes what it makes of any.

    Args:
        numbers: the weights.
        bias: ``[rows]``, or ``None``.
        dtype: of the model.
        quantization: see `make_linear`; for a dense matrix.
        device: see `make_linear`.
    """
    if by_triton(device) and fits_int4(len(numbers.values), numbers.group):
        from sgl_like.kernels.device_linear import Int4DeviceLinear

        moved = Int4Numbers(*(each.to(device) for each in numbers))
        return Int4DeviceLinear(pack_int4(moved), None if bias is None else bias.to(device), dtype)
    weight = SymmetricInt4(numbers, dtype)
    if quantization == "int4" and numbers.group % GROUP == 0 and bool((numbers.zeros == 8).all()):
        return make_linear(weight, bias, quantization, device)
    return make_linear(weight[:], bias, quantization, device)


def _device_linear(weight: Tensor, bias: Tensor | None, quantization: str | None) -> Linear:
    from sgl_like.kernels.device_linear import Int4DeviceLinear, RoundedLinear, round_int4

    if quantization == "int4" and fits_int4(weight.shape[1], GROUP):
        return Int4DeviceLinear(round_int4(weight, GROUP), bias, weight.dtype)
    if quantization is not None:
        rounded = round_rows(weight, torch.float8_e4m3fn if quantization == "fp8" else torch.int8)
        return RoundedLinear(RoundedWeight(*rounded), bias, weight.dtype)
    return DenseLinear(weight, bias)
