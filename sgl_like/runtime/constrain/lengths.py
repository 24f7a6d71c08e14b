"""Conjunctions of texts that need no product of automata: finite sets, and lengths in characters.

``"C*"`` says nothing beside a pattern over the characters ``C``; of two lengths the narrower counts; a finite set is
tried text by text; and a pattern like ``a[b-d]*`` takes a length in as ``a[b-d]{2,6}``. What is left is for
`derive.conjoin`, and costs a state for every pair of a pattern's state and a length.
"""

from __future__ import annotations

from collections.abc import Iterable

from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import (
    EMPTY,
    EPSILON,
    UNLIMITED,
    Alt,
    Concat,
    Node,
    Pool,
    Repeat,
    Strings,
)
from sgl_like.runtime.constrain.fragments import is_of

__all__ = ["meet", "sized"]

_MOST_BYTES = 4_096  # of texts that are tried one by one
_MOST_STEPS = 500
_MOST_WAYS = 16

Length = tuple[bool, bool, int, int, int]  # quote before, quote after, which character, least and most


def meet(pool: Pool, positive: Iterable[Node], negative: Iterable[Node] = ()) -> Node:
    """`derive.conjoin` of texts, of which all that is not of another of `Pool.characters` is of the first."""
    wanted, unwanted = list(dict.fromkeys(positive)), list(dict.fromkeys(negative))
    for node in wanted:
        texts = _finite(node)
        if texts is not None and sum(map(len, texts)) <= _MOST_BYTES:
            others = [other for other in wanted if other is not node]
            return pool.strings(
                text
                for text in texts
                if all(derive.matches(pool, other, text) for other in others)
                and not any(derive.matches(pool, other, text) for other in unwanted)
            )
    lengths = [found for node in wanted if (found := _length(pool, node)) is not None]
    if not lengths or any(each[:2] != lengths[0][:2] for each in lengths):
        return derive.conjoin(pool, wanted, unwanted)
    rest = [node for node in wanted if _length(pool, node) is None]
    before, after, which, low, high = lengths[0]
    for _, _, other, least, most in lengths[1:]:
        which, low, high = min(which, other), max(low, least), min(high, most)
    if any(is_of(pool, [node], pool.characters[0]) for node in rest):
        which = 0
    for node in list(unwanted):
        found = _length(pool, node)
        if found is None or found[:2] != (before, after) or found[2] < which:
            continue
        if found[3] <= low:
            low = max(low, found[4] + 1)
        elif found[4] >= high:
            high = min(high, found[3] - 1)
        else:
            continue
        unwanted.remove(node)
    if low > high or low >= UNLIMITED:
        return EMPTY
    if low or high < UNLIMITED or not rest or not is_of(pool, rest, pool.characters[which]):
        counted = pool.repeat(pool.characters[which], low, None if high >= UNLIMITED else high)
        quote = pool.literal(b'"')
        rest.append(pool.sequence(quote if before else EPSILON, counted, quote if after else EPSILON))
    return derive.conjoin(pool, rest, unwanted)


def sized(pool: Pool, node: Node, low: int, high: int | None) -> Node:
    """The texts of a pattern, which consist of the first of `Pool.characters`, that have `low` to `high` of them."""
    if isinstance(node, Alt) and len(node.items) <= _MOST_WAYS:
        return pool.alt([sized(pool, item, low, high) for item in node.items])
    most = UNLIMITED if high is None else high
    parts = _parts(pool, node)
    if parts is not None:
        shortest = sum(least for _, least, _ in parts)
        longest = min(sum(largest for _, _, largest in parts), UNLIMITED)
        if shortest > most or longest < low:
            return EMPTY
        if len(open_parts := [i for i, (_, least, largest) in enumerate(parts) if least < largest]) == 1:
            at = open_parts[0]
            narrowed = _narrowed(pool, parts[at][0], low - shortest, most - shortest)
            if narrowed is not None:
                return pool.sequence(*(narrowed if i == at else part for i, (part, _, _) in enumerate(parts)))
        low = 0 if low <= shortest else low
        high = None if longest <= most else high
        if not low and high is None:
            return node
    return derive.conjoin(pool, [node, pool.repeat(pool.characters[0], low, high)])


def _narrowed(pool: Pool, part: Node, more: int, most: int) -> Node | None:
    """A repetition with `more` to `most` characters above its least, if all of its items are equally long."""
    if not isinstance(part, Repeat):
        return None
    size = _measure(pool, part.item)
    if size is None or size[0] != size[1] or not size[0]:
        return None
    low = part.low + max(0, -(-more // size[0]))
    high = part.low + most // size[0]
    if part.high is not None:
        high = min(high, part.high)
    return pool.repeat(part.item, low, None if high >= UNLIMITED // 2 // size[0] else high)


def _parts(pool: Pool, node: Node) -> list[tuple[Node, int, int]] | None:
    """(part, least and most characters) of which a text is put together; None if that is not found out."""
    found: list[tuple[Node, int, int]] = []
    pending: list[Node] = []
    while node is not EPSILON:
        head, node = (node.head, node.tail) if isinstance(node, Concat) else (node, EPSILON)
        pending.append(head)
        part = pool.sequence(*pending)
        size = _measure(pool, part)
        if size is not None:
            found.append((part, *size))
            pending = []
    return None if pending else found


def _measure(pool: Pool, node: Node) -> tuple[int, int] | None:
    """Least and most characters of an expression; None if it is not known to be of whole ones."""
    found = pool.measures.get(node)
    if found is None:
        found = pool.measures[node] = _measured(pool, node) or ()
    return found or None


def _measured(pool: Pool, node: Node) -> tuple[int, int] | None:
    if node is pool.characters[0]:
        return 1, 1
    if isinstance(node, Repeat):
        item = _measure(pool, node.item)
        if item is None:
            return None
        most = UNLIMITED if node.high is None else min(item[1] * node.high, UNLIMITED)
        return item[0] * node.low, most
    if isinstance(node, Alt):
        sizes = [_measure(pool, item) for item in node.items]
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes):
            return min(size[0] for size in known), max(size[1] for size in known)
    if isinstance(node, Concat) and node.max_len >= UNLIMITED:
        parts = _parts(pool, node) if _measure(pool, node.head) is not None else None
        if parts is None:
            return None
        return sum(part[1] for part in parts), min(sum(part[2] for part in parts), UNLIMITED)
    return _explored(pool, node) if node.max_len < UNLIMITED else None


def _explored(pool: Pool, node: Node) -> tuple[int, int] | None:
    """`_measure`, byte by byte."""
    one = pool.characters[0]
    least, most = UNLIMITED, 0
    todo, seen = [(node, one, 0)], {(node, one, 0)}
    for state, place, count in todo:  # grows while it runs
        if state.nullable:
            if place is not one:
                return None
            least, most = min(least, count), max(most, count)
        if len(seen) > _MOST_STEPS:
            return None
        for mask, target in derive.edges(pool, state):
            for own, after in derive.edges(pool, place):
                if mask & own:
                    mask &= ~own
                    step = (target, one, count + 1) if after is EPSILON else (target, after, count)
                    if step not in seen:
                        seen.add(step)
                        todo.append(step)
            if mask:
                return None
    return least, most


def _finite(node: Node) -> tuple[bytes, ...] | None:
    """The texts of an expression that is plainly a finite set of them."""
    if isinstance(node, Strings):
        return node.strings
    if isinstance(node, Concat) and isinstance(node.head, Strings) and isinstance(node.tail, Strings):
        return tuple(head + tail for head in node.head.strings for tail in node.tail.strings)
    return None


def _length(pool: Pool, node: Node) -> Length | None:
    """What an expression is that says no more than a text's length."""
    parts: list[Node] = []
    while isinstance(node, Concat) and len(parts) < 3:
        parts.append(node.head)
        node = node.tail
    parts.append(node)
    quote = pool.literal(b'"')
    before, after = parts[0] is quote, len(parts) > 1 and parts[-1] is quote
    body = parts[before : len(parts) - after]
    if len(body) != 1 or not isinstance(body[0], Repeat) or body[0].item not in pool.characters:
        return None
    repeat = body[0]
    high = UNLIMITED if repeat.high is None else repeat.high
    return before, after, pool.characters.index(repeat.item), repeat.low, high
