"""The fewest tokens that spell some bytes: what is left of a token budget has to suffice for a completion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled
from sgl_like.runtime.constrain.trie import Trie

__all__ = ["fewest_tokens"]


def fewest_tokens(trie: Trie, data: bytes) -> list[int] | None:
    """Token ids, as few as possible, whose bytes are `data`, the first of them as long as possible; None if there are
    none. Linear in ``len(data)``.
    """
    if not data:
        return []
    tokens = np.empty(len(data), dtype=np.int32)
    text = np.frombuffer(data, dtype=np.uint8)
    count = int(_spell(trie.byte, trie.end, trie.first, trie.tokens, text, tokens))
    return None if count < 0 else tokens[:count].tolist()


@compiled(
    "int64(uint8[::1], int32[::1], int32[::1], int32[::1], Array(uint8, 1, 'C', readonly=True), int32[::1])"
)
def _spell(
    byte: NDArray[np.uint8],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    data: NDArray[np.uint8],
    out: NDArray[np.int32],
) -> int:
    """From the end: how many tokens what follows each byte takes, and which comes first. -1 if it cannot be spelled."""
    size = data.shape[0]
    never = size + 1
    counts = np.full(size + 1, never, dtype=np.int64)
    choice = np.zeros(size, dtype=np.int64)
    length = np.zeros(size, dtype=np.int64)
    counts[size] = 0
    for at in range(size - 1, -1, -1):
        node, stop = 0, byte.shape[0]
        for reach in range(at, size):
            while node < stop and byte[node] != data[reach]:
                node = end[node]
            if node >= stop:
                break
            if first[node + 1] > first[node] and counts[reach + 1] + 1 <= counts[at]:
                counts[at] = counts[reach + 1] + 1
                choice[at] = tokens[first[node]]
                length[at] = reach + 1 - at
            stop = end[node]
            node += 1
    if counts[0] >= never:
        return -1
    at, count = 0, 0
    while at < size:
        out[count] = choice[at]
        at += length[at]
        count += 1
    return count
