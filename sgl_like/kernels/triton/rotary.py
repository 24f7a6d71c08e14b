"""`kernels.rotary.store_heads` in Triton: a program takes a few tokens, with all their heads side by side.

A head is loaded as two halves, which turn one another, and a rest that stays as it is; for its norm once more, from the
cache. Keys and values may be kept in
fp8 (e4m3): then they are divided by a scale for all of a layer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.rotary import HeadNorms
from sgl_like.kernels.triton.base import INTERPRETED, block_of, row_warps, rows_of, to_fp8


@triton.jit
def _store(place, x, inside, scale, FP8: tl.constexpr, INTERPRET: tl.constexpr):
    if FP8:
        tl.store(place, to_fp8(x.to(tl.float32) / scale, INTERPRET), mask=inside)
    else:
        tl.store(place, x.to(place.dtype.element_ty), mask=inside)


@triton.jit
def _load(place, weight, factor, inside, HAS_NORM: tl.constexpr):
    """Numbers of heads in float32, times a factor of each head and weights, rounded to their dtype."""
    x = tl.load(place, mask=inside, other=0.0)
    if HAS_NORM:
        w = tl.load(weight, mask=inside, other=0.0).to(tl.float32)
        x = (x.to(tl.float32) * factor * w).to(place.dtype.element_ty)
    return x.to(tl.float32)


@triton.jit
def _move(
    source, target, cos, sin, weight, eps, inside, size, turned, scale, FP8: tl.constexpr, INTERPRET: tl.constexpr,
    HAS_NORM: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """Heads from one place to the other, normalised, and turned by the angles of their tokens."""
    factor = 1.0
    if HAS_NORM:
        d = tl.arange(0, D)[None, None, :]
        x = tl.load(source + d, mask=inside & (d < size), other=0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(x * x, axis=2) / size + eps)[:, :, None]
    dtype = source.dtype.element_ty  # numbers are rounded to it before they are rounded to fp8
    if HALF:
        half = turned // 2
        i = tl.arange(0, HALF)[None, None, :]
        turns = inside & (i < half)
        a = _load(source + i, weight + i, factor, turns, HAS_NORM)
        b = _load(source + half + i, weight + half + i, factor, turns, HAS_NORM)
        c = tl.load(cos + i, mask=turns, other=0.0).to(tl.float32)
        s = tl.load(sin + i, mask=turns, other=0.0).to(tl.float32)
        _store(target + i, (a * c - b * s).to(dtype), turns, scale, FP8, INTERPRET)
        _store(target + half + i, (b * c + a * s).to(dtype), turns, scale, FP8, INTERPRET)
    if REST:
        i = turned + tl.arange(0, REST)[None, None, :]
        stays = inside & (i < size)
        x = _load(source + i, weight + i, factor, stays, HAS_NORM)
        _store(target + i, x.to(dtype), stays, scale, FP8, INTERPRET)


@triton.jit(do_not_specialize=["tokens"])
def _store_heads(
    qkv, cos, sin, slots, queries, keys, values, q_weight, k_weight, eps, k_scale, v_scale, tokens, heads, kv_heads,
    size, turned, FP8: tl.constexpr, INTERPRET: tl.constexpr, HAS_NORM: tl.constexpr, T: tl.constexpr, H: tl.constexpr,
    K: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)[:, None, None]
    there = token < tokens
    cos += token * turned
    sin += token * turned
    qkv += token * (heads + 2 * kv_heads) * size
    h = tl.arange(0, H)[None, :, None]
    q = queries + (token * heads + h) * size
    _move(
        qkv + h * size, q, cos, sin, q_weight, eps, there & (h < heads), size, turned, 1.0, False, INTERPRET, HAS_NORM,
        D, HALF, REST,
    )  # fmt: skip
    n = tl.arange(0, K)[None, :, None]
    inside = there & (n < kv_heads)
    place = (tl.load(slots + token, mask=there, other=0).to(tl.int64) * kv_heads + n) * size
    k = qkv + (heads + n) * size
    _move(
        k, keys + place, cos, sin, k_weight, eps, inside, size, turned, k_scale, FP8, INTERPRET, HAS_NORM,
        D, HALF, REST,
    )  # fmt: skip
    v = k + kv_heads * size
    _move(v, values + place, cos, sin, qkv, eps, inside, size, 0, v_scale, FP8, INTERPRET, False, D, 0, D)


def store_heads(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    norms: HeadNorms | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """See `kernels.rotary.store_heads`.

    Args:
        qkv, angles, slots, k_cache, v_cache, norms: as there; the caches may be fp8 e4m3.
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
            qkv, cos, sin, slots, queries, k_cache, v_cache, *(norms or (qkv, qkv, 0.0)), *scales, tokens, heads,
            kv_heads, size, turned, FP8=k_cache.dtype == torch.float8_e4m3fn, INTERPRET=INTERPRETED,
            HAS_NORM=norms is not None, T=at_once, H=block_of(heads), K=block_of(kv_heads), D=block_of(size),
            HALF=block_of(turned // 2) if turned else 0, REST=block_of(size - turned) if turned < size else 0,
            num_warps=row_warps(at_once * block // 2),
        )  # fmt: skip
    return queries
