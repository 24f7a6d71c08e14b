"""Root-mean-square normalisation (Zhang and Sennrich, 2019).

Contract: ``rms_norm(x, weight, eps) -> y`` with ``x, y: [..., hidden]``, ``weight: [hidden]`` of x's dtype or
float32; the mean of squares is taken in float32, and so is the product with a float32 weight.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Plain definition, computed in float32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * weight.float()).to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """CPU: torch's fused operator."""
    return functional.rms_norm(x.to(weight.dtype), (x.shape[-1],), weight, eps).to(x.dtype)
