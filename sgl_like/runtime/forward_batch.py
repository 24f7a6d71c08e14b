"""What one forward pass works on: the new tokens of all rows, and where their keys and values are.

Rows that prefill, decode or catch up with forced tokens look the same here: each has some new tokens at the end of
its sequence.

    row 0: 3 new tokens of 5     row 1: 1 new of 9         input_ids  = [a2 a3 a4 b8]
                                                           positions  = [ 2  3  4  8]

A row may use slots that another row of the same batch fills: in each layer the keys and values of all new tokens have
to be stored before any are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sgl_like.kernels.attention import AttentionRows


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """Tensors of one step.

    Args:
        input_ids: ``[tokens]`` int64.
        positions: ``[tokens]`` int64, place of each token in its sequence.
        slots: ``[tokens]`` int64, KV slot that each token's key and value go to.
        rows: row borders and all cached slots, for attention.
    """

    input_ids: Tensor
    positions: Tensor
    slots: Tensor
    rows: AttentionRows
