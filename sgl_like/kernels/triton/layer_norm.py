"""`kernels.layer_norm` in Triton: a program takes a few rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of, row_warps, rows_of


@triton.jit(do_not_specialize=["rows"])
def _layer_norm(x, weight, bias, out, eps, rows, size, R: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < size)
    wide = tl.load(x + row * size + column, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, wide - (tl.sum(wide, axis=1) / size)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / size + eps)[:, None]
    y = centred * scale * tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    y += tl.load(bias + column, mask=column < size, other=0.0).to(tl.float32)
    tl.store(out + row * size + column, y.to(out.dtype.element_ty), mask=inside)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """See `kernels.layer_norm`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        size = x.shape[-1]
        rows = x.numel() // size
        block = block_of(size)
        at_once = rows_of(block)
        _layer_norm[(triton.cdiv(rows, at_once),)](
            x,
            weight,
            bias,
            out,
            eps,
            rows,
            size,
            R=at_once,
            BLOCK=block,
            num_warps=row_warps(at_once * block),
        )
    return out
