"""`kernels.rotary.store_heads` in Triton: a program takes a few tokens, with all their heads side by side.

A head is loaded as two halves, which turn one another, and a rest that stays as it is. Keys and values may be kept in
fp8 (e4m3): then they are divided by a scale for all of a layer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import INTERPRETED, block_of, row_warps, rows_of, to_fp8


@triton.jit
def _store(place, x, inside, scale, FP8: tl.constexpr, INTERPRET: tl.constexpr):
    if FP8:
        tl.store(place, to_fp8(x.to(tl.float32) / scale, INTERPRET), mask=inside)
    else:
        tl.store(place, x.to(place.dtype.element_ty), mask=inside)


@triton.jit
def _move(source, target, inside, end, scale, FP8: tl.constexpr, INTERPRET: tl.constexpr, D: tl.constexpr):
    """The first `end` numbers of heads, from one place to the other."""
    d = tl.arange(0, D)[None, None, :]
    inside = inside & (d < end)
    _store(target + d, tl.load(source + d, mask=inside, other=0.0), inside, scale, FP8, INTERPRET)


@triton.jit
def _turn(
    source, target, cos, sin, inside, turned, scale, FP8: tl.constexpr, INTERPRET: tl.constexpr, HALF: tl.constexpr
):  # fmt: skip
    """The first `turned` numbers of heads, turned by the angles of their tokens, from one place to the other."""
    half = turned // 2
    d = tl.arange(0, HALF)[None, None, :]
    inside = inside & (d < half)
    a = tl.load(source + d, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(source + half + d, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + d, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + d, mask=inside, other=0.0).to(tl.float32)
    dtype = source.dtype.element_ty  # numbers are rounded to it before they are rounded to fp8
    _store(target + d, (a * c - b * s).to(dtype), inside, scale, FP8, INTERPRET)
    _store(target + half + d, (b * c + a * s).to(dtype), inside, scale, FP8, INTERPRET)


@triton.jit(do_not_specialize=["tokens"])
def _store_heads(
    qkv, cos, sin, slots, queries, keys, values, k_scale, v_scale, tokens, heads, kv_heads, size, turned,
    FP8: tl.constexpr, INTERPRET: tl.constexpr, T: tl.constexpr, H: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
    HALF: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)[:, None, None]
    there = token < tokens
    h, k = tl.arange(0, H)[None, :, None], tl.arange(0, K)[None, :, None]
    has_q, has_k = there & (h < heads), there & (k < kv_heads)
    q_from = qkv + (token * (heads + 2 * kv_heads) + h) * size
    k_from = qkv + (token * (heads + 2 * kv_heads) + heads + k) * size
    q_to = queries + (token * heads + h) * size
    place = (tl.load(slots + token, mask=there, other=0).to(tl.int64) * kv_heads + k) * size
    if HALF:
        cos += token * turned
        sin += token * turned
        _turn(q_from, q_to, cos, sin, has_q, turned, 1.0, False, INTERPRET, HALF)
        _turn(k_from, keys + place, cos, sin, has_k, turned, k_scale, FP8, INTERPRET, HALF)
    if REST:
        rest = size - turned
        _move(q_from + turned, q_to + turned, has_q, rest, 1.0, False, INTERPRET, REST)
        _move(k_from + turned, keys + place + turned, has_k, rest, k_scale, FP8, INTERPRET, REST)
    _move(k_from + kv_heads * size, values + place, has_k, size, v_scale, FP8, INTERPRET, D)


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
        block = block_of(heads) * block_of(size)
        at_once = rows_of(block)
        _store_heads[(triton.cdiv(tokens, at_once),)](
            qkv, cos, sin, slots, queries, k_cache, v_cache, *scales, tokens, heads, kv_heads, size, turned,
            FP8=k_cache.dtype == torch.float8_e4m3fn, INTERPRET=INTERPRETED, T=at_once, H=block_of(heads),
            K=block_of(kv_heads), D=block_of(size), HALF=block_of(turned // 2) if turned else 0,
            REST=block_of(size - turned) if turned < size else 0, num_warps=row_warps(at_once * block // 2),
        )  # fmt: skip
    return queries
