"""Brzozowski derivatives of expressions, all bytes at once, and what can be read from them.

`edges(pool, node)` gives for every set of bytes what may follow after one of them: a row of the automaton. Source:
Brzozowski, Derivatives of Regular Expressions (1964); Owens, Reppy, Turon, Regular-expression derivatives
re-examined (2009), for working on character classes instead of characters.

Only a conjunction (`Both`) can be empty without looking so. `conjoin`, and `edges` for what follows it, decide that
by looking for a string, so a derivative that leads nowhere is never among the edges.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count

from sgl_like.errors import ConstraintTooComplex
from sgl_like.runtime.constrain.expr import (
    ALL_BYTES,
    EMPTY,
    EPSILON,
    Alt,
    Both,
    Bytes,
    Concat,
    Corner,
    Edges,
    Multiple,
    Node,
    Pool,
    Repeat,
    Rule,
    Strings,
)
from sgl_like.runtime.constrain.float_multiples import edges_of
from sgl_like.runtime.constrain.nodes import FloatMultiple
from sgl_like.runtime.constrain.recursion import corner, left_recursion

__all__ = ["conjoin", "edges", "forced", "matches", "shortest"]

Pairs = Iterable[tuple[int, Node]]


def edges(pool: Pool, node: Node) -> Edges:
    """The derivatives of `node`: (256-bit set of bytes, what follows), disjoint, none of them the empty language."""
    found = pool.edges.get(node)
    if found is None:
        pool.check_clock()
        found = pool.edges[node] = _EDGES[type(node)](pool, node)
    return found


def conjoin(pool: Pool, positive: Iterable[Node], negative: Iterable[Node] = ()) -> Node:
    """What is in all of `positive` and in none of `negative`; `EMPTY` if that is nothing.

    Raises ConstraintTooComplex if that takes more than `limits.max_search` steps to find out.
    """
    node = pool.both(positive, negative)
    return node if _is_live(pool, node) else EMPTY


def matches(pool: Pool, node: Node, data: bytes) -> bool:
    """Whether `data` is in the language of `node`."""
    for byte in data:
        node = next((target for mask, target in edges(pool, node) if mask >> byte & 1), EMPTY)
    return node.nullable


def _constant_edges(pool: Pool, node: Node) -> Edges:
    return ()


def _bytes_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, Bytes)
    return ((node.mask, EPSILON),)


def _strings_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, Strings)
    rests: dict[int, list[bytes]] = {}
    for string in node.strings:
        if string:
            rests.setdefault(string[0], []).append(string[1:])
    return _join((1 << byte, pool.strings(rest)) for byte, rest in rests.items())


def _repeat_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, Repeat)
    high = None if node.high is None else node.high - 1
    rest = pool.repeat(node.item, max(node.low - 1, 0), high)
    return _join((mask, pool.concat(target, rest)) for mask, target in edges(pool, node.item))


def _concat_edges(pool: Pool, node: Node) -> Edges:
    pairs: list[tuple[int, Node]] = []
    while isinstance(node, Concat):
        tail = node.tail
        pairs.extend((mask, pool.concat(target, tail)) for mask, target in edges(pool, node.head))
        if not node.head.nullable:
            return _unite(pool, pairs)
        node = tail
    return _unite(pool, [*pairs, *edges(pool, node)])


def _alt_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, Alt)
    return _unite(pool, [edge for item in node.items for edge in edges(pool, item)])


def _both_edges(pool: Pool, node: Node) -> Edges:
    return tuple((mask, target) for mask, target in _raw_both_edges(pool, node) if _is_live(pool, target))


def _raw_both_edges(pool: Pool, node: Node) -> Edges:
    """Edges of a conjunction, those that lead nowhere included."""
    assert isinstance(node, Both)
    found = pool.raw_edges.get(node)
    if found is not None:
        return found
    parts: list[tuple[int, list[Node], list[Node]]] = [(ALL_BYTES, [], [])]
    for positive in node.positive:
        parts = [
            (mask & own, [*pos, target], neg)
            for mask, pos, neg in parts
            for own, target in edges(pool, positive)
            if mask & own
        ]
    for negative in node.negative:
        split: list[tuple[int, list[Node], list[Node]]] = []
        for mask, pos, neg in parts:
            for own, target in edges(pool, negative):
                if mask & own:
                    split.append((mask & own, pos, [*neg, target]))
                    mask &= ~own
            if mask:
                split.append((mask, pos, neg))
        parts = split
    found = pool.raw_edges[node] = _join((mask, pool.both(pos, neg)) for mask, pos, neg in parts)
    return found


def _multiple_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, Multiple)
    return _join(pool.after_multiple(node))


def _float_multiple_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, FloatMultiple)
    return _join(edges_of(pool, node))


def _rule_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, Rule)
    left = left_recursion(pool, node)
    if not left.members:
        return edges(pool, node.body)
    pairs: list[tuple[int, Node]] = []
    for rule, first, rest in left.begins:
        after = pool.concat(rest, corner(pool, rule, node))
        pairs.extend((mask, pool.concat(target, after)) for mask, target in edges(pool, first))
    return _unite(pool, pairs)


def _corner_edges(pool: Pool, node: Node) -> Edges:
    assert isinstance(node, Corner)
    pairs: list[tuple[int, Node]] = []
    for rule, rest in left_recursion(pool, node.base).above(node.base):
        after = corner(pool, rule, node.goal)
        pairs.extend((mask, pool.concat(target, after)) for mask, target in edges(pool, rest))
    return _unite(pool, pairs)


_EDGES: dict[type[Node], Callable[[Pool, Node], Edges]] = {
    Node: _constant_edges,
    Bytes: _bytes_edges,
    Strings: _strings_edges,
    Repeat: _repeat_edges,
    Concat: _concat_edges,
    Alt: _alt_edges,
    Both: _both_edges,
    Multiple: _multiple_edges,
    FloatMultiple: _float_multiple_edges,
    Rule: _rule_edges,
    Corner: _corner_edges,
}


def _join(pairs: Pairs) -> Edges:
    """Edges from disjoint (byte set, target) pairs: one edge per target."""
    masks: dict[Node, int] = {}
    for mask, target in pairs:
        masks[target] = masks.get(target, 0) | mask
    masks.pop(EMPTY, None)
    return tuple((mask, target) for target, mask in masks.items())


def _unite(pool: Pool, pairs: list[tuple[int, Node]]) -> Edges:
    """Edges from (byte set, target) pairs that may overlap: where they do, either target may follow."""
    by_mask: dict[int, list[Node]] = {}
    for mask, target in pairs:
        by_mask.setdefault(mask, []).append(target)
    total, size = 0, 0
    for mask in by_mask:
        total |= mask
        size += mask.bit_count()
    if total.bit_count() == size:
        return _join((mask, pool.alt(targets)) for mask, targets in by_mask.items())
    parts: list[tuple[int, list[Node]]] = []
    for mask, targets in by_mask.items():
        split: list[tuple[int, list[Node]]] = []
        for own, others in parts:
            if own & mask:
                split.append((own & mask, others + targets))
                if own & ~mask:
                    split.append((own & ~mask, others))
                mask &= ~own
            else:
                split.append((own, others))
        if mask:
            split.append((mask, targets))
        parts = split
    return _join((mask, pool.alt(targets)) for mask, targets in parts)


def _is_live(pool: Pool, node: Node) -> bool:
    """Whether `node` has any string. Best-first search by what is at least still needed."""
    if not isinstance(node, Both):
        return node is not EMPTY
    if node.live is not None:
        return node.live
    came_from: dict[Both, Both | None] = {node: None}
    heap: list[tuple[int, int, Both]] = [(node.min_len, 0, node)]
    while heap:
        current = heapq.heappop(heap)[2]
        for _, target in _raw_both_edges(pool, current):
            if not isinstance(target, Both) or target.live:
                step: Both | None = current
                while step is not None:
                    step.live = True
                    step = came_from[step]
                return True
            if target.live is None and target not in came_from:
                came_from[target] = current
                heapq.heappush(heap, (target.min_len, len(came_from), target))
        if len(came_from) > pool.limits.max_search:
            raise ConstraintTooComplex(
                "cannot decide whether a conjunction (pattern, length, look-ahead) is empty"
            )
    for seen in came_from:
        seen.live = False
    return False


def shortest(pool: Pool, node: Node) -> bytes:
    """A shortest string of `node` (not `EMPTY`): those of the parts of a concatenation, one after the other.

    Raises ConstraintTooComplex after `limits.max_search` steps for one part.
    """
    known: dict[Node, bytes] = {}
    path: list[bytes] = []
    while node is not EPSILON:
        head, node = (node.head, node.tail) if isinstance(node, Concat) else (node, EPSILON)
        if head not in known:
            known[head] = _search_shortest(pool, head)
        path.append(known[head])
    return b"".join(path)


def _search_shortest(pool: Pool, node: Node) -> bytes:
    """A* with `min_len`, which without conjunctions is exact."""
    order = count()
    came_from: dict[Node, tuple[Node, int] | None] = {node: None}
    cost = {node: 0}
    heap = [(node.min_len, 0, next(order), node)]
    while heap:
        _, minus_done, _, current = heapq.heappop(heap)
        done = -minus_done
        if done > cost[current]:
            continue
        if current.nullable:
            return _path(came_from, current)
        for mask, target in edges(pool, current):
            if cost.get(target, done + 2) > done + 1:
                cost[target] = done + 1
                came_from[target] = current, mask
                heapq.heappush(heap, (done + 1 + target.min_len, -done - 1, next(order), target))
        if len(cost) > pool.limits.max_search:
            raise ConstraintTooComplex("cannot find a shortest completion")
    raise AssertionError("a state that leads nowhere")


def _path(came_from: dict[Node, tuple[Node, int] | None], node: Node) -> bytes:
    path = bytearray()
    while (step := came_from[node]) is not None:
        node, mask = step
        path.append(_readable(mask))
    return bytes(reversed(path))


def _readable(mask: int) -> int:
    """One byte of the set: a letter or a digit if there is one."""
    for byte in b"a0 ":
        if mask >> byte & 1:
            return byte
    printable = mask >> 33 << 33 or mask
    return (printable & -printable).bit_length() - 1


def forced(pool: Pool, node: Node, limit: int) -> tuple[bytes, Node]:
    """The bytes, `limit` at most, that every string of `node` starts with, and what follows them."""
    path = bytearray()
    while len(path) < limit and not node.nullable:
        following = edges(pool, node)
        if len(following) != 1 or following[0][0] & (following[0][0] - 1):
            break
        path.append(following[0][0].bit_length() - 1)
        node = following[0][1]
    return bytes(path), node
