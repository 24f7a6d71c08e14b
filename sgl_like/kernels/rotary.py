"""Rotary position embedding (Su et al., 2021), in the half-split layout of Llama.

Contract: ``rotary(x, cos, sin) -> y`` with ``x, y: [tokens, heads, head_dim]`` and ``cos, sin: [tokens, 1,
head_dim]`` already looked up for each token's position, second half of the last axis equal to the first.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair ``(x[i], x[i + head_dim/2])`` is turned by its angle, in float32."""
    half = x.shape[-1] // 2
    out = torch.empty(x.shape, dtype=torch.float32)
    a, b = x[..., :half].float(), x[..., half:].float()
    c, s = cos[..., :half].float(), sin[..., :half].float()
    out[..., :half] = a * c - b * s
    out[..., half:] = b * c + a * s
    return out.to(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """CPU: three torch operations, one temporary."""
    a, b = x.chunk(2, dim=-1)
    rotated = torch.cat((-b, a), dim=-1)
    return torch.addcmul(x * cos, rotated, sin)
