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


@compiled("boolean(int32[::1], int32[:, ::1], uint32[::1])")
def has_tokens(listed: NDArray[np.int32], ranges: NDArray[np.int32], mask: NDArray[np.uint32]) -> bool:
    """Whether any of the tokens in some ranges, int32 [ranges, 2], of a list is in a mask."""
    for i in range(ranges.shape[0]):
        for j in range(ranges[i, 0], ranges[i, 1]):
            if mask[listed[j] >> 5] >> np.uint32(listed[j] & 31) & 1:
                return True
    return False


@compiled("void(int32[::1], int32[:, ::1], uint32[::1])")
def drop_tokens(listed: NDArray[np.int32], ranges: NDArray[np.int32], out: NDArray[np.uint32]) -> None:
    """Clear the bits of the tokens in some ranges, int32 [ranges, 2], of a list."""
    for i in range(ranges.shape[0]):
        for j in range(ranges[i, 0], ranges[i, 1]):
            out[listed[j] >> 5] &= ~(np.uint32(1) << np.uint32(listed[j] & 31))


@compiled("Tuple((int32[::1], int32[::1]))(int32[:, ::1])")
def by_need(found: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tokens, given with what each needs (from 0 on), by what they need; how many need no more than 0, 1, ..."""
    largest = 0
    for i in range(found.shape[0]):
        largest = max(largest, found[i, 1])
    at = np.zeros(largest + 2, dtype=np.int32)
    for i in range(found.shape[0]):
        at[found[i, 1] + 1] += 1
    for need in range(largest):
        at[need + 1] += at[need]
    listed = np.empty(found.shape[0], dtype=np.int32)
    for i in range(found.shape[0]):
        listed[at[found[i, 1]]] = found[i, 0]
        at[found[i, 1]] += 1
    return listed, at[: largest + 1]


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
