"""The vocabulary as one flat byte trie, and the loops over it that are machine code.

A trie in preorder needs no pointers: a node is followed by its children, and `end` says where its subtree stops.

    tokens: a, ab, b        node    0    1    2          walking: node 0 allowed -> go to 1, else jump to end[0] = 2
                            byte    a    b    b
                            depth   0    1    0
                            end     2    2    3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled

__all__ = ["Trie", "build_trie", "find_extension", "walk"]


class Trie(NamedTuple):
    """A byte trie of tokens in preorder. `n` nodes, `t` tokens.

    Args:
        byte: uint8 [n], the last byte of each node's path.
        depth: int32 [n], length of the path before that byte.
        end: int32 [n], first node after the node's subtree.
        first: int32 [n + 1], the tokens that end at node i are ``tokens[first[i] : first[i + 1]]``.
        tokens: int32 [t], token ids in the order of their bytes.
        longest: bytes of the longest token.
    """

    byte: NDArray[np.uint8]
    depth: NDArray[np.int32]
    end: NDArray[np.int32]
    first: NDArray[np.int32]
    tokens: NDArray[np.int32]
    longest: int


def build_trie(token_bytes: Sequence[bytes | None]) -> Trie:
    """The trie of all tokens that have bytes (neither None nor empty)."""
    ids = [i for i, data in enumerate(token_bytes) if data]
    ids.sort(key=lambda i: token_bytes[i] or b"")
    tokens = np.array(ids, dtype=np.int32)
    joined = bytearray()  # not b"".join, which needs 80 bytes for each token
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    for place, i in enumerate(ids, 1):
        joined += token_bytes[i] or b""
        offsets[place] = len(joined)
    longest = int(np.diff(offsets).max(initial=0))
    size = len(joined)
    byte, depth = np.zeros(size, np.uint8), np.zeros(size, np.int32)
    end, first = np.zeros(size, np.int32), np.zeros(size + 1, np.int32)
    data, path = np.frombuffer(joined, dtype=np.uint8), np.zeros(longest + 1, np.int32)
    nodes = int(_fill_trie(data, offsets, byte, depth, end, first, path))
    arrays = byte[:nodes].copy(), depth[:nodes].copy(), end[:nodes].copy(), first[: nodes + 1].copy()
    return Trie(*arrays, tokens, longest)


@compiled("int64(uint8[::1], int64[::1], uint8[::1], int32[::1], int32[::1], int32[::1], int32[::1])")
def _fill_trie(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    byte: NDArray[np.uint8],
    depth: NDArray[np.int32],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    path: NDArray[np.int32],
) -> int:
    """Preorder from sorted tokens: token i adds the nodes that it does not share with token i - 1."""
    node = 0
    open_depth = 0  # length of the previous token: path[:open_depth] are its nodes
    for i in range(offsets.shape[0] - 1):
        start = offsets[i]
        length = offsets[i + 1] - start
        shared = 0
        while shared < open_depth and shared < length and byte[path[shared]] == data[start + shared]:
            shared += 1
        for d in range(shared, open_depth):
            end[path[d]] = node
        for d in range(shared, length):
            byte[node] = data[start + d]
            depth[node] = d
            first[node] = i
            path[d] = node
            node += 1
        open_depth = length
    for d in range(open_depth):
        end[path[d]] = node
    first[node] = offsets.shape[0] - 1
    return node


@compiled(
    "int64(int32[:, ::1], uint8[::1], int64, uint8[::1], int32[::1], int32[::1], int32[::1], int32[::1],"
    " int32[::1], int32[::1], int32[::1], int64[::1], uint32[::1], int32[::1])"
)
def walk(
    table: NDArray[np.int32],
    accepting: NDArray[np.uint8],
    start: int,
    byte: NDArray[np.uint8],
    depth: NDArray[np.int32],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    begins: NDArray[np.int32],
    stops: NDArray[np.int32],
    stack: NDArray[np.int32],
    progress: NDArray[np.int64],
    out: NDArray[np.uint32],
    exits: NDArray[np.int32],
) -> int:
    """Set the bit of every token that the automaton can read, walking parts of the trie in preorder.

    Args:
        table: int32 [states, 256]; 0 = the byte is not allowed, negative = not computed yet.
        accepting: uint8 [states], 1 where the state is accepting.
        start: the state before the first node of each part.
        byte: of the `Trie`, like the next four.
        depth: of the `Trie`.
        end: of the `Trie`.
        first: of the `Trie`.
        tokens: of the `Trie`.
        begins: int32 [parts], first nodes of the parts; each part is a row of siblings with all that is below.
        stops: int32 [parts], the nodes after the parts.
        stack: int32 [longest + 1], for the walk: ``stack[d]`` = state before the byte at depth d.
        progress: int64 [3], the part, the node (-1: its first) and the exits found; the caller passes 0, -1, 0.
        out: uint32 [ceil(vocab / 32)], only ever added to.
        exits: int32 [nodes] takes the nodes that end in an accepting state and have nodes below; or empty.

    Returns:
        -1 when done; else the number of a state for which the byte of node ``progress[1]`` is not computed yet: fill
        it and call again.
    """
    node, count = progress[1], progress[2]
    for part in range(progress[0], begins.shape[0]):
        if node < 0:
            node = np.int64(begins[part])
            stack[depth[node]] = start
        while node < stops[part]:
            d = depth[node]
            state = table[stack[d], byte[node]]
            if state > 0:
                stack[d + 1] = state
                for i in range(first[node], first[node + 1]):
                    token = tokens[i]
                    out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
                if exits.shape[0] > 0 and accepting[state] and end[node] > node + 1:
                    exits[count] = node
                    count += 1
                node += 1
            elif state == 0:
                node = np.int64(end[node])
            else:
                progress[0], progress[1], progress[2] = part, node, count
                return stack[d]  # type: ignore[no-any-return]
        node = np.int64(-1)
    progress[2] = count
    return -1


@compiled("int64(uint8[::1], int32[::1], uint8[::1])")
def find_extension(byte: NDArray[np.uint8], end: NDArray[np.int32], prefix: NDArray[np.uint8]) -> int:
    """The trie node of `prefix`, or -1: its subtree holds the tokens that are longer and start with it."""
    node, stop, found = 0, byte.shape[0], -1
    for d in range(prefix.shape[0]):
        while node < stop and byte[node] != prefix[d]:
            node = end[node]
        if node >= stop:
            return -1
        found = node
        stop = end[node]
        node += 1
    return found
