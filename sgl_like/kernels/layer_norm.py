"""Layer normalisation (Ba, Kiros and Hinton, 2016).

Contract: ``layer_norm(x, weight, bias, eps) -> y`` with ``x, y: [..., hidden]``, ``weight, bias: [hidden]``, any float
dtype; mean and variance are taken in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sgl_like.kernels.dispatch import by_triton


def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Plain definition, computed in float32."""
    wide = x.float()
    wide = wide - wide.mean(-1, keepdim=True)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * weight.float() + bias.float()).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """On CPUs torch's fused operator."""
    if by_triton(x):
        from sgl_like.kernels.triton.layer_norm import layer_norm as run

        return run(x, weight, bias, eps)
    return functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)
