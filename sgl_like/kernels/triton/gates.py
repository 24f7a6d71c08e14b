"""`kernels.silu_mul` and `kernels.gelu_mul` in Triton: a program for a part of each row."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of, empty_like_rows, sigmoid, tanh

SILU, GELU, GELU_TANH = range(3)


@triton.jit
def _gate_mul(gate_up, out, width, KIND: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(gate_up + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    if KIND == 0:
        turned = gate * sigmoid(gate)
    elif KIND == 1:
        turned = 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))
    else:
        turned = 0.5 * gate * (1 + tanh(0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)))
    tl.store(out + row * width + at, (turned * up).to(out.dtype.element_ty), mask=inside)


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
        block = block_of(width, most=1024)
        _gate_mul[(len(out), triton.cdiv(width, block))](gate_up, out, width, KIND=kind, BLOCK=block)
    return out
