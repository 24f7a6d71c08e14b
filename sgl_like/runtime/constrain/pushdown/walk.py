"""The loops of the machine that are machine code: steps, reading, and the walk over the vocabulary's trie.

A configuration is a state (the frame on top) and a stack node (what is below). Stack nodes are numbered: equal stacks
have one number. A code says what a state does with a byte, or with a child's result: the kind in the low three bits,
a number above them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled

UNKNOWN, DEAD = -1, 0
GO_ONE, GO, BECOME, POP, LEAVE = 1, 2, 3, 4, 5
KIND_BITS = 3
BARRIER = 0  # the stack node below which nothing looks: it notes an exit instead

ALIVE, DEAD_END, NATIVE, EXIT_POP, EXIT_LEAVE, NEED_STEP, NEED_RESUME, NEED_NODES = range(8)

# What `progress`, int64, holds.
PART, NODE, EXITS, NATIVES, NODES, STATE, WHAT, BELOW, SKIP = range(9)
PROGRESS = 9
HAS_ROW, NO_ROW, SETTLED = range(3)  # what `native` says of a state
WALK_ALL, WALK_OPEN, WALK_OPEN_NOTE_DEAD = range(3)  # what SKIP says: whether all is walked and added


@compiled("void(int32[:, ::1], int64, boolean[::1], int64)")
def put(table: NDArray[np.int32], row: int, members: NDArray[np.bool_], code: int) -> None:
    """Write the code of some bytes into a row."""
    for byte in range(256):
        if members[byte]:
            table[row, byte] = code


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


@compiled("int64(int32[:, ::1], int32[::1], int64[::1], int64, int64)")
def node_of(
    nodes: NDArray[np.int32], index: NDArray[np.int32], progress: NDArray[np.int64], state: int, below: int
) -> int:
    """Number of the stack node with `state` on `below`; -1 if it is new and there is no room."""
    size = index.shape[0]
    at = (state * 0x9E3779B1 + below * 0x85EBCA6B) & (size - 1)
    while index[at] != 0:
        known = index[at]
        if nodes[known, 0] == state and nodes[known, 1] == below:
            return int(known)
        at = (at + 1) & (size - 1)
    count = progress[NODES]
    if count >= nodes.shape[0] or 2 * count >= size:
        return -1
    nodes[count, 0], nodes[count, 1] = state, below
    index[at] = count
    progress[NODES] = count + 1
    return int(count)


@compiled(
    "UniTuple(int64, 3)(int32[:, ::1], int32[:, ::1], int32[::1], int64[::1], int32[::1], int64[::1], int64, int64)"
)
def resumed(
    chains: NDArray[np.int32],
    nodes: NDArray[np.int32],
    index: NDArray[np.int32],
    resume_keys: NDArray[np.int64],
    resume_values: NDArray[np.int32],
    progress: NDArray[np.int64],
    below: int,
    result: int,
) -> tuple[int, int, int]:
    """What `advance` returns when the frame above a stack node has ended with a result; at the barrier, EXIT_POP."""
    while True:
        if below == BARRIER:
            progress[WHAT] = result
            return EXIT_POP, DEAD, below
        parent = int(nodes[below, 0])
        below = int(nodes[below, 1])
        after = find(resume_keys, resume_values, parent << 32 | result)
        if after < 0:
            progress[STATE], progress[WHAT] = parent, result
            return NEED_RESUME, DEAD, below
        if after == DEAD:
            return DEAD_END, DEAD, below
        result = after >> KIND_BITS
        if after & 7 != LEAVE:
            break
    for i in range(1, chains[result, 0]):
        below = node_of(nodes, index, progress, chains[result, i], below)
        if below < 0:
            return NEED_NODES, DEAD, below
    return ALIVE, int(chains[result, chains[result, 0]]), below


@compiled(
    "UniTuple(int64, 3)(int32[:, ::1], int32[::1], uint8[::1], int32[:, ::1], int32[:, ::1], int32[::1], int64[::1],"
    " int32[::1], int64[::1], int64, int64, int64)"
)
def advance(
    table: NDArray[np.int32],
    rows: NDArray[np.int32],
    native: NDArray[np.uint8],
    chains: NDArray[np.int32],
    nodes: NDArray[np.int32],
    index: NDArray[np.int32],
    resume_keys: NDArray[np.int64],
    resume_values: NDArray[np.int32],
    progress: NDArray[np.int64],
    state: int,
    below: int,
    byte: int,
) -> tuple[int, int, int]:
    """One byte: (status, state, stack node) after it. An exit's result, or what is missing, is in `progress`."""
    while True:
        if native[state] == NO_ROW:
            return NATIVE, state, below
        row = rows[state]
        code = int(table[row, byte]) if row >= 0 else int(UNKNOWN)
        if code == DEAD:
            return DEAD_END, state, below
        if code == UNKNOWN:
            progress[STATE], progress[WHAT] = state, byte
            return NEED_STEP, state, below
        kind, number = code & 7, code >> KIND_BITS
        if kind == GO_ONE:
            return ALIVE, number, below
        if kind in (POP, LEAVE):
            status, state, below = resumed(
                chains, nodes, index, resume_keys, resume_values, progress, below, number
            )
            if status == EXIT_POP and kind == LEAVE:
                status = EXIT_LEAVE
            if status != ALIVE or kind == POP:
                return status, state, below
            continue
        for i in range(1, chains[number, 0]):
            below = node_of(nodes, index, progress, chains[number, i], below)
            if below < 0:
                return NEED_NODES, state, below
        state = int(chains[number, chains[number, 0]])
        if kind == GO:
            return ALIVE, state, below


@compiled(
    "int64(int32[:, ::1], int32[::1], uint8[::1], int32[:, ::1], int32[:, ::1], int32[::1], int64[::1], int32[::1],"
    " int64[::1], uint8[::1], int64)"
)
def read(
    table: NDArray[np.int32],
    rows: NDArray[np.int32],
    native: NDArray[np.uint8],
    chains: NDArray[np.int32],
    nodes: NDArray[np.int32],
    index: NDArray[np.int32],
    resume_keys: NDArray[np.int64],
    resume_values: NDArray[np.int32],
    progress: NDArray[np.int64],
    data: NDArray[np.uint8],
    stop: int,
) -> int:
    """Read ``data[progress[NODE]:stop]`` from state ``progress[PART]`` on node ``progress[BELOW]``, all of which it
    moves on; returns a status. At an exit the byte of `EXIT_POP` counts as read.
    """
    while progress[NODE] < stop:
        status, state, below = advance(
            table, rows, native, chains, nodes, index, resume_keys, resume_values, progress,
            progress[PART], progress[BELOW], int(data[progress[NODE]]),
        )  # fmt: skip
        if status in (ALIVE, EXIT_POP):
            progress[NODE] += 1
        if status in (ALIVE, NATIVE):
            progress[PART], progress[BELOW] = state, below
        if status != ALIVE:
            return status
    return ALIVE


@compiled(
    "int64(int32[:, ::1], int32[::1], uint8[::1], int32[:, ::1], int32[:, ::1], int32[::1], int64[::1],"
    " int32[::1], int64[::1], uint64[::1], int64, int64, uint8[::1], int32[::1], int32[::1], int32[::1], int32[::1],"
    " uint64[::1], int32[:, ::1],"
    " int32[:, ::1], uint32[::1], int32[:, ::1], int32[:, ::1])"
)
def walk(
    table: NDArray[np.int32],
    rows: NDArray[np.int32],
    native: NDArray[np.uint8],
    chains: NDArray[np.int32],
    nodes: NDArray[np.int32],
    index: NDArray[np.int32],
    resume_keys: NDArray[np.int64],
    resume_values: NDArray[np.int32],
    progress: NDArray[np.int64],
    closed: NDArray[np.uint64],
    start: int,
    below: int,
    byte: NDArray[np.uint8],
    depth: NDArray[np.int32],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    groups: NDArray[np.uint64],
    parts: NDArray[np.int32],
    path: NDArray[np.int32],
    out: NDArray[np.uint32],
    exits: NDArray[np.int32],
    natives: NDArray[np.int32],
) -> int:
    """Set the bit of every token that can be read from state `start` on node `below`, over some parts of the trie.

    Args:
        table: int32 [rows, 256], codes.
        rows: int32 [states], the row of each state, or -1.
        native: uint8 [states]: NO_ROW where the walk only notes that; SETTLED where SKIP may make it stop.
        chains: int32 [chains, 4], how many and which states.
        nodes: int32 [nodes, 2], (state, node below).
        index: int32 [n], hash table of nodes, see `node_of`.
        resume_keys: ``state << 32 | result`` -> code, see `find`.
        resume_values: ditto.
        progress: int64 [PROGRESS].
        closed: uint64 [states], the groups of bytes that are known to lead each state back to it; see `closed`. If
            SKIP says so, the subtrees are not added.
        start: state before the first trie node of each part.
        below: stack node below it.
        byte: of the `Trie`, like the next four.
        depth: of the `Trie`.
        end: of the `Trie`.
        first: of the `Trie`.
        tokens: of the `Trie`.
        groups: uint64 [n], the groups of bytes in the subtree of each trie node.
        parts: int32 [parts, 2], (first trie node, trie node after it); a part is a row of siblings.
        path: int32 [longest + 2, 2], the configuration before the byte at each depth.
        out: uint32 [ceil(vocab / 32)], only added to.
        exits: int32 [n, 4] takes (first trie node, node after, result, node whose tokens end there or -1) where the
            frame above the barrier ends.
        natives: int32 [n, 4] takes (first trie node, node after, state, stack node) where a native frame is to read,
            and with state DEAD, if SKIP says so, where the frame does not go on.

    Returns:
        ALIVE when done, or NEED_*: what must be provided before calling again.
    """
    node = progress[NODE]
    for part in range(progress[PART], parts.shape[0]):
        if node < 0:
            node = int(parts[part, 0])
            if node >= parts[part, 1]:
                node = -1
                continue
            path[depth[node], 0], path[depth[node], 1] = start, below
        while node < parts[part, 1]:
            d = depth[node]
            state, under = int(path[d, 0]), int(path[d, 1])
            if (
                groups[node] & ~closed[state]
                == 0  # a subtree that stays in this state, from where a character begins
                and not 0x80 <= byte[node] < 0xC0
            ):
                stop = first[node] if progress[SKIP] else first[end[node]]
                for i in range(first[node], stop):
                    token = tokens[i]
                    out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
                node = int(end[node])
                continue
            row = rows[state]
            code = int(table[row, byte[node]]) if row >= 0 else int(UNKNOWN)
            if code == DEAD and native[state] != NO_ROW and progress[SKIP] != WALK_OPEN_NOTE_DEAD:
                node = int(end[node])
                continue
            status = ALIVE
            if code & 7 == GO_ONE and code > 0 and native[state] != NO_ROW:  # by far the most: no call
                state = code >> KIND_BITS
            else:
                status, state, under = advance(
                    table, rows, native, chains, nodes, index, resume_keys, resume_values, progress,
                    state, under, int(byte[node]),
                )  # fmt: skip
            if status == ALIVE:
                if native[state] == SETTLED and progress[SKIP]:
                    node = int(end[node])
                    continue
                for i in range(first[node], first[node + 1]):
                    token = tokens[i]
                    out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
                if native[state] == NO_ROW:
                    if end[node] > node + 1:
                        count = progress[NATIVES]
                        natives[count, 0], natives[count, 1] = node + 1, end[node]
                        natives[count, 2], natives[count, 3] = state, under
                        progress[NATIVES] = count + 1
                    node = int(end[node])
                else:
                    path[d + 1, 0], path[d + 1, 1] = state, under
                    node += 1
                continue
            if status >= NEED_STEP:
                progress[PART], progress[NODE] = part, node
                return status
            if progress[SKIP] == WALK_OPEN_NOTE_DEAD and status in (DEAD_END, EXIT_POP, EXIT_LEAVE):
                count = progress[NATIVES]
                natives[count, 0], natives[count, 1] = node, end[node]
                natives[count, 2], natives[count, 3] = DEAD, BARRIER
                progress[NATIVES] = count + 1
            if status == EXIT_POP:
                count = progress[EXITS]
                exits[count, 0], exits[count, 1] = node + 1, end[node]
                exits[count, 2], exits[count, 3] = progress[WHAT], node
                progress[EXITS] = count + 1
            elif status == EXIT_LEAVE:
                result = progress[WHAT]
                count = progress[EXITS]
                if (
                    count > 0
                    and exits[count - 1, 1] == node
                    and exits[count - 1, 2] == result
                    and exits[count - 1, 3] < 0
                    and depth[exits[count - 1, 0]] == d
                ):
                    exits[count - 1, 1] = end[node]
                else:
                    exits[count, 0], exits[count, 1] = node, end[node]
                    exits[count, 2], exits[count, 3] = result, -1
                    progress[EXITS] = count + 1
            elif status == NATIVE:
                count = progress[NATIVES]
                if (
                    count > 0
                    and natives[count - 1, 1] == node
                    and natives[count - 1, 2] == state
                    and natives[count - 1, 3] == under
                    and depth[natives[count - 1, 0]] == d
                ):
                    natives[count - 1, 1] = end[node]
                else:
                    natives[count, 0], natives[count, 1] = node, end[node]
                    natives[count, 2], natives[count, 3] = state, under
                    progress[NATIVES] = count + 1
            node = int(end[node])
        node = -1
    return ALIVE


@compiled(
    "int64(int32[:, ::1], int32[::1], uint8[::1], int32[:, ::1], int32[:, ::1], int32[::1], int64[::1],"
    " int32[::1], int64[::1], uint64[::1], int64, int64, uint8[::1], int32[::1], int32[::1], int32[::1], int32[::1],"
    " uint64[::1], int32[:, ::1],"
    " int32[::1], int32[:, ::1], uint32[::1], int32[:, ::1], int32[:, ::1])"
)
def follow(
    table: NDArray[np.int32],
    rows: NDArray[np.int32],
    native: NDArray[np.uint8],
    chains: NDArray[np.int32],
    nodes: NDArray[np.int32],
    index: NDArray[np.int32],
    resume_keys: NDArray[np.int64],
    resume_values: NDArray[np.int32],
    progress: NDArray[np.int64],
    closed: NDArray[np.uint64],
    result: int,
    below: int,
    byte: NDArray[np.uint8],
    depth: NDArray[np.int32],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    groups: NDArray[np.uint64],
    parts: NDArray[np.int32],
    ended: NDArray[np.int32],
    path: NDArray[np.int32],
    out: NDArray[np.uint32],
    exits: NDArray[np.int32],
    natives: NDArray[np.int32],
) -> int:
    """`walk` from where the machine is when the frame above node `below` has ended with `result`. Sets the bits of
    the tokens that end at the trie nodes `ended` too; returns DEAD_END if the frame must not end so.
    """
    status, state, under = resumed(chains, nodes, index, resume_keys, resume_values, progress, below, result)
    if status != ALIVE:
        return status
    for n in range(ended.shape[0]):
        for i in range(first[ended[n]], first[ended[n] + 1]):
            token = tokens[i]
            out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
    return walk(
        table, rows, native, chains, nodes, index, resume_keys, resume_values, progress, closed, state, under, byte,
        depth, end, first, tokens, groups, parts, path, out, exits, natives,
    )  # fmt: skip
