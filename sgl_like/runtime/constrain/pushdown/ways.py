"""The ways in which a frame can end: for each result, a shortest byte string that brings it.

A frame is asked for its ways one by one, shortest first, and never for more than are needed: the first of a string is
its shortest text; only if the container cannot go on with that verdict is there a second. An answer is a way, or, if
the next one is longer than the asker can use now, a lower bound of its length. So a value within a value within itself
is no harm: what it takes to write the inner one is always shorter than what is being asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Node, Pool
from sgl_like.runtime.constrain.lengths import meet
from sgl_like.runtime.constrain.pushdown.expressions import Counted, Scalar
from sgl_like.runtime.constrain.pushdown.frame import Frame, Go, Leave, Pop, Result
from sgl_like.runtime.constrain.pushdown.syntax import SPACES
from sgl_like.runtime.constrain.pushdown.texts import BARRED, Texts

__all__ = [
    "NEVER", "Known", "Merged", "ScalarWays", "Way", "Ways", "expression_ways", "punctuation", "text_ways",
    "uncommon_ways",
]  # fmt: skip

NEVER = 1 << 60
"""The length of a way that does not exist."""

_MOST_JOINT = 5_000  # states of a scalar and what is watched of it that are visited one by one
_MOST_VERDICTS = 256  # combinations of verdicts that are asked for after that
_UNCOMMON = 32  # names that are tried


class Way(NamedTuple):
    """Bytes with which a frame ends, and its result then."""

    data: bytes
    result: Result


class Ways(ABC):
    """The ways of one frame, for results that differ, shortest first."""

    @abstractmethod
    def get(self, index: int, limit: int) -> Way | int:
        """The way at `index` if it is known to have at most `limit` bytes, else a lower bound, over `limit`."""


class Known(Ways):
    """Ways that are all known."""

    def __init__(self, ways: Iterable[Way]) -> None:
        self._ways = sorted(ways, key=lambda way: len(way.data))

    def get(self, index: int, limit: int) -> Way | int:
        """See `Ways.get`."""
        if index >= len(self._ways):
            return NEVER
        way = self._ways[index]
        return way if len(way.data) <= limit else len(way.data)


class ScalarWays(Ways):
    """The ways of a string, a number or a literal.

    Args:
        pool: of the expressions.
        node: what may come.
        watch: expressions whose verdicts are the result.
    """

    def __init__(self, pool: Pool, node: Node, watch: tuple[Node, ...]) -> None:
        self._pool = pool
        self._node = node
        self._watch = watch
        self._found: list[Way] = []
        self._results: set[Result] = set()
        self._order = count()
        self._seen: set[tuple[Node, ...]] = set()
        self._heap: list[tuple[int, int, bytes, tuple[Node, ...]]] = []  # bound, order, path, what may follow

    def get(self, index: int, limit: int) -> Way | int:
        """See `Ways.get`."""
        if not self._found:
            if self._node is EMPTY:
                return NEVER
            if self._node.min_len > limit:
                return self._node.min_len
            data = derive.shortest(self._pool, self._node)
            self._add(Way(data, tuple(derive.matches(self._pool, each, data) for each in self._watch)))
            if self._watch:
                self._later(b"", (self._node, *self._watch))
        while len(self._found) <= index:
            if not self._heap:
                return NEVER
            if self._heap[0][0] > limit:
                return self._heap[0][0]
            if len(self._seen) > _MOST_JOINT:
                self._find_rest()
                continue
            _, _, path, nodes = heappop(self._heap)
            if nodes[0].nullable:
                self._add(Way(path, tuple(each.nullable for each in nodes[1:])))
            for mask, after in _joint_edges(self._pool, nodes):
                self._later(path + bytes([_readable(mask)]), after)
        way = self._found[index]
        return way if len(way.data) <= limit else len(way.data)

    def _add(self, way: Way) -> None:
        if way.result not in self._results:
            self._results.add(way.result)
            self._found.append(way)

    def _later(self, path: bytes, nodes: tuple[Node, ...]) -> None:
        if nodes not in self._seen:
            self._seen.add(nodes)
            heappush(self._heap, (len(path) + nodes[0].min_len, next(self._order), path, nodes))

    def _find_rest(self) -> None:
        """Instead of going on text by text, ask of each other combination of verdicts whether there is a text."""
        self._heap.clear()
        cells: list[tuple[Node, tuple[bool, ...]]] = [(self._node, ())]
        for each in self._watch:
            halves = []
            for node, flags in cells:
                yes = meet(self._pool, [node, each])
                no = meet(self._pool, [node], [each])
                halves += [
                    (half, (*flags, flag)) for half, flag in ((yes, True), (no, False)) if half is not EMPTY
                ]
            cells = sorted(halves, key=lambda cell: cell[0].min_len)[:_MOST_VERDICTS]
        ways = [
            Way(derive.shortest(self._pool, node), flags)
            for node, flags in cells
            if flags not in self._results
        ]
        for way in sorted(ways, key=lambda way: len(way.data)):
            self._add(way)


def _readable(mask: int) -> int:
    """One byte of the set: a letter or a digit if there is one."""
    for byte in b"a0 ":
        if mask >> byte & 1:
            return byte
    printable = mask >> 33 << 33 or mask
    return (printable & -printable).bit_length() - 1


def _joint_edges(pool: Pool, nodes: tuple[Node, ...]) -> list[tuple[int, tuple[Node, ...]]]:
    """Edges of expressions side by side, for bytes that the first of them allows."""
    parts: list[tuple[int, tuple[Node, ...]]] = [
        (mask, (after,)) for mask, after in derive.edges(pool, nodes[0])
    ]
    for node in nodes[1:]:
        edges, split = derive.edges(pool, node), []
        for mask, done in parts:
            for own, after in edges:
                if mask & own:
                    split.append((mask & own, (*done, after)))
                    mask &= ~own
            if mask:
                split.append((mask, (*done, EMPTY)))
        parts = split
    return parts


class Merged(Ways):
    """Ways of either of some frames, a few bytes before each.

    Args:
        sources: (bytes before, lower bound of the ways, what makes them).
        single: whether there is but one result.
    """

    def __init__(self, sources: list[tuple[bytes, int, Callable[[], Ways]]], single: bool) -> None:
        self._makers = {i: make for i, (_, _, make) in enumerate(sources)}
        self._before = [before for before, _, _ in sources]
        self._ways: dict[int, Ways] = {}
        self._heap = [(len(before) + bound, i, 0) for i, (before, bound, _) in enumerate(sources)]
        heapify(self._heap)
        self._found: list[Way] = []
        self._results: set[Result] = set()
        self._single = single
        self._busy = False

    def get(self, index: int, limit: int) -> Way | int:
        """See `Ways.get`."""
        while len(self._found) <= index:
            if not self._heap or (self._single and self._found):
                return NEVER
            if self._heap[0][0] > limit or self._busy:
                return max(self._heap[0][0], limit + 1)
            self._busy = True
            try:
                self._advance(limit)
            finally:
                self._busy = False
        way = self._found[index]
        return way if len(way.data) <= limit else len(way.data)

    def _advance(self, limit: int) -> None:
        bound, i, at = self._heap[0]
        before = self._before[i]
        if i not in self._ways:
            self._ways[i] = self._makers.pop(i)()
        if len(self._heap) > 1:
            limit = min(limit, max(bound, min(entry[0] for entry in self._heap[1:3])))
        answer = self._ways[i].get(at, limit - len(before))
        heappop(self._heap)
        if isinstance(answer, int):
            if answer < NEVER:
                heappush(self._heap, (answer + len(before), i, at))
            return
        heappush(self._heap, (len(answer.data) + len(before), i, at + 1))
        if answer.result not in self._results:
            self._results.add(answer.result)
            self._found.append(Way(before + answer.data, answer.result))


def text_ways(frame: Texts, without: Iterable[bytes] = ()) -> Ways:
    """The ways of a native frame: each text, and what the other frame reads that is none of the texts.

    Args:
        frame: the frame.
        without: texts that are not wanted of the other frame.
    """
    known = [
        Way(t, result) for t, result in zip(frame.texts, frame.results, strict=True) if result is not BARRED
    ]
    if frame.other is None:
        return Known(known)
    other = frame.other
    assert isinstance(other, Scalar | Counted)
    barred = (*frame.texts, *without)
    return Merged([(b"", 1, lambda: Known(known)), (b"", 1, lambda: expression_ways(other, barred))], False)


def expression_ways(frame: Scalar | Counted, without: Iterable[bytes] = ()) -> Ways:
    """The ways of a frame of an expression, without some texts."""
    pool = frame.pool if isinstance(frame, Scalar) else frame.loop.pool
    pool.start_work()
    node, texts = frame.node, sorted(set(without))
    if texts:
        node = derive.conjoin(pool, [node], [pool.strings(texts)])
    return ScalarWays(pool, node, frame.watch if isinstance(frame, Scalar) else ())


def uncommon_ways(frame: Scalar | Counted, without: Iterable[bytes]) -> Ways:
    """Ways that end a key so that it is hardly one of those that came before, of which nobody knows."""
    pool = frame.pool if isinstance(frame, Scalar) else frame.loop.pool
    watch = frame.watch if isinstance(frame, Scalar) else ()
    ways = []
    for i in range(_UNCOMMON):
        data = b'more%d"' % (i + 1)
        if data not in without and derive.matches(pool, frame.node, data):
            ways.append(Way(data, tuple(derive.matches(pool, each, data) for each in watch)))
    return Known(ways)


def punctuation(frame: Frame) -> Ways:
    """The ways of a frame that reads a few bytes by itself; whitespace only where it has to be."""
    ways: dict[Result, Way] = {}
    todo: list[tuple[Frame, bytes]] = [(frame, b"")]
    seen = {frame}
    for each, data in todo:
        spaces: list[Frame] = []
        before = len(ways), len(todo)
        rest = ALL_BYTES
        while rest:
            low = (rest & -rest).bit_length() - 1
            mask, action = each.step(low)
            rest &= ~mask
            if isinstance(action, Pop):
                ways.setdefault(action.result, Way(data + bytes([low]), action.result))
            elif isinstance(action, Leave):
                ways.setdefault(action.result, Way(data, action.result))
            elif isinstance(action, Go):
                (after,) = action.frames
                if mask & SPACES:
                    spaces.append(after)
                elif after not in seen:
                    seen.add(after)
                    todo.append((after, data + bytes([low])))
        if before == (len(ways), len(todo)):
            todo += [(after, data + b" ") for after in spaces]
    return Known(ways.values())
