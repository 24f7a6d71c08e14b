"""`kernels.attention` in Triton: one kernel for all tiles of a plan (`attention_plan`), and one that merges.

The queries of a tile are its tokens times the heads that share a key (GQA packing), so a key is loaded once for all of
them. Softmax is online (Milakov and Gimelshein, 2018; Dao et al., 2022), in base 2; split keys as in flash decoding.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.attention_plan import FEW_QUERIES, FIELDS, MANY_QUERIES, AttentionPlan
from sgl_like.kernels.triton.base import INTERPRETED, block_of, dot, tanh
from sgl_like.kernels.triton.tuning import Config, choose


@triton.jit
def _tile(
    q, k_cache, v_cache, out, partial, sums, tiles, order, kv_slots, scale, softcap, window, v_scale, q_stride, heads,
    kv_heads, size, GROUP: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr, FP8: tl.constexpr,
    FIELDS: tl.constexpr, INTERPRET: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    tile = tiles + tl.program_id(0) * FIELDS
    kv_head = tl.program_id(1)
    first, count, begin = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    low, high = tl.load(tile + 3), tl.load(tile + 4)
    place, where = tl.load(tile + 5), tl.load(tile + 6)

    m = tl.arange(0, M)
    token, head = m // GROUP, kv_head * GROUP + m % GROUP
    d = tl.arange(0, D)
    used = (token < count)[:, None] & (d < size)[None, :]
    rows = tl.load(order + first + token, mask=token < count, other=0).to(tl.int64)
    queries = tl.load(
        q + rows[:, None] * q_stride + (head * size)[:, None] + d[None, :], mask=used, other=0.0
    )
    if FP8:
        queries = queries.to(tl.bfloat16)

    best = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, D], tl.float32)
    last = place + token  # the last key that each query sees
    start = low
    if HAS_WINDOW:
        start = tl.maximum(low, place - window + 1)
    end = tl.minimum(high, place + count)
    for at in range(start, end, N):
        j = at + tl.arange(0, N)
        live = j < end
        slot = tl.load(kv_slots + begin + j, mask=live, other=0).to(tl.int64)
        where_kv = (slot * kv_heads + kv_head) * size
        keys = tl.load(
            k_cache + where_kv[None, :] + d[:, None], mask=live[None, :] & (d < size)[:, None], other=0.0
        )
        if FP8:
            keys = keys.to(tl.bfloat16)
        s = dot(queries, keys, INTERPRET) * scale
        if HAS_CAP:
            s = softcap * tanh(s / softcap)
        seen = (j[None, :] <= last[:, None]) & live[None, :]
        if HAS_WINDOW:
            seen = seen & (j[None, :] > last[:, None] - window)
        s = tl.where(seen, s * 1.4426950408889634, float("-inf"))
        top = tl.maximum(best, tl.max(s, axis=1))
        safe = tl.where(top == float("-inf"), 0.0, top)
        p = tl.exp2(s - safe[:, None])
        shrunk = tl.exp2(best - safe)
        total = total * shrunk + tl.sum(p, axis=1)
        values = tl.load(
            v_cache + where_kv[:, None] + d[None, :], mask=live[:, None] & (d < size)[None, :], other=0.0
        )
        if FP8:
            values = values.to(tl.bfloat16)
        acc = acc * shrunk[:, None] + dot(p.to(values.dtype), values, INTERPRET)
        best = top

    nothing = total == 0.0  # all keys of a piece may be ahead of a query
    total = tl.where(nothing, 1.0, total)
    acc = acc * v_scale / total[:, None]
    if where < 0:
        place_out = out + (rows[:, None] * heads + head[:, None]) * size + d[None, :]
        tl.store(place_out, acc.to(out.dtype.element_ty), mask=used)
    else:
        row = (where + token).to(tl.int64) * heads + head
        tl.store(partial + row[:, None] * size + d[None, :], acc, mask=used)
        tl.store(sums + row, tl.where(nothing, float("-inf"), best + tl.log2(total)), mask=token < count)


@triton.jit
def _merge(partial, sums, out, tokens, starts, parts, heads, size, D: tl.constexpr):
    n = tl.program_id(0)
    head = tl.program_id(1)
    token = tl.load(tokens + n).to(tl.int64)
    d = tl.arange(0, D)
    inside = d < size
    best = float("-inf")
    total = 0.0
    acc = tl.zeros([D], tl.float32)
    for i in range(tl.load(starts + n), tl.load(starts + n + 1)):
        row = tl.load(parts + i).to(tl.int64) * heads + head
        log_sum = tl.load(sums + row)
        top = tl.maximum(best, log_sum)
        safe = tl.where(top == float("-inf"), 0.0, top)
        old, new = tl.exp2(best - safe), tl.exp2(log_sum - safe)
        acc = acc * old + new * tl.load(partial + row * size + d, mask=inside, other=0.0)
        total = total * old + new
        best = top
    acc = acc / tl.where(total == 0.0, 1.0, total)
    tl.store(out + (token * heads + head) * size + d, acc.to(out.dtype.element_ty), mask=inside)


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: AttentionPlan,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    kv_scales: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """See `kernels.attention`.

    Args:
        q, k_cache, v_cache, scale, window, softcap: as there; the caches may be fp8 e4m3.
        plan: of the step's rows; with a `window`, one without shared keys.
        kv_scales: of keys and of values in fp8.
    """
    if q.stride()[1:] != (q.shape[2], 1):
        q = q.contiguous()
    tokens, heads, size = q.shape
    kv_heads = k_cache.shape[1]
    assert k_cache.is_contiguous() and v_cache.is_contiguous()
    out = torch.empty((tokens, heads, size), dtype=q.dtype, device=q.device)
    shape = (plan.partial_rows, heads)
    partial = torch.empty((*shape, size), dtype=torch.float32, device=q.device)
    sums = torch.empty(shape, dtype=torch.float32, device=q.device)
    for tiles, queries in ((plan.small, FEW_QUERIES), (plan.large, MANY_QUERIES)):
        if not len(tiles):
            continue

        def launch(config: Config, tiles: Tensor = tiles, queries: int = queries) -> None:
            _tile[(len(tiles), kv_heads)](
                q, k_cache, v_cache, out, partial, sums, tiles, plan.order, plan.kv_slots, scale * kv_scales[0],
                softcap or 1.0, window or 0, kv_scales[1], q.stride(0), heads, kv_heads, size, GROUP=heads // kv_heads,
                HAS_WINDOW=window is not None, HAS_CAP=softcap is not None,
                FP8=k_cache.dtype == torch.float8_e4m3fn, FIELDS=FIELDS, INTERPRET=INTERPRETED,
                M=max(queries, block_of(heads // kv_heads)), D=block_of(size, least=16), **config,
            )  # fmt: skip

        key = queries, size, heads // kv_heads, k_cache.dtype, window is not None
        launch(choose("attention", key, _configs(queries, block_of(size, least=16)), launch))
    if len(plan.tokens):
        _merge[(len(plan.tokens), heads)](
            partial,
            sums,
            out,
            plan.tokens,
            plan.starts,
            plan.parts,
            heads,
            size,
            D=block_of(size),
            num_warps=1,
        )
    return out


def _configs(queries: int, block: int) -> list[Config]:
    """What is worth trying for a class of shapes; in all of them a row's keys are added up in the same blocks."""
    keys = 64 if block <= 128 else 32
    if queries == FEW_QUERIES:
        return [
            {"N": keys, "num_warps": warps, "num_stages": stages}
            for warps, stages in ((4, 3), (4, 4), (2, 4))
        ]
    return [
        {"N": keys, "num_warps": warps, "num_stages": stages} for warps, stages in ((8, 3), (8, 2), (4, 3))
    ]
