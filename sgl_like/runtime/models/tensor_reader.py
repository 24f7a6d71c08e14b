"""What gives tensors by their names."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Rows(NamedTuple):
    """Some rows of a tensor: from `first` on, of `total` in all."""

    first: int
    total: int


class TensorReader(Protocol):
    """Gives tensors by their Hugging Face names."""

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        ...

    def read_into(self, name: str, out: Tensor, rows: Rows | None = None) -> None:
        """Copy a tensor into one of the same shape, or some of its rows, converting its dtype."""
        ...
