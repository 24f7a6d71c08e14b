"""The KV cache's memory: a fixed number of slots, one token's keys and values of all layers in each."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Slots = NDArray[np.int32]
NO_SLOTS: Slots = np.empty(0, dtype=np.int32)


class SlotAllocator:
    """Hands out slot numbers ``0 .. size - 1``. Last freed, first reused, so a small working set stays small."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = np.arange(size - 1, -1, -1, dtype=np.int32)
        self._count = size

    @property
    def free_count(self) -> int:
        """Slots that nobody has."""
        return self._count

    def allocate(self, count: int) -> Slots | None:
        """`count` slots, or ``None`` if there are not so many."""
        if count > self._count:
            return None
        self._count -= count
        return self._free[self._count : self._count + count][::-1].copy()

    def release(self, slots: Slots) -> None:
        """Take slots back."""
        end = self._count + len(slots)
        assert end <= self.size, "more slots freed than exist"
        self._free[self._count : end] = slots[::-1]
        self._count = end

    def free_slots(self) -> Slots:
        """The free slot numbers (for invariant checks)."""
        return self._free[: self._count].copy()


class KVPool:
    """Keys and values of every layer.

    Args:
        layers, slots, kv_heads, head_dim: shape; each of the two tensors is ``[layers, slots, kv_heads, head_dim]``.
        dtype: float32 or bfloat16.
    """

    def __init__(self, layers: int, slots: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
        shape = (layers, slots, kv_heads, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype)
        self.values = torch.zeros(shape, dtype=dtype)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, ``[slots, kv_heads, head_dim]`` each, not copied."""
        return self.keys[index], self.values[index]

    def store(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write new tokens' keys and values, ``[tokens, kv_heads, head_dim]``, into their slots."""
        self.keys[layer].index_copy_(0, slots, keys)
        self.values[layer].index_copy_(0, slots, values)

    @staticmethod
    def bytes_per_slot(layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        """Memory of one token."""
        return 2 * layers * kv_heads * head_dim * dtype.itemsize
