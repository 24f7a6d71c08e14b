"""`kernels.rms_norm` in Triton, alone or with the addition that comes before it: a program takes a few rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of, row_warps, rows_of


@triton.jit(do_not_specialize=["rows"])
def _rms_norm(
    x, added, weight, out, eps, rows, size, HAS_ADDED: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    at = row * size + column
    inside = (row < rows) & (column < size)
    given = tl.load(x + at, mask=inside, other=0.0)
    if HAS_ADDED:
        more = tl.load(added + at, mask=inside, other=0.0).to(tl.float32)
        given = (given.to(tl.float32) + more).to(x.dtype.element_ty)
        tl.store(x + at, given, mask=inside)
    wide = given.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=1) / size + eps)[:, None]
    y = wide * scale * tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `kernels.rms_norm`."""
    return _run(x.contiguous(), None, weight, eps)


def add_rms_norm(x: Tensor, added: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x += added``, rounded to x's dtype, and the norm of that."""
    assert x.is_contiguous() and x.shape == added.shape
    return _run(x, added.contiguous(), weight, eps)


def _run(x: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    out = torch.empty_like(x)
    if x.numel():
        size = x.shape[-1]
        rows = x.numel() // size
        block = block_of(size)
        at_once = rows_of(block)
        _rms_norm[(triton.cdiv(rows, at_once),)](
            x, x if added is None else added, weight, out, eps, rows, size, HAS_ADDED=added is not None, R=at_once,
            BLOCK=block, num_warps=row_warps(at_once * block),
        )  # fmt: skip
    return out
