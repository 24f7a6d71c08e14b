"""`kernels.attention` in Triton: one kernel for all tiles of a plan (`attention_plan`), and one that merges.

The queries of a tile are its tokens times the heads that share a key (GQA packing), so a key is loaded once for all of
them. Softmax is online (Milakov and Gimelshein, 2018; Dao et al., 2022), in base 2; split keys as in flash decoding.
Only the blocks at the ends of what a tile sees are masked. All keys are in blocks of N from the beginning of the row.

By an exact plan, as for float32, a token's result depends on its own row's keys alone, to the last bit: not on other
rows, nor on how many of the row's tokens are in the step, nor on what is shared. Sums are in an order that no layout of
a block on a GPU changes, and pieces of keys are merged in the same way within a tile as between tiles. Else it depends
on how its own row is cut into tiles, and on whether it shares keys: tensor cores may add up differently for few queries
and for many, and a tile of many adds up all its keys in one go.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.attention_plan import FIELDS, SPLIT, AttentionPlan, most_queries
from sgl_like.kernels.triton.base import INTERPRETED, block_of, dot, tanh
from sgl_like.kernels.triton.tuning import Config, choose

LOG2_E = 1.4426950408889634


@triton.jit
def _merged(best, total, acc, log_sum, part):
    """Partial results, as a weighted sum, and one more; a part of no keys (its log-sum is -inf) changes nothing."""
    top = tl.maximum(best, log_sum)
    safe = tl.where(top == float("-inf"), 0.0, top)
    old, new = tl.exp2(best - safe), tl.exp2(log_sum - safe)
    return top, tl.fma(total, old, new), tl.fma(acc, old[:, None], part * new[:, None])


@triton.jit
def _rows(cache, place, live, dtype: tl.constexpr, MASKED: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr):
    """Keys or values that begin at some places, ``[N, D]``; masked: zeros for those that are not live."""
    d = tl.arange(0, D)[None, :]
    at = cache + place[:, None] + d
    if MASKED:
        x = tl.load(at, mask=live[:, None] & (d < SIZE), other=0.0)
    elif SIZE < D:
        x = tl.load(at, mask=d < SIZE, other=0.0)
    else:
        x = tl.load(at)
    return x.to(dtype)


@triton.jit
def _row_sums(p, EXACT: tl.constexpr, INTERPRET: tl.constexpr, N: tl.constexpr):
    """Sums of the rows of a block; exact: in the order of products, where that of `tl.sum` depends on the layout."""
    if EXACT:
        return tl.max(dot(p, tl.full([N, 16], 1.0, tl.float32), INTERPRET), axis=1)
    return tl.sum(p, axis=1)


@triton.jit
def _online(
    best, total, acc, queries, k_cache, v_cache, slots, head_at, stride, start, end, low, high, last, factor, cap,
    window, MASKED: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr, EXACT: tl.constexpr,
    SIZE: tl.constexpr, WIDE: tl.constexpr, INTERPRET: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Go on with a softmax over the keys from start to end; masked: if not all queries see all of each block.

    A product times `factor` is an exponent of 2; with a cap, it is tanh(product * cap) that is multiplied. Slots are
    loaded one block ahead, so that Triton's pipeline copies keys and values while earlier ones are used; a load that
    waits for another one would end it. Keys that nobody sees may be loaded, but not their values: 0 times what is there
    need not be 0.
    """
    n = tl.arange(0, N)
    slot = tl.load(slots + start + n, mask=start + n < high, other=0)
    for at in range(start, end, N):
        j = at + n
        live = (j >= low) & (j < high)
        place = (slot.to(tl.int64) if WIDE else slot) * stride + head_at
        slot = tl.load(slots + N + j, mask=N + j < high, other=0)
        keys = _rows(k_cache, place, live, queries.dtype, False, SIZE, D)
        s = dot(queries, tl.trans(keys), INTERPRET)
        if HAS_CAP:
            s = tanh(s * cap)
        if MASKED:
            seen = (j[None, :] <= last[:, None]) & live[None, :]
            if HAS_WINDOW:
                seen = seen & (j[None, :] > last[:, None] - window)
            s = tl.where(seen, s, float("-inf"))
        top = tl.maximum(best, tl.max(s, axis=1) * factor)
        safe = top
        if MASKED:
            safe = tl.where(top == float("-inf"), 0.0, top)
        p = tl.exp2(tl.fma(s, factor, -safe[:, None]))
        shrunk = tl.exp2(best - safe)
        total = tl.fma(total, shrunk, _row_sums(p, EXACT, INTERPRET, N))
        values = _rows(v_cache, place, live, queries.dtype, MASKED, SIZE, D)
        acc = acc * shrunk[:, None] + dot(p.to(queries.dtype), values, INTERPRET)
        best = top
    return best, total, acc


@triton.jit
def _piece(
    queries, k_cache, v_cache, slots, head_at, stride, low, high, place, count, last, factor, cap, window, v_scale,
    HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr, EXACT: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr,
    INTERPRET: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Attention to the keys from low, a multiple of N, to high: the result and the logarithm of its sum, in base 2."""
    best = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, D], tl.float32)
    begin, full = low, low
    if HAS_WINDOW:
        low = tl.maximum(low, place - window + 1)  # the first key that a query sees
        begin = low // N * N
        full = (
            (tl.maximum(low, place + count - window) + N - 1) // N * N
        )  # all queries see what is from here on
        full = tl.minimum(full, high)
    masked = tl.maximum(tl.minimum(high, place + 1) // N * N, full)  # ... and up to here
    edges = (begin, full, masked, high)
    for i in tl.static_range(0 if HAS_WINDOW else 1, 3):
        best, total, acc = _online(
            best, total, acc, queries, k_cache, v_cache, slots, head_at, stride, edges[i], edges[i + 1], low, high,
            last, factor, cap, window, i != 1, HAS_WINDOW, HAS_CAP, EXACT, SIZE, WIDE, INTERPRET, N, D,
        )  # fmt: skip
    nothing = total == 0.0  # all keys of a piece may be ahead of a query
    total = tl.where(nothing, 1.0, total)
    return tl.where(nothing, float("-inf"), best + tl.log2(total)), acc * (v_scale / total)[:, None]


@triton.jit
def _tile(
    q, k_cache, v_cache, out, partial, sums, tiles, order, kv_slots, factor, cap, window, v_scale, q_stride, heads,
    kv_heads, SIZE: tl.constexpr, GROUP: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr,
    EXACT: tl.constexpr, WIDE: tl.constexpr, FIELDS: tl.constexpr, SPLIT: tl.constexpr, INTERPRET: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    tile = tiles + tl.program_id(0) // kv_heads * FIELDS
    kv_head = tl.program_id(0) % kv_heads
    first, count, begin = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    low, high = tl.load(tile + 3), tl.load(tile + 4)
    place, where = tl.load(tile + 5), tl.load(tile + 6)

    m = tl.arange(0, M)
    token, head = m // GROUP, kv_head * GROUP + m % GROUP
    d = tl.arange(0, D)
    used = (token < count)[:, None] & (d < SIZE)[None, :]
    rows = tl.load(order + first + token, mask=token < count, other=0).to(tl.int64)
    queries = tl.load(
        q + rows[:, None] * q_stride + (head * SIZE)[:, None] + d[None, :], mask=used, other=0.0
    )
    slots, head_at, stride = kv_slots + begin, kv_head * SIZE, kv_heads * SIZE
    last = place + token  # the last key that each query sees
    if EXACT:
        best = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        acc = tl.zeros([M, D], tl.float32)
        for at in range(low, high, SPLIT):
            log_sum, part = _piece(
                queries, k_cache, v_cache, slots, head_at, stride, at, tl.minimum(at + SPLIT, high), place, count,
                last, factor, cap, window, v_scale, HAS_WINDOW, HAS_CAP, EXACT, SIZE, WIDE, INTERPRET, M, N, D,
            )  # fmt: skip
            best, total, acc = _merged(best, total, acc, log_sum, part)
        total = tl.where(total == 0.0, 1.0, total)
        log_sum, acc = best + tl.log2(total), acc / total[:, None]
    else:
        log_sum, acc = _piece(
            queries, k_cache, v_cache, slots, head_at, stride, low, high, place, count, last, factor, cap, window,
            v_scale, HAS_WINDOW, HAS_CAP, EXACT, SIZE, WIDE, INTERPRET, M, N, D,
        )  # fmt: skip
    if where < 0:
        place_out = out + (rows[:, None] * heads + head[:, None]) * SIZE + d[None, :]
        tl.store(place_out, acc.to(out.dtype.element_ty), mask=used)
    else:
        row = (where + token).to(tl.int64) * heads + head
        tl.store(partial + row[:, None] * SIZE + d[None, :], acc, mask=used)
        tl.store(sums + row, log_sum, mask=token < count)


@triton.jit
def _merge(
    partial, sums, out, tokens, starts, parts, heads, SIZE: tl.constexpr, AT_ONCE: tl.constexpr, H: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    head = tl.program_id(1) * H + tl.arange(0, H)
    d = tl.arange(0, D)[None, :]
    used = (head < heads)[:, None] & (d < SIZE)
    best = tl.full([H], float("-inf"), tl.float32)
    total = tl.zeros([H], tl.float32)
    acc = tl.zeros([H, D], tl.float32)
    end = tl.load(starts + n + 1)
    for start in range(tl.load(starts + n), end, AT_ONCE):
        for i in tl.static_range(AT_ONCE):  # their loads do not wait for one another
            at = tl.full([H], start + i, tl.int32)
            there = (head < heads) & (at < end)
            row = tl.load(parts + at, mask=there, other=0).to(tl.int64) * heads + head
            log_sum = tl.load(sums + row, mask=there, other=float("-inf"))
            part = tl.load(partial + row[:, None] * SIZE + d, mask=used & there[:, None], other=0.0)
            best, total, acc = _merged(best, total, acc, log_sum, part)
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    token = tl.load(tokens + n).to(tl.int64)
    tl.store(out + (token * heads + head)[:, None] * SIZE + d, acc.to(out.dtype.element_ty), mask=used)


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
        q, k_cache, v_cache, scale, window, softcap: as there; the caches may be fp8 e4m3. The scale is above 0.
        plan: of the step's rows, for this window and ``heads // kv_heads``.
        kv_scales: of keys and of values in fp8.
    """
    assert scale > 0 and k_cache.is_contiguous() and v_cache.is_contiguous()
    if q.stride()[1:] != (q.shape[2], 1):
        q = q.contiguous()
    tokens, heads, size = q.shape
    out = torch.empty((tokens, heads, size), dtype=q.dtype, device=q.device)
    partial = torch.empty((len(plan.parts), heads, size), dtype=torch.float32, device=q.device)
    sums = torch.empty((len(plan.parts), heads), dtype=torch.float32, device=q.device)
    for tiles, queries in zip((plan.small, plan.large), most_queries(heads // k_cache.shape[1]), strict=True):
        if len(tiles):
            _compute(
                q, (k_cache, v_cache), (out, partial, sums), tiles, queries, plan, scale, window, softcap, kv_scales
            )  # fmt: skip
    if len(plan.tokens):
        block = block_of(size)
        at_once = block_of(heads, most=max(1024 // block, 1))
        _merge[(len(plan.tokens), triton.cdiv(heads, at_once))](
            partial, sums, out, plan.tokens, plan.starts, plan.parts, heads, SIZE=size, AT_ONCE=8, H=at_once,
            D=block, num_warps=4,
        )  # fmt: skip
    return out


def _compute(
    q: Tensor,
    caches: tuple[Tensor, Tensor],
    results: tuple[Tensor, Tensor, Tensor],
    tiles: Tensor,
    queries: int,
    plan: AttentionPlan,
    scale: float,
    window: int | None,
    softcap: float | None,
    kv_scales: tuple[float, float],
) -> None:
    """Tiles of at most so many queries, in the configuration that is best for them."""
    (_, heads, size), kv_heads = q.shape, caches[0].shape[1]
    programs, block = len(tiles) * kv_heads, block_of(size, least=16)
    scale *= kv_scales[0]
    factor, cap = (scale * LOG2_E, 0.0) if softcap is None else (softcap * LOG2_E, scale / softcap)
    has = window is not None, softcap is not None, plan.exact

    def launch(config: Config) -> None:
        _tile[(programs,)](
            q, *caches, *results, tiles, plan.order, plan.kv_slots, factor, cap, window or 0, kv_scales[1], q.stride(0),
            heads, kv_heads, SIZE=size, GROUP=heads // kv_heads, HAS_WINDOW=has[0], HAS_CAP=has[1], EXACT=has[2],
            WIDE=caches[0].numel() >= 2**31, FIELDS=FIELDS, SPLIT=SPLIT, INTERPRET=INTERPRETED, M=queries, D=block,
            **config,
        )  # fmt: skip

    work = block_of(programs, least=512, most=2048)
    key = queries, size, heads // kv_heads, q.dtype, caches[0].dtype, *has, work
    launch(choose("attention", key, _configs(queries, block, q.dtype), launch))


def _configs(queries: int, block: int, dtype: torch.dtype) -> list[Config]:
    """What is worth trying for a class of shapes; in all of them a row's keys are added up in the same blocks.

    Of tiles of many queries, two programs fit onto a processor, one of which can compute products while the other one
    is at its softmax, if they have 128 registers a thread. For heads of 128 numbers these are a few too few (24 bytes
    are read back from memory for a block of keys), so it is to be measured whether it is faster.
    """
    if INTERPRETED:
        return [{"N": 64}]
    if dtype == torch.float32:
        many = 16 if block <= 128 else 32
        return [{"N": 16, "num_warps": 8 if queries < 64 else many, "num_stages": 2 if block <= 128 else 1}]
    keys = 64 if block <= 128 else 32
    if queries < 64:
        return [{"N": keys, "num_warps": 4, "num_stages": stages} for stages in (3, 2)]
    alone = {"N": keys, "num_warps": 8, "num_stages": 3}
    if (
        block > 128
    ):  # the second one fits into the 100 KB of shared memory of GPUs with compute capability 8.6 and 8.9
        return [alone, alone | {"num_stages": 1}]
    return [alone, alone | {"num_stages": 2 if block == 128 else 3, "maxnreg": 128}]
