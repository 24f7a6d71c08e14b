"""The likeliest token of each row.

Contract: ``argmax(logits) -> ids`` with ``logits: [rows, vocab]`` float32, contiguous, no NaN; ``ids: int64[rows]``,
the lowest id of equals.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels import row_tiles
from sgl_like.kernels.threads import TaskKernel, address, pointer, run_tasks, take
from sgl_like.kernels.tiles import LANES

BLOCK = 1024
"""Tokens whose maximum is found before they are looked at one by one."""


def reference(logits: Tensor) -> NDArray[np.int64]:
    """One token after the other."""
    found = []
    for row in logits.tolist():
        best = 0
        for token, logit in enumerate(row):
            if logit > row[best]:
                best = token
        found.append(best)
    return np.array(found, dtype=np.int64)


def argmax(logits: Tensor) -> NDArray[np.int64]:
    """CPU: machine code, a task for each row."""
    assert logits.dtype == torch.float32 and logits.is_contiguous() and logits.shape[1] > 0
    found = np.empty(len(logits), dtype=np.int64)
    if len(logits):
        run_tasks(_likeliest, len(logits), logits.data_ptr(), logits.shape[1], address(found))
    return found


def _rows(numbers):  # type: ignore[no-untyped-def]  # Numba reads a bare signature
    args = carray(numbers, 16)
    vocab = args[3]
    found = carray(pointer(args[4]), args[1], np.int64)
    while True:
        n = take(numbers)
        if n >= args[1]:
            break
        start = args[2] + 4 * n * vocab
        row = carray(pointer(start), vocab, np.float32)
        best, where = row[0], 0
        for at in range(0, vocab // BLOCK * BLOCK, BLOCK):
            top = row_tiles.largest(start + 4 * at, BLOCK // (4 * LANES))
            if top > best:
                best, where = top, at
        while row[where] != best:
            where += 1
        for at in range(vocab // BLOCK * BLOCK, vocab):
            if row[at] > best:
                best, where = row[at], at
        found[n] = where


_likeliest = TaskKernel(_rows)
