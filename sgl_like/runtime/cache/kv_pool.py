"""The KV cache's memory: a fixed number of slots, one token's keys and values of all layers in each."""

from __future__ import annotations

import torch
from torch import Tensor

CPU = torch.device("cpu")


class KVPool:
    """Keys and values of every layer.

    Args:
        layers, slots, kv_heads, head_dim: shape; each of the two tensors is ``[layers, slots, kv_heads, head_dim]``.
        dtype: float32 or bfloat16.
        device: where they are.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device = CPU,
    ) -> None:
        shape = (layers, slots, kv_heads, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.device = device

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, ``[slots, kv_heads, head_dim]`` each, not copied."""
        return self.keys[index], self.values[index]

    @staticmethod
    def bytes_per_slot(layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        """Memory of one token."""
        return 2 * layers * kv_heads * head_dim * dtype.itemsize
