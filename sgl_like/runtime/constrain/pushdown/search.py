"""Best-first search over the values that may still come; see `completion`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from time import monotonic

from sgl_like.runtime.constrain.pushdown.arrays import Array, Gate, InItem, Unique, without
from sgl_like.runtime.constrain.pushdown.expressions import Counted, Scalar
from sgl_like.runtime.constrain.pushdown.frame import Become, Frame, Leave, Result
from sgl_like.runtime.constrain.pushdown.needs import Needs, counts, late
from sgl_like.runtime.constrain.pushdown.objects import InKey, Object
from sgl_like.runtime.constrain.pushdown.syntax import Members
from sgl_like.runtime.constrain.pushdown.texts import Texts
from sgl_like.runtime.constrain.pushdown.values import Start
from sgl_like.runtime.constrain.pushdown.ways import (
    NEVER,
    Known,
    Merged,
    ScalarWays,
    Way,
    Ways,
    expression_ways,
    punctuation,
    text_ways,
    uncommon_ways,
)

__all__ = ["Finder", "Search", "Spent"]

_GREED = (
    3  # what a byte that is known to be missing weighs where any way will do, against one that is written
)
_SLACK = 16  # bytes that a way may take beyond what was known, where any will do
_UNCOMMON = 16  # length that other keys are taken to have, where uncommon ones are preferred


class Spent(Exception):
    """The budget of a search is used up."""


class Finder:
    """What the searches for one kind of completion share.

    Args:
        depth: None for shortest completions; else how deep containers may nest, and any way will do.
    """

    def __init__(self, depth: int | None) -> None:
        self.depth = depth
        self.left = 0
        self.until = inf  # of `monotonic`
        self._ways: dict[tuple[Frame, int | None], Ways] = {}
        self.needs = Needs()

    @property
    def size(self) -> int:
        """How much is remembered."""
        return len(self._ways)

    def spend(self) -> None:
        """Count a node."""
        if self.left <= 0 or (self.left % 16 == 0 and monotonic() > self.until):
            raise Spent
        self.left -= 1

    def ways(self, frame: Frame, depth: int | None) -> Ways:
        """The ways of a frame that has no frames above it."""
        key = (frame, depth)
        found = self._ways.get(key)
        if found is None:
            found = self._ways[key] = self._make(frame, depth)
        return found

    def _make(self, frame: Frame, depth: int | None) -> Ways:
        if isinstance(frame, Scalar | Counted):
            return expression_ways(frame)
        if isinstance(frame, Texts):
            return text_ways(frame)
        if isinstance(frame, Gate):
            return self.ways(frame.value, depth)
        if isinstance(frame, Start):
            return self._start(frame, depth)
        return punctuation(frame)

    def _start(self, frame: Start, depth: int | None) -> Ways:
        sources: list[tuple[bytes, int, Callable[[], Ways]]] = []
        single = True
        for text in frame.scalars:
            if text is not None:
                single = single and not text.watch
                made = ScalarWays(frame.pool, text.node, text.watch)
                sources.append((b"", max(1, text.node.min_len), partial(_given, made)))
        for which, opened in enumerate(frame.containers):
            if opened is not None and depth != 0:
                single = single and not opened.watch

                def make(which: int = which) -> Ways:
                    frames = frame._frames(which)
                    return Known(()) if frames is None else Search(self, frames, depth and depth - 1)

                sources.append((b"{["[which : which + 1], 1, make))
        return Merged(sources, single)

    def key_ways(self, object: Object, frame: Frame, came: Callable[[], list[bytes]], open: bool) -> Ways:
        """The ways of the next key of an object: if some have to come, the first of them.

        Args:
            object: whose key it is.
            frame: on top of the stack.
            came: tells the keys that this search has written.
            open: whether there may be others, which nobody remembers. If the number of members matters, names that
                they are not likely to have are taken first.
        """
        if isinstance(frame, Texts):
            wanted = (
                self.needs.wanted(object) if frame == object.keys() else None
            )  # no choice in the middle of a key
            if wanted is not None:
                places = [
                    i for i, result in enumerate(frame.results) if getattr(result, "name", None) in wanted
                ]
                return Known(Way(frame.texts[i], frame.results[i]) for i in places)
        if not counts(object):
            return self.ways(frame, None)
        other = frame.other if isinstance(frame, Texts) else frame
        if other is None:
            return self.ways(frame, None)
        assert isinstance(other, Scalar | Counted)
        known = frame.texts if isinstance(frame, Texts) else ()
        barred = [*known, *came()]
        sources: list[tuple[bytes, int, Callable[[], Ways]]] = []
        if known:
            assert isinstance(frame, Texts)
            named = Texts.of(frame.texts, frame.results)
            sources.append((b"", 1, lambda: text_ways(named)))
        later = 1
        if open:
            uncommon = uncommon_ways(other, barred)
            sources.append((b"", 1, lambda: uncommon))
            later = _UNCOMMON
        return Merged([*sources, (b"", later, lambda: expression_ways(other, barred))], False)


def _after_item(unique: Unique, text: bytes, action: Become) -> tuple[Frame, ...] | None:
    """What takes the place of an item of an array whose items are unique; None if it must not be this one."""
    after = unique.with_item(text.decode())
    array, members = action.frames
    assert isinstance(array, Array) and isinstance(members, Members)
    return None if after is None else without(array, members, after)


class _Below:
    """A stack of frames below another; `bound` is a lower bound of what all of them still read.

    `text`: if it is an item of an array whose items are unique, what of it came before the search.
    """

    __slots__ = ("bound", "frame", "rest", "text")

    def __init__(self, frame: Frame, rest: _Below | None, bound: int) -> None:
        self.frame = frame
        self.rest = rest
        self.bound = bound
        self.text = b""


class _Node:
    """A stack that was reached; `data` was read since `before`, whose top frame ended so."""

    __slots__ = ("before", "below", "cost", "data", "frame", "ways")

    def __init__(
        self, frame: Frame, below: _Below | None, cost: int, before: _Node | None, data: bytes
    ) -> None:
        self.frame = frame
        self.below = below
        self.cost = cost
        self.before = before
        self.data = data
        self.ways: Ways | None = None

    def path(self) -> bytes:
        """All that was read."""
        parts = []
        node: _Node | None = self
        while node is not None:
            parts.append(node.data)
            node = node.before
        return b"".join(reversed(parts))

    def keys(self) -> list[bytes]:
        """Keys of the object in which this node is before a key, as far as the search has written them."""
        assert self.below is not None
        found = []
        last, node = self, self.before
        while node is not None:
            if (
                node.below is not None
                and isinstance(node.below.frame, InKey)
                and node.below.rest is self.below.rest
            ):
                found.append(last.data)
            last, node = node, node.before
        return found

    def item(self, cell: _Below) -> bytes:
        """The text of an item, which ends with this node, of an array whose items are unique."""
        parts = []
        node: _Node | None = self
        while node is not None and not (isinstance(node.frame, Gate) and node.below is cell):
            parts.append(node.data)
            node = node.before
        return b"".join(reversed([*parts, cell.text] if node is None else parts))


class Search(Ways):
    """The ways in which a stack of frames ends, or gets to where the output may end.

    Args:
        finder: what is shared.
        frames: bottom first.
        depth: how deep containers may nest above it.
        texts: if the containers in it were begun before the search: for frames (by number) that are items of arrays
            whose items are unique, what has come of them.
        alive: if all that matters is whether there is a way: of which objects and arrays at the bottom it is known.
    """

    def __init__(
        self,
        finder: Finder,
        frames: tuple[Frame, ...],
        depth: int | None = None,
        texts: Mapping[int, bytes] | None = None,
        alive: Callable[[Frame], bool] | None = None,
    ) -> None:
        self._finder = finder
        self._alive = alive
        self._last: _Node | None = None
        self._open = texts is not None
        self._depth = finder.depth if depth is None else depth
        self._weight = 1 if self._depth is None and alive is None else _GREED
        self._order = count(step=1 if alive is None else -1)  # if any way will do, go on with the last
        self._cells: dict[tuple[Frame, _Below | None], _Below] = {}
        self._seen: dict[tuple[Frame, _Below | None], int] = {}
        self._objects: dict[object, list[tuple[int, int, int]]] = {}
        self._found: list[Way] = []
        self._results: set[Result] = set()
        self._ready: list[tuple[int, int, Way]] = []
        self._heap: list[
            tuple[int, int, _Node, int, int]
        ] = []  # priority, order, node, index of its next way, limit
        below = None
        for i, frame in enumerate(frames[:-1]):
            below = self._cell(frame, below)
            below.text = (texts or {}).get(i, b"")
        self._push(frames[-1:], below, 0, None, b"")

    def get(self, index: int, limit: int) -> Way | int:
        """See `Ways.get`. Greedy ways are in no order, and may be longer than the limit."""
        while len(self._found) <= index:
            bound = min(
                self._heap[0][0] if self._heap else NEVER, self._ready[0][0] if self._ready else NEVER
            )
            if bound == NEVER:
                return NEVER
            if bound > limit and self._depth is None:
                return bound
            if self._ready and self._ready[0][0] == bound:
                way = heappop(self._ready)[2]
                if way.result not in self._results:
                    self._results.add(way.result)
                    self._found.append(way)
                continue
            self._advance()
        way = self._found[index]
        return way if self._depth is not None or len(way.data) <= limit else len(way.data)

    def _advance(self) -> None:
        """Take a way of the most promising node."""
        self._finder.spend()
        bound, _, node, index, _ = self._heap[0]
        if node.ways is None:
            node.ways = self._ways(node)
        below = self._weight * (0 if node.below is None else node.below.bound)
        limit = NEVER - 1 if self._depth is not None else bound - node.cost - below
        answer = node.ways.get(index, limit if self._alive is None else limit + _SLACK)
        heappop(self._heap)
        if isinstance(answer, int):
            if answer < NEVER:
                self._later(node, index, answer)
            return
        self._later(node, index + 1, len(answer.data))
        self._end(node, answer)

    def _later(self, node: _Node, index: int, bound: int) -> None:
        below = 0 if node.below is None else node.below.bound
        heappush(self._heap, (node.cost + bound + self._weight * below, next(self._order), node, index, 0))

    def _ways(self, node: _Node) -> Ways:
        if node.below is not None and isinstance(node.below.frame, InKey):
            return self._finder.key_ways(node.below.frame.object, node.frame, node.keys, self._open)
        return self._finder.ways(node.frame, self._depth)

    def _end(self, node: _Node, way: Way) -> None:
        """The top frame ends: go on with those below."""
        cost = node.cost + len(way.data)
        result, below = way.result, node.below
        while below is not None:
            action = below.frame.resume(result)
            if action is None:
                return
            item, below = below, below.rest
            if isinstance(action, Leave):
                result = action.result
                continue
            frames: tuple[Frame, ...] | None = action.frames
            if isinstance(item.frame, InItem) and item.frame.unique is not None:
                frames = _after_item(
                    item.frame.unique, _Node(node.frame, None, 0, node, way.data).item(item), action
                )
            if frames is not None:
                self._push(frames, below, cost, node, way.data)
            return
        self._end_at(_Node(node.frame, None, cost, node, way.data), result)

    def _end_at(self, node: _Node, result: Result) -> None:
        self._last = node
        heappush(self._ready, (node.cost, next(self._order), Way(node.path(), result)))

    def passed(self) -> Iterator[Frame]:
        """Frames at the bottom on the way to the last end that was found."""
        node = self._last
        while node is not None:
            if node.below is not None and node.below.rest is None and isinstance(node.frame, Members):
                yield node.below.frame
            node = node.before

    def _leads_on(self, node: _Node) -> bool:
        below = node.below
        if (
            self._alive is None
            or below is None
            or below.rest is not None
            or not isinstance(node.frame, Members)
        ):
            return False
        return self._alive(below.frame)

    def _push(
        self, frames: tuple[Frame, ...], below: _Below | None, cost: int, before: _Node | None, data: bytes
    ) -> None:
        for frame in frames[:-1]:
            below = self._cell(frame, below)
        node = _Node(frames[-1], below, cost, before, data)
        if node.frame.accepting or (before is not None and self._leads_on(node)):
            self._end_at(node, None)
        elif not self._known(node):
            self._later(node, 0, 0)

    def _cell(self, frame: Frame, rest: _Below | None) -> _Below:
        found = self._cells.get((frame, rest))
        if found is None:
            bound = self._finder.needs.bound(frame) + (0 if rest is None else rest.bound)
            found = self._cells[frame, rest] = _Below(frame, rest, bound)
        return found

    def _known(self, node: _Node) -> bool:
        """Whether a node like this, or one that can do all that this one can, was reached with no more bytes."""
        key = (node.frame, node.below)
        if self._seen.get(key, NEVER) <= node.cost:
            return True
        self._seen[key] = node.cost
        if (
            node.below is None
            or not isinstance(node.below.frame, Object)
            or not isinstance(node.frame, Members)
        ):
            return False
        owner = node.below.frame
        if late(owner.must, owner):
            return True
        alike = owner.must, owner.watch, owner.first, node.frame, node.below.rest
        like = self._objects.setdefault(alike, [])
        for cost, used, place in like:
            if cost <= node.cost and not used & ~owner.used and place <= owner.place:
                return True
        like.append((node.cost, owner.used, owner.place))
        return False


def _given(ways: Ways) -> Ways:
    return ways
