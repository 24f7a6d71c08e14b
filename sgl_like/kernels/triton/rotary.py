"""`kernels.rotary.store_heads` in Triton: one program for each token, with all its heads side by side.

Keys and values may be kept in fp8 (e4m3): then they are divided by a scale for all of a layer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import INTERPRETED, block_of, to_fp8


@triton.jit
def _stored(x, scale, dtype: tl.constexpr, FP8: tl.constexpr, INTERPRET: tl.constexpr):
    if FP8:
        return to_fp8(x.to(tl.float32) / scale, INTERPRET)
    return x.to(dtype)


@triton.jit
def _turned(start, cos, sin, heads, size, turned, H: tl.constexpr, D: tl.constexpr):
    """Heads side by side, ``[H, D]`` in float32, each turned by its token's angles."""
    h, d = tl.arange(0, H)[:, None], tl.arange(0, D)[None, :]
    x = tl.load(start + h * size + d, mask=(h < heads) & (d < size), other=0.0).to(tl.float32)
    half = turned // 2
    turns = d < turned
    partner = tl.where(d < half, d + half, d - half)
    other = tl.load(start + h * size + partner, mask=(h < heads) & turns, other=0.0).to(tl.float32)
    c = tl.load(cos + d, mask=turns, other=1.0).to(tl.float32)
    s = tl.load(sin + d, mask=turns, other=0.0).to(tl.float32)
    return tl.where(turns, x * c + tl.where(d < half, -other, other) * s, x)


@triton.jit
def _store_heads(
    qkv, cos, sin, slots, queries, keys, values, k_scale, v_scale, heads, kv_heads, size, turned,
    FP8: tl.constexpr, INTERPRET: tl.constexpr, H: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    start = qkv + token * (heads + 2 * kv_heads) * size
    cos += token * turned
    sin += token * turned
    d = tl.arange(0, D)[None, :]
    h = tl.arange(0, H)[:, None]
    q = _turned(start, cos, sin, heads, size, turned, H, D)
    place = queries + (token * heads + h) * size + d
    tl.store(place, q.to(queries.dtype.element_ty), mask=(h < heads) & (d < size))

    n = tl.arange(0, K)[:, None]
    inside = (n < kv_heads) & (d < size)
    where = (tl.load(slots + token).to(tl.int64) * kv_heads + n) * size + d
    k = _turned(start + heads * size, cos, sin, kv_heads, size, turned, K, D).to(queries.dtype.element_ty)
    v = tl.load(start + (heads + kv_heads + n) * size + d, mask=inside, other=0.0)
    tl.store(keys + where, _stored(k, k_scale, keys.dtype.element_ty, FP8, INTERPRET), mask=inside)
    tl.store(values + where, _stored(v, v_scale, values.dtype.element_ty, FP8, INTERPRET), mask=inside)


def store_heads(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    scales: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """See `kernels.rotary.store_heads`.

    Args:
        qkv, angles, slots, k_cache, v_cache: as there; the caches may be fp8 e4m3.
        scales: of keys and of values in fp8.
    """
    qkv = qkv.contiguous()
    tokens, all_heads, size = qkv.shape
    kv_heads = k_cache.shape[1]
    heads = all_heads - 2 * kv_heads
    queries = torch.empty(tokens, heads, size, dtype=qkv.dtype, device=qkv.device)
    cos, sin = (qkv, qkv) if angles is None else (angles[0].contiguous(), angles[1].contiguous())
    turned = 0 if angles is None else cos.shape[-1]
    assert k_cache.is_contiguous() and v_cache.is_contiguous()
    if tokens:
        _store_heads[(tokens,)](
            qkv, cos, sin, slots, queries, k_cache, v_cache, *scales, heads, kv_heads, size, turned,
            FP8=k_cache.dtype == torch.float8_e4m3fn, INTERPRET=INTERPRETED, H=block_of(heads), K=block_of(kv_heads),
            D=block_of(size), num_warps=4,
        )  # fmt: skip
    return queries
