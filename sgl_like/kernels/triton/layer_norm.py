"""`kernels.layer_norm` in Triton: one program for each row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of, row_warps


@triton.jit
def _layer_norm(x, weight, bias, out, eps, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < size
    wide = tl.load(x + row * size + at, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, wide - tl.sum(wide, axis=0) / size, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=0) / size + eps)
    y = centred * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, y.to(out.dtype.element_ty), mask=inside)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """See `kernels.layer_norm`."""
    x = x.contiguous()
    size = x.shape[-1]
    out = torch.empty_like(x)
    if x.numel():
        block = block_of(size)
        _layer_norm[(x.numel() // size,)](
            x, weight, bias, out, eps, size, BLOCK=block, num_warps=row_warps(block)
        )
    return out
