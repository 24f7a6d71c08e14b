"""Sets of tokens as bits: uint32 [ceil(vocab / 32)], bit ``t % 32`` of word ``t // 32`` for token t."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled


@compiled("void(int32[::1], uint32[::1])")
def add_tokens(listed: NDArray[np.int32], out: NDArray[np.uint32]) -> None:
    """Set the bits of some tokens."""
    for i in range(listed.shape[0]):
        token = listed[i]
        out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)


@compiled("int64(uint32[::1], uint32[::1], int32[::1])")
def take_tokens(out: NDArray[np.uint32], base: NDArray[np.uint32], listed: NDArray[np.int32]) -> int:
    """List the tokens of `out` that are not in `base`, and clear `out`; if there is no room for them, do neither.

    Returns:
        How many there are.
    """
    count = 0
    for word in range(out.shape[0]):
        more = np.int64(out[word]) & ~np.int64(base[word])
        while more:
            more &= more - 1
            count += 1
    if count > listed.shape[0]:
        return count
    at = 0
    for word in range(out.shape[0]):
        more = np.int64(out[word]) & ~np.int64(base[word])
        out[word] = 0
        while more:
            low = more & -more
            position = 0
            for shift in (16, 8, 4, 2, 1):
                if low >> shift:
                    position += shift
                    low >>= shift
            listed[at] = word * 32 + position
            at += 1
            more &= more - 1
    return count
