"""`kernels.rotary.store_heads` in Triton: one program for each head of each token, queries, keys and values alike.

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
def _store_heads(
    qkv, cos, sin, slots, queries, keys, values, k_scale, v_scale, heads, kv_heads, size, turned,
    FP8: tl.constexpr, INTERPRET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < size
    start = qkv + (token * (heads + 2 * kv_heads) + head) * size
    x = tl.load(start + at, mask=inside, other=0.0)
    half = turned // 2
    turns = at < tl.where(head < heads + kv_heads, turned, 0)
    partner = tl.where(at < half, at + half, at - half)
    other = tl.load(start + partner, mask=turns, other=0.0).to(tl.float32)
    c = tl.load(cos + token * turned + at, mask=turns, other=1.0).to(tl.float32)
    s = tl.load(sin + token * turned + at, mask=turns, other=0.0).to(tl.float32)
    wide = x.to(tl.float32) * c + tl.where(at < half, -other, other) * s
    x = tl.where(turns, wide, x.to(tl.float32)).to(queries.dtype.element_ty)
    slot = tl.load(slots + token).to(tl.int64)
    if head < heads:
        tl.store(queries + (token * heads + head) * size + at, x, mask=inside)
    elif head < heads + kv_heads:
        place = keys + (slot * kv_heads + head - heads) * size + at
        tl.store(place, _stored(x, k_scale, keys.dtype.element_ty, FP8, INTERPRET), mask=inside)
    else:
        place = values + (slot * kv_heads + head - heads - kv_heads) * size + at
        tl.store(place, _stored(x, v_scale, values.dtype.element_ty, FP8, INTERPRET), mask=inside)


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
        _store_heads[(tokens, all_heads)](
            qkv, cos, sin, slots, queries, k_cache, v_cache, *scales, heads, kv_heads, size, turned,
            FP8=k_cache.dtype == torch.float8_e4m3fn, INTERPRET=INTERPRETED, BLOCK=block_of(size), num_warps=1,
        )  # fmt: skip
    return queries
