"""`kernels.rms_norm` in Triton, alone or with the addition that comes before it: one program for each row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of, row_warps


@triton.jit
def _rms_norm(x, added, weight, out, eps, size, stride, HAS_ADDED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < size
    whole = tl.load(x + row * stride + at, mask=inside, other=0.0)
    if HAS_ADDED:
        whole = (
            whole.to(tl.float32) + tl.load(added + row * size + at, mask=inside, other=0.0).to(tl.float32)
        ).to(x.dtype.element_ty)
        tl.store(x + row * stride + at, whole, mask=inside)
    wide = whole.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / size + eps)
    y = wide * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, y.to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `kernels.rms_norm`."""
    return _run(x.contiguous(), None, weight, eps)


def add_rms_norm(x: Tensor, added: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x += added``, rounded to x's dtype, and the norm of that."""
    assert x.is_contiguous() and x.shape == added.shape
    return _run(x, added.contiguous(), weight, eps)


def _run(x: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    size = x.shape[-1]
    out = torch.empty_like(x)
    rows = x.numel() // size if size else 0
    if rows:
        block = block_of(size)
        _rms_norm[(rows,)](
            x, x if added is None else added, weight, out, eps, size, size, HAS_ADDED=added is not None,
            BLOCK=block, num_warps=row_warps(block),
        )  # fmt: skip
    return out
