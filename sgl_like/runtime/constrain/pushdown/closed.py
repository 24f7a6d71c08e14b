"""Whole subtrees of the vocabulary at once, where a frame stays in one state whatever comes.

Inside a string almost every byte leads back to the state before it. Of each trie node it is known which groups of bytes
are in its subtree; where a state is closed under all of them, the subtree's tokens are added without walking it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled
from sgl_like.runtime.constrain.pushdown import walk
from sgl_like.runtime.constrain.pushdown.tables import Tables
from sgl_like.runtime.constrain.trie import Trie

_MANY = 48  # of the 128 bytes
_FEWEST = 8  # groups that make it worth looking further
# Groups: characters that begin with e2, among them U+2028, which ``.`` does not match; all others beyond ASCII, whole
# or cut at the token's end; what is none in UTF-8.
_WITH_E2, _BEYOND_ASCII, _BROKEN = 61, 62, 63

_DEAD = 8
# Bytes that begin a character beyond ASCII, as below.
_E2 = ((0xE2, 0xE2, 2),)
_OTHERS = (
    (0xC2, 0xDF, 1), (0xE0, 0xE0, 4), (0xE1, 0xE1, 2), (0xE3, 0xEC, 2), (0xED, 0xED, 5), (0xEE, 0xEF, 2),
    (0xF0, 0xF0, 6), (0xF1, 0xF3, 3), (0xF4, 0xF4, 7),
)  # fmt: skip
# Within a character of UTF-8 (RFC 3629, section 4): (first byte, last byte, place after it) of places 0 to 7.
_UTF8: tuple[tuple[tuple[int, int, int], ...], ...] = (
    (*_OTHERS, *_E2),
    ((0x80, 0xBF, 0),), ((0x80, 0xBF, 1),), ((0x80, 0xBF, 2),),
    ((0xA0, 0xBF, 1),), ((0x80, 0x9F, 1),), ((0x90, 0xBF, 2),), ((0x80, 0x8F, 2),),
)  # fmt: skip


def _places() -> NDArray[np.uint8]:
    table = np.full((8, 256), _DEAD, dtype=np.uint8)
    table[0, :128] = 0
    for place, steps in enumerate(_UTF8):
        for first, last, after in steps:
            table[place, first : last + 1] = after
    return table


def _groups() -> NDArray[np.uint64]:
    """uint64 [256], the bit of each byte: letters have one each, digits one, and some marks."""
    groups = np.full(256, _BEYOND_ASCII, dtype=np.uint64)
    groups[:128] = 0
    groups[0x20:0x7F] = 1
    for number, byte in enumerate(b' "-./\\' + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B)), 2):
        groups[byte] = number
    groups[0x30:0x3A] = 60
    groups[0xE2] = _WITH_E2
    bits: NDArray[np.uint64] = np.uint64(1) << groups
    return bits


_PLACES, GROUPS = _places(), _groups()


def subtree_groups(trie: Trie) -> NDArray[np.uint64]:
    """Of each trie node, uint64 [n]: the groups of bytes in its subtree, its own byte included."""
    groups = np.zeros(len(trie.byte), dtype=np.uint64)
    path, below = np.zeros(trie.longest + 2, dtype=np.int64), np.zeros(trie.longest + 2, dtype=np.uint64)
    _find_groups(trie.byte, trie.depth, _PLACES, GROUPS, path, below, groups)
    return groups


@compiled("void(uint8[::1], int32[::1], uint8[:, ::1], uint64[::1], int64[::1], uint64[::1], uint64[::1])")
def _find_groups(
    byte: NDArray[np.uint8],
    depth: NDArray[np.int32],
    places: NDArray[np.uint8],
    bits: NDArray[np.uint64],
    path: NDArray[np.int64],
    below: NDArray[np.uint64],
    groups: NDArray[np.uint64],
) -> None:
    """Fill `groups`: each node's own on the way down, with the place in a character on `path`, all on the way up."""
    for node in range(byte.shape[0]):
        d = depth[node]
        place = path[d]
        after = places[place, byte[node]] if place < 8 else 8
        path[d + 1] = after
        groups[node] = bits[byte[node]] if after < 8 else np.uint64(1) << np.uint64(_BROKEN)
    for node in range(byte.shape[0] - 1, -1, -1):
        d = depth[node]
        groups[node] |= below[d + 1]
        below[d + 1] = np.uint64(0)
        below[d] |= groups[node]


def close(tables: Tables, state: int) -> None:
    """Find out under what a state of an expression is closed, and those that most bytes of ASCII lead from it to."""
    codes = np.array(_codes(tables, state, 0, 127))
    values, counts = np.unique(codes[codes & 7 == walk.GO_ONE], return_counts=True)
    for each in {state, *(values[counts >= _MANY] >> walk.KIND_BITS).tolist()}:
        if not tables.closed[each] and not tables.frame(each).native:
            tables.closed[each] = closed_groups(tables, each)


def closed_groups(tables: Tables, state: int) -> int:
    """The groups of bytes that lead a state of an expression back to it; 0 if they are few."""
    back = np.array(_codes(tables, state, 0, 127)) == state << walk.KIND_BITS | walk.GO_ONE
    away = np.bitwise_or.reduce(GROUPS[:128][~back]) if not back.all() else np.uint64(0)
    closed = ((1 << _WITH_E2) - 1) & ~int(away)
    if closed.bit_count() < _FEWEST:
        return 0
    for group, begins in ((_BEYOND_ASCII, _OTHERS), (_WITH_E2, _E2)):
        if not _comes_back(tables, state, begins):
            break
        closed |= 1 << group
    return closed


def _comes_back(tables: Tables, state: int, begins: tuple[tuple[int, int, int], ...]) -> bool:
    """Whether all characters that begin so lead back to the state, and not before they are whole."""
    todo, seen = [(state, 0)], {(state, 0)}
    for current, place in todo:  # grows while it runs
        if tables.frame(current).native:
            return False
        steps = _UTF8[place] if place else begins
        for first, last, after in steps:
            for code in set(_codes(tables, current, first, last)):
                if code & 7 != walk.GO_ONE:
                    return False
                step = code >> walk.KIND_BITS, after
                if (after == 0) != (step[0] == state):
                    return False
                if after and step not in seen:
                    seen.add(step)
                    todo.append(step)
    return True


def _codes(tables: Tables, state: int, first: int, last: int) -> list[int]:
    """The codes of a state for the bytes from `first` to `last`, all of which it is asked for."""
    codes: list[int] = tables.row(state, first)[first : last + 1].tolist()
    while walk.UNKNOWN in codes:
        codes = tables.row(state, first + codes.index(walk.UNKNOWN))[first : last + 1].tolist()
    return codes
