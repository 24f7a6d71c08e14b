"""Linear layers: ``y = x W^T + b``, in whatever format the weights are kept.

Contract: a `Linear` takes ``x: [tokens, columns]`` in the model's dtype and gives ``[tokens, rows]`` in the same.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional


class Linear(Protocol):
    """A linear layer, its weights prepared once."""

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales and bias."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        ...


class DenseLinear:
    """Weights as they are.

    Args:
        weight: ``[rows, columns]``, float32 or bfloat16.
        bias: ``[rows]``, or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias

    @property
    def nbytes(self) -> int:
        """Memory of weights and bias."""
        return self._weight.nbytes + (0 if self._bias is None else self._bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        return functional.linear(x, self._weight, self._bias)


def make_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The fastest layer for these weights on this machine."""
    return DenseLinear(weight, bias)
