"""Rotary position embedding (Su et al., 2021), in the half-split layout of Llama.

Contract: ``rotary(x, cos, sin) -> y`` with ``x, y: [tokens, heads, head_dim]`` and ``cos, sin: [tokens, 1, turned]``
already looked up for each token's position, second half of the last axis equal to the first. Of each head the first
`turned` numbers are turned, and the others kept (``turned <= head_dim``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sgl_like.kernels import pointwise
from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.rms_norm import rms_norm
from sgl_like.kernels.threads import Call


class HeadNorms(NamedTuple):
    """Root-mean-square norms of each head's queries and keys, before they are turned.

    Args:
        queries, keys: weights, ``[head_dim]``.
        eps: of both.
    """

    queries: Tensor
    keys: Tensor
    eps: float


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


def store_heads(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    norms: HeadNorms | None = None,
) -> Tensor:
    """Normalise and turn queries and keys, put keys and values into their slots, and give back the queries.

    Args:
        qkv: ``[tokens, heads + 2 * kv_heads, head_dim]``: queries, keys, values.
        angles: `rotary`'s cosines and sines, ``[tokens, 1, turned]`` each; ``None`` turns nothing.
        slots: int64 ``[tokens]``.
        k_cache: ``[slots, kv_heads, head_dim]``, changed.
        v_cache: likewise.
        norms: ``None`` normalises nothing.

    Returns:
        ``[tokens, heads, head_dim]``.
    """
    if by_triton(qkv):
        from sgl_like.kernels.triton.rotary import store_heads as run

        return run(qkv, angles, slots, k_cache, v_cache, norms)
    tokens, all_heads, head_dim = qkv.shape
    kv_heads = k_cache.shape[1]
    heads = all_heads - 2 * kv_heads
    if norms is not None:
        q, k, v = torch.split(qkv, [heads, kv_heads, kv_heads], dim=1)
        qkv = torch.cat((rms_norm(q, norms.queries, norms.eps), rms_norm(k, norms.keys, norms.eps), v), dim=1)
    qkv = qkv.contiguous()
    queries = torch.empty(tokens, heads, head_dim, dtype=qkv.dtype)
    if angles is not None:
        angles = angles[0].contiguous(), angles[1].contiguous()
    pointwise.run(store_call(qkv, angles, slots, k_cache, v_cache, queries))
    return queries


def store_call(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    queries: Tensor,
) -> Call:
    """The call of `store_heads`, whose result goes to `queries`; all are contiguous."""
    cos, sin = (qkv, qkv) if angles is None else angles
    turned = 0 if angles is None else cos.shape[-1]
    assert k_cache.is_contiguous() and v_cache.is_contiguous() and k_cache.dtype == cos.dtype == qkv.dtype
    numbers = (
        qkv.data_ptr(), cos.data_ptr(), sin.data_ptr(), slots.data_ptr(), queries.data_ptr(), k_cache.data_ptr(),
        v_cache.data_ptr(), queries.shape[1], k_cache.shape[1], qkv.shape[2], turned, qkv.element_size(),
    )  # fmt: skip
    return Call(pointwise.store_heads, len(qkv), numbers)
