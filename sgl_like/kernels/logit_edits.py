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

from sgl_like.kernels.jit import compiled

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def reference(logits: Floats, rows: Ids, ids: Ids, scales: Floats, shifts: Floats) -> None:
    """One after the other."""
    for row, token, scale, shift in zip(rows, ids, scales, shifts, strict=True):
        x = logits[row, token]
        logits[row, token] = (x / scale if x > 0 else x * scale) + shift


def edit_logits(logits: Floats, rows: Ids, ids: Ids, scales: Floats, shifts: Floats) -> None:
    """CPU version; see the module's contract."""
    _edit(logits, rows, ids, scales, shifts)


@compiled()
def _edit(logits: Any, rows: Any, ids: Any, scales: Any, shifts: Any) -> None:
    for i in range(len(rows)):
        x = logits[rows[i], ids[i]]
        logits[rows[i], ids[i]] = (x / scales[i] if x > 0 else x * scales[i]) + shifts[i]
