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

On a CPU it is machine code over blocks of keys (`paged_attention`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.paged_attention import MOST_QUERIES, attend
from sgl_like.kernels.threads import Call, address, float_bits, run_call

if TYPE_CHECKING:
    from sgl_like.kernels.triton.attention_plan import AttentionPlan


@dataclass(frozen=True)
class AttentionRows:
    """Where each row's new tokens and cached slots are; see the module's contract."""

    q_start: NDArray[np.int32]
    kv_start: NDArray[np.int32]
    kv_slots: NDArray[np.int32]

    @cached_property
    def longest(self) -> int:
        """Cached slots of the row that has most of them."""
        return int(np.diff(self.kv_start).max(initial=0))

    def plan(self, group: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Slots and tasks of the CPU version, for so many query heads that share a key; the same for all layers."""
        if group not in self._plans:
            most = max(1, MOST_QUERIES // group)
            self._plans[group] = np.ascontiguousarray(self.kv_slots), _tasks(self, most)
        return self._plans[group]

    def on_device(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Triton's version, with a plan that is made once for all layers; those with a window have another one."""
        from sgl_like.kernels.triton.attention import paged_attention as run
        from sgl_like.kernels.triton.attention_plan import plan

        key = q.shape[1] // k_cache.shape[1], window, q.dtype == torch.float32
        if key not in self._device_plans:
            self._device_plans[key] = plan(self, key[0], q.device, window, exact=key[2])
        return run(q, k_cache, v_cache, self._device_plans[key], scale, window, softcap)

    @cached_property
    def _device_plans(self) -> dict[tuple[int, int | None, bool], AttentionPlan]:
        return {}

    @cached_property
    def _plans(self) -> dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]]:
        return {}


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
    """See the module's contract. On CPUs a token's result does not depend on the rest of the batch."""
    if by_triton(q):
        return rows.on_device(q, k_cache, v_cache, scale, window, softcap)
    if q.stride()[1:] != (q.shape[2], 1):
        q = q.contiguous()
    out = torch.empty(q.shape, dtype=q.dtype)
    slots, tasks = rows.plan(q.shape[1] // k_cache.shape[1])
    run_call(call(q, k_cache, v_cache, slots, tasks, scale, out, window, softcap))
    return out


def call(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: NDArray[np.int32],
    tasks: NDArray[np.int32],
    scale: float,
    out: Tensor,
    window: int | None = None,
    softcap: float | None = None,
) -> Call:
    """The kernel's call, with a plan of `AttentionRows`; a token's numbers in q and all others are contiguous."""
    heads, kv_heads, head_dim = q.shape[1], k_cache.shape[1], q.shape[2]
    assert k_cache.is_contiguous() and v_cache.is_contiguous()
    numbers = (
        q.data_ptr(), k_cache.data_ptr(), v_cache.data_ptr(), out.data_ptr(), address(slots), address(tasks),
        float_bits(scale) | float_bits(softcap or 0.0) << 32, heads, kv_heads, head_dim, q.stride(0), window or 0,
        int(q.dtype == torch.bfloat16),
    )  # fmt: skip
    return Call(attend, len(tasks) * kv_heads, numbers)


def _tasks(rows: AttentionRows, most: int) -> NDArray[np.int32]:
    """At most `most` new tokens: (the first, how many, the row's first slot, slots that the last one sees)."""
    found = []
    for r in range(len(rows.q_start) - 1):
        first, end, begin = int(rows.q_start[r]), int(rows.q_start[r + 1]), int(rows.kv_start[r])
        seen = int(rows.kv_start[r + 1]) - begin
        for at in range(first, end, most):
            after = min(at + most, end)
            found.append((at, after - at, begin, seen - (end - after)))
    return np.array(found, dtype=np.int32).reshape(-1, 4)
