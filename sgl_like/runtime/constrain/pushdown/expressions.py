"""Frames of byte expressions: one state per derivative, but counted repetition without a state per count."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.constrain import derive, fragments
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, EPSILON, Both, Concat, Node, Pool, Repeat
from sgl_like.runtime.constrain.pushdown.frame import Action, Frame, Go, Leave, Pop

_MOST_STATES = 32
_UNBOUNDED = 1 << 30


def frame_of(pool: Pool, node: Node, watch: tuple[Node, ...] = ()) -> Frame:
    """The frame in which `node` may still come; the verdicts of `watch` are its result."""
    return _counted(pool, node) or Scalar(pool, node, watch) if not watch else Scalar(pool, node, watch)


class Scalar(Frame):
    """Inside a string, a number or a literal.

    Args:
        pool: of the expressions.
        node: what may still come.
        watch: expressions whose verdicts are the result.
        counts: whether bounded repetition within is left to `Counted`.
    """

    __slots__ = ("_hash", "counts", "node", "pool", "watch")

    def __init__(self, pool: Pool, node: Node, watch: tuple[Node, ...], counts: bool = True) -> None:
        self.pool = pool
        self.node = node
        self.watch = watch
        self.counts = counts
        self._hash = hash((id(node), tuple(map(id, watch)), counts))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Scalar)
            and self.node is other.node
            and self.watch == other.watch
            and self.counts == other.counts
        )

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Derivatives of all expressions side by side."""
        self.pool.start_work()
        mask, target = edge(self.pool, self.node, byte)
        if target is EMPTY:
            return mask, Leave(self._result(self.watch)) if self.node.nullable else None
        watch = []
        for each in self.watch:
            own, after = edge(self.pool, each, byte)
            mask &= own
            watch.append(after)
        if target is EPSILON:
            return mask, Pop(self._result(watch))
        if self.counts:
            return mask, Go((frame_of(self.pool, target, tuple(watch)),))
        return mask, Go((Scalar(self.pool, target, tuple(watch), False),))

    def steps(self, byte: int) -> list[tuple[int, Action | None]]:
        """All sets of bytes at once."""
        if self.watch or type(self) is not Scalar:
            return [self.step(byte)]
        self.pool.start_work()
        found: list[tuple[int, Action | None]] = []
        rest = ALL_BYTES
        for mask, target in derive.edges(self.pool, self.node):
            rest &= ~mask
            if target is EPSILON:
                found.append((mask, Pop(())))
            else:
                found.append((mask, Go((self._at(target),))))
        if rest:
            found.append((rest, Leave(()) if self.node.nullable else None))
        return found

    def _at(self, node: Node) -> Frame:
        return frame_of(self.pool, node) if self.counts else Scalar(self.pool, node, (), False)

    @staticmethod
    def _result(watch: tuple[Node, ...] | list[Node]) -> tuple[bool, ...]:
        return tuple(node.nullable for node in watch)

    @property
    def leaving(self) -> tuple[tuple[bool, ...]] | None:
        """A number may end with the output."""
        return (self._result(self.watch),) if self.node.nullable else None

    @property
    def settled(self) -> bool:
        """Whether it reads on like `wider`."""
        if self.watch:
            return all(each is EMPTY for each in self.watch)
        return not (isinstance(self.node, Both) and self.node.negative)

    @property
    def wider(self) -> Frame | None:
        """A frame that reads the same except where watched or excluded expressions come in, if there is one."""
        if self.settled or self.node.nullable:
            return None
        if self.watch:
            return frame_of(self.pool, self.node)
        assert isinstance(self.node, Both)
        return frame_of(self.pool, derive.conjoin(self.pool, self.node.positive))

    def core(self, longest: int) -> Frame:
        """A frame with the same mask; see `fragments.clip`."""
        if self.watch:
            return self
        clipped = fragments.clip(self.pool, self.node, longest)
        return self if clipped is self.node else Scalar(self.pool, clipped, (), self.counts)


class Counted(Frame):
    """`low` to `high` items, and then a tail.

    Args:
        loop: the frame between items, where any number of them may come.
        at: where in `loop` it is: `loop` itself, or within an item (which is counted already).
        low: least number of items still to begin.
        high: largest number of them.
        tail: what comes after the last item; it begins with bytes that no item begins with.
        leaves: uint8 [256], 1 for the bytes that `tail` begins with.
    """

    native: ClassVar[bool] = True
    __slots__ = ("at", "high", "leaves", "loop", "low", "tail")

    def __init__(
        self, loop: Scalar, at: Scalar, low: int, high: int, tail: Node, leaves: NDArray[np.uint8]
    ) -> None:
        self.loop = loop
        self.at = at
        self.low = max(low, 0)
        self.high = high
        self.tail = tail
        self.leaves = leaves

    def _key(self) -> tuple[object, ...]:
        return self.at.node, self.low, self.high, self.tail, self.loop.node

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counted) and self._key() == other._key()

    def moved(self, at: Frame, items: int) -> Counted:
        """The frame at another place, after so many more items have begun."""
        assert isinstance(at, Scalar)
        return Counted(self.loop, at, self.low - items, self.high - items, self.tail, self.leaves)

    def core(self, longest: int) -> Frame:
        """Counts beyond the longest token make no difference."""
        if self.low <= longest and self.high <= longest:
            return self
        return Counted(
            self.loop, self.at, min(self.low, longest), min(self.high, longest), self.tail, self.leaves
        )

    @property
    def node(self) -> Node:
        """What may still come, as one expression."""
        pool, loop = self.loop.pool, self.loop.node
        assert isinstance(loop, Concat) and isinstance(loop.head, Repeat)
        high = None if self.high >= _UNBOUNDED // 2 else self.high
        rest = pool.concat(pool.repeat(loop.head.item, self.low, high), self.tail)
        begun, at = [], self.at.node
        while at is not loop:
            assert isinstance(at, Concat)
            begun.append(at.head)
            at = at.tail
        return pool.sequence(*begun, rest)

    def after(self) -> Frame:
        """The frame after the last item."""
        return frame_of(self.loop.pool, self.tail)


def _counted(pool: Pool, node: Node) -> Counted | None:
    """The frame of an expression that begins with a bounded repetition that can be counted."""
    if not isinstance(node, Concat) or not isinstance(node.head, Repeat):
        return None
    repeat = node.head
    if repeat.is_star or (repeat.high is None and repeat.low < 2) or node.tail.nullable:
        return None
    key = (repeat.item, node.tail)
    facts = pool.counted.get(key)
    if facts is None:
        facts = pool.counted[key] = _facts(pool, *key)
    if not facts:
        return None
    loop, leaves = facts
    high = _UNBOUNDED if repeat.high is None else repeat.high
    return Counted(loop, loop, repeat.low, high, node.tail, leaves)


def _facts(pool: Pool, item: Node, tail: Node) -> tuple[()] | tuple[Scalar, NDArray[np.uint8]]:
    """(loop, leaves) of `Counted`, or nothing if where an item ends depends on what comes after it."""
    if item.nullable:
        return ()
    begins = 0
    for mask, _ in derive.edges(pool, item):
        begins |= mask
    leaves = np.zeros(256, dtype=np.uint8)
    for mask, _ in derive.edges(pool, tail):
        if mask & begins:
            return ()
        leaves[[b for b in range(256) if mask >> b & 1]] = 1
    seen, todo = {item}, [item]
    for node in todo:  # grows while it runs
        for _, after in derive.edges(pool, node):
            if after.nullable and after is not EPSILON:
                return ()
            if after not in seen and after is not EPSILON:
                seen.add(after)
                todo.append(after)
        if len(seen) > _MOST_STATES:
            return ()
    node = pool.concat(pool.repeat(item, 0, None), tail)
    return () if node is EMPTY else (Scalar(pool, node, (), False), leaves)


def edge(pool: Pool, node: Node, byte: int) -> tuple[int, Node]:
    """The set of bytes around `byte` and the derivative by it."""
    if node is EMPTY:
        return ALL_BYTES, EMPTY
    rest = ALL_BYTES
    for mask, target in derive.edges(pool, node):
        if mask >> byte & 1:
            return mask, target
        rest &= ~mask
    return rest, EMPTY
