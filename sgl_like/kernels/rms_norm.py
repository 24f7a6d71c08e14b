"""Root-mean-square normalisation (Zhang and Sennrich, 2019).

Contract: ``rms_norm(x, weight, eps) -> y`` with ``x, y: [..., hidden]``, ``weight: [hidden]`` of x's dtype or
float32; the mean of squares is taken in float32, and so is the product with a float32 weight.
``add_rms_norm(x, added, weight, eps) -> y`` first adds to x, which is changed, rounded to its dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgl_like.kernels import pointwise
from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.pointwise import is_half
from sgl_like.kernels.threads import Call, float_bits


def reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Plain definition, computed in float32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * weight.float()).to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """On CPUs machine code, a task for each row."""
    if by_triton(x):
        from sgl_like.kernels.triton.rms_norm import rms_norm as run

        return run(x, weight, eps)
    x = x.contiguous()
    out = torch.empty_like(x)
    pointwise.run(call(x, weight, eps, out))
    return out


def add_rms_norm(x: Tensor, added: Tensor, weight: Tensor, eps: float) -> Tensor:
    """In Triton one pass; on CPUs two operations."""
    if by_triton(x):
        from sgl_like.kernels.triton.rms_norm import add_rms_norm as run

        return run(x, added, weight, eps)
    return rms_norm(x.add_(added), weight, eps)


def call(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Call:
    """The kernel's call; x and out are contiguous."""
    size = x.shape[-1]
    numbers = (
        x.data_ptr(), weight.data_ptr(), out.data_ptr(), size, is_half(x), is_half(weight), float_bits(eps)
    )  # fmt: skip
    return Call(pointwise.rms_norm, x.numel() // size, numbers)
