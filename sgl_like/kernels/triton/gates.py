"""`kernels.silu_mul` and `kernels.gelu_mul` in Triton: a program takes a part of a row, or a few short rows."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import NUMBERS, block_of, empty_like_rows, row_warps, rows_of, sigmoid, tanh

SILU, GELU, GELU_TANH = range(3)


@triton.jit(do_not_specialize=["rows"])
def _gate_mul(gate_up, out, rows, width, KIND: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < width)
    at = gate_up + row * 2 * width + column
    gate = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(at + width, mask=inside, other=0.0).to(tl.float32)
    if KIND == 0:
        turned = gate * sigmoid(gate)
    elif KIND == 1:
        turned = 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))
    else:
        turned = 0.5 * gate * (1 + tanh(0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)))
    tl.store(out + row * width + column, (turned * up).to(out.dtype.element_ty), mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """See `kernels.silu_mul`."""
    return _run(gate_up, SILU)


def gelu_mul(gate_up: Tensor, tanh: bool) -> Tensor:
    """See `kernels.gelu_mul`."""
    return _run(gate_up, GELU_TANH if tanh else GELU)


def _run(gate_up: Tensor, kind: int) -> Tensor:
    gate_up = gate_up.contiguous()
    width = gate_up.shape[1] // 2
    out = empty_like_rows(gate_up, width)
    if out.numel():
        block = block_of(width, most=NUMBERS)
        at_once = rows_of(block)
        _gate_mul[(triton.cdiv(len(out), at_once), triton.cdiv(width, block))](
            gate_up,
            out,
            len(out),
            width,
            KIND=kind,
            R=at_once,
            BLOCK=block,
            num_warps=row_warps(at_once * block),
        )
    return out
