"""Rotary position embedding (Su et al., 2021), in the half-split layout of Llama.

Contract: ``rotary(x, cos, sin) -> y`` with ``x, y: [tokens, heads, head_dim]`` and ``cos, sin: [tokens, 1, turned]``
already looked up for each token's position, second half of the last axis equal to the first. Of each head the first
`turned` numbers are turned, and the others kept (``turned <= head_dim``).
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair ``(x[i], x[i + turned/2])`` is turned by its angle, in float32."""
    turned = cos.shape[-1]
    half = turned // 2
    out = x.float().clone()
    a, b = x[..., :half].float(), x[..., half:turned].float()
    c, s = cos[..., :half].float(), sin[..., :half].float()
    out[..., :half] = a * c - b * s
    out[..., half:turned] = b * c + a * s
    return out.to(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """CPU: three torch operations, one temporary."""
    turned = cos.shape[-1]
    if turned < x.shape[-1]:
        return torch.cat((rotary(x[..., :turned], cos, sin), x[..., turned:]), dim=-1)
    a, b = x.chunk(2, dim=-1)
    rotated = torch.cat((-b, a), dim=-1)
    return torch.addcmul(x * cos, rotated, sin)
