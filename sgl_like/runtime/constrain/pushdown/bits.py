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


@compiled("int64(uint64, int64, int32[::1], int64)")
def list_bits(bits: np.uint64, first: int, listed: NDArray[np.int32], count: int) -> int:
    """Append the tokens from `first` on whose bits are set to `listed`, which has `count`, while there is room.

    Returns:
        How many there would be.
    """
    while bits:
        if count < listed.shape[0]:
            low = bits & (~bits + np.uint64(1))
            position = 0
            for shift in (32, 16, 8, 4, 2, 1):
                if low >> np.uint64(shift):
                    position += shift
                    low >>= np.uint64(shift)
            listed[count] = first + position
        count += 1
        bits &= bits - np.uint64(1)
    return count


@compiled("int64(uint32[::1], uint32[::1], int32[::1])")
def take_tokens(out: NDArray[np.uint32], base: NDArray[np.uint32], listed: NDArray[np.int32]) -> int:
    """List the tokens of `out` that are not in `base`, and clear `out`; if there is not room for all, do not clear.

    Returns:
        How many there are.
    """
    count, even = 0, out.shape[0] & ~1
    wide, wide_base = out[:even].view(np.uint64), base[:even].view(np.uint64)
    for i in range(wide.shape[0]):
        more = wide[i] & ~wide_base[i]
        if more:
            count = list_bits(more, 64 * i, listed, count)
    for word in range(even, out.shape[0]):
        count = list_bits(np.uint64(out[word] & ~base[word]), 32 * word, listed, count)
    if count <= listed.shape[0]:
        out[:] = 0
    return count
