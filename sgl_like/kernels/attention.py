"""Attention over a paged KV cache, for any mix of rows that extend and rows that decode.

Contract: ``paged_attention(q, k_cache, v_cache, rows, scale, window=None, softcap=None) -> out``

    q, out            [tokens, heads, head_dim]      new tokens of all rows, row after row
    k_cache, v_cache  [slots, kv_heads, head_dim]    one layer's cache; the new tokens are already in it
    rows.q_start      [rows + 1]   int32             row r has q[q_start[r] : q_start[r + 1]]
    rows.kv_start     [rows + 1]   int32             ... and the cache slots kv_slots[kv_start[r] : kv_start[r + 1]]
    rows.kv_slots     [sum of kv lengths]  int32

A row's new tokens are the last of its sequence, so its i-th of n new tokens sees all but the last n - 1 - i slots;
with a `window` only the last `window` of them, itself included. A score s becomes ``softcap * tanh(s / softcap)``
where there is a `softcap`. ``heads`` is a multiple of ``kv_heads`` (grouped-query attention). float32 or bfloat16;
sums are in float32.

On a CPU, short rows go through one Numba loop over all of them (no gathering, no padding); a row that extends by
many tokens is gathered once and handed to torch, whose blocked matmuls win from about a dozen tokens on.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sgl_like.kernels.bits import numpy_view, widen
from sgl_like.kernels.jit import REASSOCIATE, compiled

LONG_EXTEND = 16
"""New tokens from which a row goes to torch instead of the Numba loop."""
CAPPED_AT_ONCE = 256
"""New tokens whose scores are held at once where torch's fused attention cannot be used (soft-capping)."""
PARALLEL_WORK = 4_000_000
"""Multiply-adds from which the Numba loop is cut in pieces for several threads (about 0.5 ms)."""


@dataclass(frozen=True, slots=True)
class AttentionRows:
    """Where each row's new tokens and cached slots are; see the module's contract."""

    q_start: NDArray[np.int32]
    kv_start: NDArray[np.int32]
    kv_slots: NDArray[np.int32]


def reference(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    rows: AttentionRows,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Row by row, head by head, in float32."""
    out = torch.zeros_like(q, dtype=torch.float32)
    group = q.shape[1] // k_cache.shape[1]
    for r in range(len(rows.q_start) - 1):
        slots = torch.from_numpy(rows.kv_slots[rows.kv_start[r] : rows.kv_start[r + 1]]).long()
        first, end = int(rows.q_start[r]), int(rows.q_start[r + 1])
        for i in range(first, end):
            seen = slots[: len(slots) - (end - 1 - i)]
            seen = seen if window is None else seen[-window:]
            for head in range(q.shape[1]):
                keys, values = k_cache[seen, head // group].float(), v_cache[seen, head // group].float()
                scores = keys @ q[i, head].float() * scale
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                out[i, head] = torch.softmax(scores, dim=0) @ values
    return out.to(q.dtype)


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    rows: AttentionRows,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """CPU version; see the module's contract."""
    out = torch.empty(q.shape, dtype=torch.float32)
    lengths = np.diff(rows.q_start)
    long = lengths >= LONG_EXTEND
    if not long.all():
        short = np.flatnonzero(~long).astype(np.int32)
        _loop_rows(q, k_cache, v_cache, rows, scale, window, softcap, out, short)
    for r in np.flatnonzero(long):
        _torch_row(q, k_cache, v_cache, rows, scale, window, softcap, out, int(r))
    return out.to(q.dtype)


def _torch_row(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    rows: AttentionRows,
    scale: float,
    window: int | None,
    softcap: float | None,
    out: Tensor,
    r: int,
) -> None:
    slots = torch.from_numpy(rows.kv_slots[rows.kv_start[r] : rows.kv_start[r + 1]]).long()
    first, end = int(rows.q_start[r]), int(rows.q_start[r + 1])
    new = end - first
    if window is not None:  # nobody sees what the first new token does not
        slots = slots[max(0, len(slots) - new + 1 - window) :]
    queries = q[first:end].transpose(0, 1).unsqueeze(0)  # [1, heads, new, head_dim]
    keys = k_cache[slots].transpose(0, 1).unsqueeze(0)  # [1, kv_heads, seen, head_dim]
    values = v_cache[slots].transpose(0, 1).unsqueeze(0)
    mask = _mask(new, len(slots), window)
    if softcap is not None:
        result = _capped(queries[0], keys[0], values[0], mask, scale, softcap)
    else:
        causal = new == len(slots) and (window is None or window >= new)
        result = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if causal else mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=True,
        )[0]
    out[first:end] = result.transpose(0, 1)


def _mask(new: int, total: int, window: int | None) -> Tensor:
    """What each of the last `new` of `total` tokens sees: ``[new, total]`` bool."""
    mask = torch.ones(new, total, dtype=torch.bool).tril_(total - new)
    return mask if window is None else mask.triu_(total - new - window + 1)


def _capped(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, softcap: float
) -> Tensor:
    """Attention with soft-capped scores, some queries at a time: ``[heads, new, head_dim]`` float32."""
    grouped = queries.float().view(len(keys), -1, *queries.shape[1:])  # [kv_heads, group, new, head_dim]
    grouped = grouped * (scale / softcap)
    keys, values = keys.float().unsqueeze(1), values.float().unsqueeze(1)
    parts = []
    for at in range(0, queries.shape[1], CAPPED_AT_ONCE):
        scores = grouped[:, :, at : at + CAPPED_AT_ONCE] @ keys.transpose(-1, -2)
        scores = scores.tanh_().mul_(softcap).masked_fill_(~mask[at : at + CAPPED_AT_ONCE], -torch.inf)
        parts.append(torch.softmax(scores, dim=-1) @ values)
    return torch.cat(parts, dim=2).flatten(0, 1)


def _loop_rows(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    rows: AttentionRows,
    scale: float,
    window: int | None,
    softcap: float | None,
    out: Tensor,
    which: NDArray[np.int32],
) -> None:
    kv_lengths = np.diff(rows.kv_start)
    longest = int(kv_lengths.max())
    window = window or longest
    arguments = (
        numpy_view(q),
        numpy_view(k_cache),
        numpy_view(v_cache),
        rows.q_start,
        rows.kv_start,
        rows.kv_slots,
        np.float32(scale),
        window,
        np.float32(softcap or 0.0),
        out.numpy(),
        longest,
    )
    work = np.minimum(kv_lengths[which], window) * np.diff(rows.q_start)[which]
    total = int(work.sum()) * q.shape[1] * q.shape[2]
    if total < PARALLEL_WORK or len(which) == 1:
        _attend(*arguments, which)
        return
    shares = np.cumsum(work) * _thread_count() // (int(work.sum()) + 1)
    parts = [which[shares == t] for t in range(_thread_count())]
    list(_threads().map(lambda part: _attend(*arguments, part), parts))


def _thread_count() -> int:
    return min(torch.get_num_threads(), len(os.sched_getaffinity(0)))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_thread_count(), thread_name_prefix="sgl-attention")


@compiled(fastmath=REASSOCIATE)
def _attend(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    q_start: Any,
    kv_start: Any,
    kv_slots: Any,
    scale: Any,
    window: int,
    softcap: Any,
    out: Any,
    longest: int,
    which: Any,
) -> None:
    """Softmax attention of every new token of the rows `which`, one query head at a time."""
    heads, head_dim = q.shape[1], q.shape[2]
    group = heads // k_cache.shape[1]
    weights = np.empty(longest, dtype=np.float32)
    query = np.empty(head_dim, dtype=np.float32)
    total = np.empty(head_dim, dtype=np.float32)
    for r in which:
        begin, end = kv_start[r], kv_start[r + 1]
        for i in range(q_start[r], q_start[r + 1]):
            seen = end - begin - (q_start[r + 1] - 1 - i)
            first = max(0, seen - window)
            for head in range(heads):
                kv_head = head // group
                for d in range(head_dim):
                    query[d] = widen(q[i, head, d]) * scale
                top = np.float32(-np.inf)
                for j in range(first, seen):
                    key = k_cache[kv_slots[begin + j], kv_head]
                    score = np.float32(0.0)
                    for d in range(head_dim):
                        score += query[d] * widen(key[d])
                    weights[j] = score
                    top = max(top, score)
                if softcap > 0:
                    for j in range(first, seen):
                        weights[j] = softcap * np.tanh(weights[j] / softcap)
                    top = softcap * np.tanh(top / softcap)
                norm = np.float32(0.0)
                total[:] = 0.0
                for j in range(first, seen):
                    weight = np.exp(weights[j] - top)
                    norm += weight
                    value = v_cache[kv_slots[begin + j], kv_head]
                    for d in range(head_dim):
                        total[d] += weight * widen(value[d])
                for d in range(head_dim):
                    out[i, head, d] = total[d] / norm
