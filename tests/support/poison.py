"""Memory that shows what a kernel does not write, and what it writes or reads beside its tensors.

    [ margin | tensor | margin ]      every byte 255: NaN as floats, -1 as integers

A number that is not written stays NaN, one that is read outside makes NaN of what is computed with it, and a margin
that is not 255 any more was written to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MARGIN = 8192
"""Bytes on each side; a multiple of what tensors are aligned to."""


class Poison:
    """Stands in for ``torch.empty`` and ``torch.empty_like``, and remembers what it gave."""

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def empty(
        self, *size: Any, dtype: torch.dtype | None = None, device: Any = None, pin_memory: bool = False
    ) -> Tensor:
        """``torch.empty``; not pinned, which only costs time."""
        shape: Sequence[int] = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
        dtype = torch.get_default_dtype() if dtype is None else dtype
        count = math.prod(shape) * dtype.itemsize
        buffer = torch.full((2 * MARGIN + count,), 255, dtype=torch.uint8, device=device)
        self._buffers.append(buffer)
        return buffer[MARGIN : MARGIN + count].view(dtype).view(shape)

    def empty_like(self, x: Tensor) -> Tensor:
        """``torch.empty_like`` of a contiguous tensor."""
        assert x.is_contiguous()
        return self.empty(x.shape, dtype=x.dtype, device=x.device)

    def put(self, x: Tensor, device: Any) -> Tensor:
        """A copy on a device."""
        return self.empty(x.shape, dtype=x.dtype, device=device).copy_(x)

    def check(self) -> None:
        """Assert that all margins are as they were."""
        for buffer in self._buffers:
            margins = torch.cat((buffer[:MARGIN], buffer[-MARGIN:]))
            assert (margins == 255).all(), "a kernel wrote outside of its tensors"
