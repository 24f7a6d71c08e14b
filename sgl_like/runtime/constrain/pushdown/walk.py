"""The loop over the vocabulary's trie, with a stack of frames, as machine code.

Codes in the table say what a frame does with a byte: the kind in the low three bits, a number above them.
Stack nodes are (state, node below) pairs; those made on the way, above the caller's, have negative numbers and
live in two scratch arrays for as long as the walk is below the place that made them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled

UNKNOWN, DEAD = -1, 0
GO, PUSH, ENTER, POP, LEAVE = 1, 2, 3, 4, 5
KIND_BITS = 3
BARRIER = 0  # number of the stack node below which a walk does not look: it notes an exit instead

DONE, NEED_STEP, NEED_RESUME, SCRATCH_FULL = 0, 1, 2, 3


@compiled("int64(int64[::1], int32[::1], int64)")
def find(keys: NDArray[np.int64], values: NDArray[np.int32], key: int) -> int:
    """Value of a key in an open-addressing table whose size is a power of two; -1 if it is not there."""
    size = keys.shape[0]
    at = ((key >> 32) * 0x9E3779B1 + key * 0x85EBCA6B) & (size - 1)
    while keys[at] >= 0:
        if keys[at] == key:
            return int(values[at])
        at = (at + 1) & (size - 1)
    return -1


@compiled(
    "int64(int32[:, ::1], int32[:, ::1], int32[:, ::1], int64[::1], int32[::1], int64,"
    " uint8[::1], int32[::1], int32[::1], int32[::1], int32[::1], int32[:, ::1],"
    " int32[::1], int32[::1], int32[:, ::1], int64[::1], uint32[::1], int32[:, ::1])"
)
def walk(
    table: NDArray[np.int32],
    pairs: NDArray[np.int32],
    nodes: NDArray[np.int32],
    resume_keys: NDArray[np.int64],
    resume_values: NDArray[np.int32],
    start: int,
    byte: NDArray[np.uint8],
    depth: NDArray[np.int32],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    parts: NDArray[np.int32],
    stack: NDArray[np.int32],
    tops: NDArray[np.int32],
    scratch: NDArray[np.int32],
    progress: NDArray[np.int64],
    out: NDArray[np.uint32],
    exits: NDArray[np.int32],
) -> int:
    """Set the bit of every token that can be read from stack node `start`, over some parts of the trie.

    Args:
        table: int32 [states, 256], codes.
        pairs: int32 [pairs, 2], (frame that waits, child) of PUSH and ENTER.
        nodes: int32 [nodes, 2], (state, node below) of known stack nodes.
        resume_keys: ``state << 32 | result`` -> state, see `find`.
        resume_values: ditto.
        start: stack node before the first trie node of each part.
        byte: of the `Trie`, like the next four.
        depth: of the `Trie`.
        end: of the `Trie`.
        first: of the `Trie`.
        tokens: of the `Trie`.
        parts: int32 [parts, 2], (first trie node, trie node after it); a part is a row of siblings.
        stack: int32 [longest + 1], stack node before the byte at each depth.
        tops: int32 [longest + 1], scratch nodes in use at each depth.
        scratch: int32 [n, 2], scratch stack nodes.
        progress: int64 [5]: part, trie node (-1: its first), exits found, and what is missing (state, byte or result).
        out: uint32 [ceil(vocab / 32)], only added to.
        exits: int32 [n, 4] takes (first trie node, node after, result, node whose tokens end there or -1) where the
            frame above the barrier ends.

    Returns:
        DONE; or what must be filled in before calling again.
    """
    node, count = progress[1], progress[2]
    for part in range(progress[0], parts.shape[0]):
        if node < 0:
            node = np.int64(parts[part, 0])
            if node >= parts[part, 1]:
                node = -1
                continue
            stack[depth[node]] = start
            tops[depth[node]] = 0
        while node < parts[part, 1]:
            d = depth[node]
            here, top = np.int64(stack[d]), tops[d]
            b = byte[node]
            alive = False
            while True:
                if here >= 0:
                    state, below = nodes[here, 0], np.int64(nodes[here, 1])
                else:
                    state, below = (
                        scratch[-here - 1, 0],
                        np.int64(scratch[-here - 1, 1]),
                    )
                code = table[state, b]
                if code == DEAD:
                    break
                if code == UNKNOWN:
                    progress[0], progress[1], progress[2] = part, node, count
                    progress[3], progress[4] = state, b
                    return NEED_STEP
                kind, number = code & 7, code >> KIND_BITS
                if top + 3 > scratch.shape[0]:
                    progress[0], progress[1], progress[2] = part, node, count
                    return SCRATCH_FULL
                if kind == GO:
                    scratch[top, 0], scratch[top, 1] = number, below
                    top += 1
                    here = np.int64(-top)
                    alive = True
                    break
                if kind in (PUSH, ENTER):
                    scratch[top, 0], scratch[top, 1] = pairs[number, 0], below
                    scratch[top + 1, 0], scratch[top + 1, 1] = (
                        pairs[number, 1],
                        -(top + 1),
                    )
                    top += 2
                    here = np.int64(-top)
                    if kind == PUSH:
                        alive = True
                        break
                    continue
                if below == BARRIER:
                    if kind == POP:
                        exits[count, 0], exits[count, 1] = node + 1, end[node]
                        exits[count, 2], exits[count, 3] = number, node
                        count += 1
                    elif (
                        count > 0
                        and exits[count - 1, 1] == node
                        and exits[count - 1, 2] == number
                        and exits[count - 1, 3] < 0
                        and depth[exits[count - 1, 0]] == d
                    ):
                        exits[count - 1, 1] = end[node]
                    else:
                        exits[count, 0], exits[count, 1] = node, end[node]
                        exits[count, 2], exits[count, 3] = number, -1
                        count += 1
                    break
                if below >= 0:
                    parent, under = np.int64(nodes[below, 0]), np.int64(nodes[below, 1])
                else:
                    parent, under = (
                        np.int64(scratch[-below - 1, 0]),
                        np.int64(scratch[-below - 1, 1]),
                    )
                after = find(resume_keys, resume_values, parent << 32 | number)
                if after == DEAD:
                    break
                if after < 0:
                    progress[0], progress[1], progress[2] = part, node, count
                    progress[3], progress[4] = parent, number
                    return NEED_RESUME
                scratch[top, 0], scratch[top, 1] = after, under
                top += 1
                here = np.int64(-top)
                if kind == POP:
                    alive = True
                    break
            if alive:
                stack[d + 1] = here
                tops[d + 1] = top
                for i in range(first[node], first[node + 1]):
                    token = tokens[i]
                    out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
                node += 1
            else:
                node = np.int64(end[node])
        node = -1
    progress[2] = count
    return DONE


@compiled("void(int32[::1], int32[::1], int32[::1], uint32[::1])")
def add_tokens(
    at: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    out: NDArray[np.uint32],
) -> None:
    """Set the bits of the tokens that end at some trie nodes."""
    for n in range(at.shape[0]):
        for i in range(first[at[n]], first[at[n] + 1]):
            token = tokens[i]
            out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
