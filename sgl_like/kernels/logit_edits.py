"""Changes to single logits of a batch: penalties, biases and bans, without a pass over the vocabulary.

Contract: ``edit_logits(logits, rows, ids, scales, shifts)``: for each i, in order, the logit x of token ``ids[i]`` in
row ``rows[i]`` becomes ``(x / scales[i] if x > 0 else x * scales[i]) + shifts[i]``. ``logits: [rows, vocab]`` float32,
``rows, ids: int64[n]``, ``scales, shifts: float32[n]``; scales are positive, a shift of -inf bans a token. The same
token may come several times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.jit import compiled

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def reference(logits: Floats, rows: Ids, ids: Ids, scales: Floats, shifts: Floats) -> None:
    """One after the other."""
    for row, token, scale, shift in zip(rows, ids, scales, shifts, strict=True):
        x = logits[row, token]
        logits[row, token] = (x / scale if x > 0 else x * scale) + shift


def edit_logits(logits: Tensor, rows: Ids, ids: Ids, scales: Floats, shifts: Floats) -> None:
    """See the module's contract; `logits` is a tensor of any device."""
    if by_triton(logits):
        from sgl_like.kernels.triton.logit_edits import edit_logits as run

        run(logits, *combined(logits.shape[1], rows, ids, scales, shifts))
        return
    _edit(logits.numpy(), rows, ids, scales, shifts)


def combined(vocab: int, rows: Ids, ids: Ids, scales: Floats, shifts: Floats) -> tuple[Ids, Floats, Floats]:
    """The same changes with each logit named once, so that they can be made in any order.

    Only the first change of a logit may have a scale: then the shifts after it add up.

    Returns:
        Places ``row * vocab + id``, scales and shifts.
    """
    places, first, which = np.unique(rows * vocab + ids, return_index=True, return_inverse=True)
    later = np.ones(len(rows), dtype=bool)
    later[first] = False
    assert (scales[later] == 1).all(), "a logit is scaled after it was changed"
    sums = np.zeros(len(places), dtype=np.float32)
    np.add.at(sums, which, shifts)
    return places, scales[first], sums


@compiled()
def _edit(logits: Any, rows: Any, ids: Any, scales: Any, shifts: Any) -> None:
    for i in range(len(rows)):
        x = logits[rows[i], ids[i]]
        logits[rows[i], ids[i]] = (x / scales[i] if x > 0 else x * scales[i]) + shifts[i]
