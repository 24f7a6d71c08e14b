"""The loops of frames that have no row in the machine's table: sets of texts, and items that are counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled
from sgl_like.runtime.constrain.pushdown.walk import (
    ALIVE,
    DEAD,
    DEAD_END,
    EXIT_LEAVE,
    EXITS,
    KIND_BITS,
    NATIVES,
    NEED_STEP,
    NODE,
    PART,
    STATE,
    UNKNOWN,
    WHAT,
    node_of,
)


@compiled("void(int32[:, ::1], int32[:, ::1], int32[::1], int64[::1])")
def put_nodes(
    old: NDArray[np.int32], nodes: NDArray[np.int32], index: NDArray[np.int32], progress: NDArray[np.int64]
) -> None:
    """Put stack nodes, int32 [n, 2] as (state, node below), into larger tables; see `walk.node_of`."""
    for i in range(old.shape[0]):
        node_of(nodes, index, progress, old[i, 0], old[i, 1])


@compiled(
    "int64(uint8[::1], int64[::1], int64, int64, uint8[::1], boolean, uint8[::1], int32[::1], int32[::1], int32[::1],"
    " int32[:, ::1], int32[:, ::1], uint32[::1], int32[:, ::1], int32[:, ::1], int64[::1])"
)
def descend(
    texts: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    low: int,
    read: int,
    chosen: NDArray[np.uint8],
    barred: bool,
    byte: NDArray[np.uint8],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    parts: NDArray[np.int32],
    rows: NDArray[np.int32],
    out: NDArray[np.uint32],
    exits: NDArray[np.int32],
    found: NDArray[np.int32],
    progress: NDArray[np.int64],
) -> int:
    """Find tokens that are a proper prefix of what is left of some texts, and note where whole texts end.

    Args:
        texts: the texts of a table one after the other, sorted; none is a prefix of another.
        offsets: int64 [texts + 1].
        low: first text; all have what was read in common.
        read: how many bytes of each have been read.
        chosen: uint8 [n], of the texts from `low` on: 1 for those that are looked for.
        barred: whether to note where the others end.
        byte: of the `Trie`, like the next three.
        end: of the `Trie`.
        first: of the `Trie`.
        tokens: of the `Trie`.
        parts: int32 [parts, 2], rows of siblings to begin at.
        rows: int32 [longest + 2, 2], for the walk: in the row at each depth, where the search is and the end.
        out: uint32 [words], to which the tokens are added, unless `found` takes them.
        exits: int32 [n, 4] takes (first trie node after the text, node after, number of the text or ~ the number of
            one that is not looked for, its last node).
        found: int32 [m, 2] takes (text from `low` on, token) for each of its tokens; or empty.
        progress: int64 [PROGRESS]; NATIVES counts `found`.

    Returns:
        The number of exits.
    """
    count = 0
    for part in range(parts.shape[0]):
        matched = 0  # bytes of the text before that were found
        taken = 0  # of which the tokens are taken
        before, before_stop = -1, -1
        rows[0, 0], rows[0, 1] = parts[part, 0], parts[part, 1]
        for i in range(chosen.shape[0]):
            if not (chosen[i] or barred):
                continue
            start = offsets[low + i] + read
            length = offsets[low + i + 1] - start
            d = 0
            if before >= 0 and found.shape[0] == 0:
                while d < length and before + d < before_stop and texts[before + d] == texts[start + d]:
                    d += 1
            before, before_stop = start, start + length
            known = min(d, matched)
            if chosen[i] and found.shape[0] == 0:
                for k in range(min(known, taken), known):
                    for j in range(first[rows[k, 0]], first[rows[k, 0] + 1]):
                        token = tokens[j]
                        out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
                taken = known
            taken = min(taken, known)
            if d > matched:
                continue  # the byte that was not found is in this text too
            matched = d
            if found.shape[0]:
                rows[0, 0] = parts[part, 0]
            while d < length:
                value = texts[start + d]
                at, stop = rows[d, 0], rows[d, 1]
                while at < stop and byte[at] < value:
                    at = end[at]
                rows[d, 0] = at
                if at >= stop or byte[at] != value:
                    break
                d += 1
                if d == length:
                    exits[count, 0], exits[count, 1], exits[count, 3] = at + 1, end[at], at
                    exits[count, 2] = low + i if chosen[i] else ~(low + i)
                    count += 1
                    break
                if chosen[i]:
                    for k in range(first[at], first[at + 1]):
                        token = tokens[k]
                        if found.shape[0]:
                            found[progress[NATIVES], 0], found[progress[NATIVES], 1] = i, token
                            progress[NATIVES] += 1
                            if progress[NATIVES] == found.shape[0]:
                                return count
                        else:
                            out[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
                    taken = d
                matched = d
                rows[d, 0], rows[d, 1] = at + 1, end[at]
    return count


@compiled("int64(int32[:, ::1])")
def size_of(parts: NDArray[np.int32]) -> int:
    """How many trie nodes there are in some parts."""
    size = 0
    for i in range(parts.shape[0]):
        size += parts[i, 1] - parts[i, 0]
    return size


@compiled("Tuple((int32[:, ::1], int32[::1]))(int32[:, ::1], int32[::1], int32[::1])")
def apart(
    parts: NDArray[np.int32], nodes: NDArray[np.int32], gone: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Some parts right below trie nodes, and some nodes, without what has to do with the nodes `gone`; all rise."""
    kept_parts, kept_nodes = np.empty_like(parts), np.empty_like(nodes)
    count = at = 0
    for i in range(parts.shape[0]):
        while at < gone.shape[0] and gone[at] < parts[i, 0] - 1:
            at += 1
        if at == gone.shape[0] or gone[at] != parts[i, 0] - 1:
            kept_parts[count, 0], kept_parts[count, 1] = parts[i, 0], parts[i, 1]
            count += 1
    left = at = 0
    for i in range(nodes.shape[0]):
        while at < gone.shape[0] and gone[at] < nodes[i]:
            at += 1
        if at == gone.shape[0] or gone[at] != nodes[i]:
            kept_nodes[left] = nodes[i]
            left += 1
    return kept_parts[:count], kept_nodes[:left]


@compiled(
    "int64(int32[:, ::1], int32[::1], int64, uint8[::1], int64, int64, int64, int64[::1], uint8[::1], int32[::1],"
    " int32[::1], int32[::1], int32[::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], uint64,"
    " uint64[::1])"
)
def count_walk(
    table: NDArray[np.int32],
    rows: NDArray[np.int32],
    loop: int,
    leaves: NDArray[np.uint8],
    start: int,
    low: int,
    high: int,
    progress: NDArray[np.int64],
    byte: NDArray[np.uint8],
    depth: NDArray[np.int32],
    end: NDArray[np.int32],
    first: NDArray[np.int32],
    tokens: NDArray[np.int32],
    parts: NDArray[np.int32],
    path: NDArray[np.int32],
    found: NDArray[np.int32],
    exits: NDArray[np.int32],
    closed: int,
    groups: NDArray[np.uint64],
) -> int:
    """Walk parts of the trie with an item that is repeated; see `counted.Counted`.

    Args:
        table: int32 [rows, 256], codes.
        rows: int32 [states], the row of each state, or -1.
        loop: state between items.
        leaves: uint8 [256], 1 for the bytes that come after the last item.
        start: state before the parts: `loop`, or within an item.
        low: least number of items that end or begin from here on.
        high: largest number of them.
        progress: int64 [PROGRESS]; EXITS counts exits, NATIVES counts `found`.
        byte: of the `Trie`, like the next four.
        depth: of the `Trie`.
        end: of the `Trie`.
        first: of the `Trie`.
        tokens: of the `Trie`.
        parts: int32 [parts, 2].
        path: int32 [longest + 2, 2], (state, items) before the byte at each depth.
        found: int32 [vocab, 2] takes (token, items that it needs).
        exits: int32 [n, 4] takes (trie node, node after, items, -1) where the last item has ended.
        closed: the groups of bytes of which every character is known to be one item; see `closed`.
        groups: uint64 [n], the groups of bytes in the subtree of each trie node.

    Returns:
        ALIVE when done, or NEED_STEP.
    """
    node = progress[NODE]
    for part in range(progress[PART], parts.shape[0]):
        if node < 0:
            node = int(parts[part, 0])
            if node >= parts[part, 1]:
                node = -1
                continue
            path[depth[node], 0] = start
            path[depth[node], 1] = 0 if start == loop else 1
        while node < parts[part, 1]:
            d = depth[node]
            state, items = int(path[d, 0]), int(path[d, 1])
            if state == loop:
                if groups[node] & ~np.uint64(closed) == 0 and not 0x80 <= byte[node] < 0xC0:
                    for each in range(node, end[node]):
                        d = depth[each]
                        items = path[d, 1] + (not 0x80 <= byte[each] < 0xC0)
                        path[d + 1, 1] = items
                        if items <= high:
                            for i in range(first[each], first[each + 1]):
                                count = progress[NATIVES]
                                found[count, 0], found[count, 1] = tokens[i], items
                                progress[NATIVES] = count + 1
                    node = int(end[node])
                    continue
                if leaves[byte[node]]:
                    if items >= low:
                        count = progress[EXITS]
                        exits[count, 0], exits[count, 1] = node, end[node]
                        exits[count, 2], exits[count, 3] = items, -1
                        progress[EXITS] = count + 1
                    node = int(end[node])
                    continue
                items += 1
            row = rows[state]
            code = table[row, byte[node]] if row >= 0 else np.int32(UNKNOWN)
            if code == UNKNOWN:
                progress[PART], progress[NODE] = part, node
                progress[STATE], progress[WHAT] = state, byte[node]
                return NEED_STEP
            if code == DEAD or items > high:
                node = int(end[node])
                continue
            for i in range(first[node], first[node + 1]):
                count = progress[NATIVES]
                found[count, 0], found[count, 1] = tokens[i], items
                progress[NATIVES] = count + 1
            path[d + 1, 0], path[d + 1, 1] = code >> KIND_BITS, items
            node += 1
        node = -1
    return ALIVE


@compiled("int64(int32[:, ::1], int32[::1], int64, uint8[::1], int64[::1], uint8[::1], int64)")
def count_read(
    table: NDArray[np.int32],
    rows: NDArray[np.int32],
    loop: int,
    leaves: NDArray[np.uint8],
    progress: NDArray[np.int64],
    data: NDArray[np.uint8],
    stop: int,
) -> int:
    """Read ``data[progress[NODE]:stop]`` from state ``progress[PART]`` up to a byte of `leaves` between items; counts
    the items that begin in ``progress[EXITS]``. Returns ALIVE, DEAD_END, EXIT_LEAVE or NEED_STEP.
    """
    while progress[NODE] < stop:
        state, next_byte = progress[PART], data[progress[NODE]]
        if state == loop and leaves[next_byte]:
            return EXIT_LEAVE
        row = rows[state]
        code = table[row, next_byte] if row >= 0 else np.int32(UNKNOWN)
        if code == UNKNOWN:
            progress[STATE], progress[WHAT] = state, next_byte
            return NEED_STEP
        if code == DEAD:
            return DEAD_END
        if state == loop:
            progress[EXITS] += 1
        progress[PART] = code >> KIND_BITS
        progress[NODE] += 1
    return ALIVE
