"""What a fragment, one frame with its children, does to the vocabulary: the pieces that masks are put together from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.constrain.pushdown import native_walk

Words = NDArray[np.uint32]
Ints = NDArray[np.int32]
NONE: Ints = np.zeros(0, dtype=np.int32)
_FEW = 32  # exits that are sooner sorted without numpy


class Parts:
    """Rows of siblings of the trie, int32 [n, 2], and what is known of walks over them.

    Attributes:
        size: how many trie nodes there are in them.
        segments: `Fragment` by (state, stack node on the barrier) to go on with.
        descents: by `texts.TextTable`, what `native_walk.descend` finds for each of its texts.
        followed: tokens by (state, stack node): all that can be read from there.
    """

    __slots__ = ("_deeper", "descents", "followed", "rows", "segments", "size")

    def __init__(self, rows: Ints) -> None:
        self.rows = rows
        self.size = int(native_walk.size_of(rows))
        self._deeper: Parts | None = None
        self.descents: dict[Any, tuple[Ints, Ints]] = {}
        self.segments: dict[tuple[int, int], Fragment] = {}
        self.followed: dict[tuple[int, int], Ints] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def deeper(self, depth: Ints) -> Parts:
        """Those of the rows that are not of first bytes, given the depth of each trie node."""
        if self._deeper is None:
            inside = depth[self.rows[:, 0]] > 0
            self._deeper = self if inside.all() else Parts(np.ascontiguousarray(self.rows[inside]))
        return self._deeper


class End(NamedTuple):
    """Where a fragment ends with a result: parts of the trie to go on with, and nodes whose tokens end there."""

    result: int
    parts: Parts
    nodes: Ints


class Native(NamedTuple):
    """Where a native frame above the fragment, on a stack node on the barrier, is to read on."""

    state: int
    below: int
    parts: Parts


class Fragment(NamedTuple):
    """Tokens that stay within a fragment, and what comes after its end.

    Args:
        base: uint32 [words], one of the common masks.
        more: int32 [n], tokens besides.
        ends: by result.
        natives: by state and stack node.
    """

    base: Words
    more: Ints
    ends: tuple[End, ...]
    natives: tuple[Native, ...]


def ends_of(exits: Ints) -> tuple[End, ...]:
    """The ends in what `walk.walk` has noted."""
    if len(exits) <= _FEW:
        return few_ends(exits.tolist())
    results = exits[:, 2]
    found = []
    for result in np.unique(results).tolist():
        mine = exits[results == result]
        rows = np.ascontiguousarray(mine[mine[:, 0] < mine[:, 1]][:, :2])
        found.append(End(result, Parts(rows), np.ascontiguousarray(mine[mine[:, 3] >= 0][:, 3])))
    return tuple(found)


def few_ends(exits: list[list[int]]) -> tuple[End, ...]:
    """The same of some exits, which need not be in an array."""
    found: dict[int, tuple[list[list[int]], list[int]]] = {}
    for first, stop, result, node in exits:
        rows, nodes = found.setdefault(result, ([], []))
        if first < stop:
            rows.append([first, stop])
        if node >= 0:
            nodes.append(node)
    return tuple(
        End(result, Parts(np.array(rows, dtype=np.int32).reshape(-1, 2)), np.array(nodes, dtype=np.int32))
        for result, (rows, nodes) in found.items()
    )


def without(end: End, result: int, places: Ints, ranges: Ints) -> End:
    """An end with another result, and without some nodes and those in some ranges of nodes; both rise.

    What stays the same stays the same object, with what is known of it.
    """
    rows, nodes = end.parts.rows, end.nodes
    kept_rows = _apart(_outside(rows, rows[:, 0] - 1, ranges), lambda a: a[:, 0], places + 1)
    kept_nodes = _apart(_outside(nodes, nodes, ranges), lambda a: a, places)
    return End(result, end.parts if kept_rows is rows else Parts(kept_rows), kept_nodes)


def _outside(array: Ints, places: Ints, ranges: Ints) -> Ints:
    if not len(ranges):
        return array
    at = np.searchsorted(ranges[:, 0], places, side="right") - 1
    inside = (at >= 0) & (places < ranges[np.maximum(at, 0), 1])
    return np.ascontiguousarray(array[~inside]) if inside.any() else array


def _apart(array: Ints, place: Any, gone: Ints) -> Ints:
    places = place(array)
    if not len(places) or not len(gone):
        return array
    at = np.searchsorted(places, gone)
    hits = at[(at < len(places)) & (places[np.minimum(at, len(places) - 1)] == gone)]
    return np.delete(array, hits, axis=0) if len(hits) else array
