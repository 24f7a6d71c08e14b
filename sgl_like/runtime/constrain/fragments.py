"""Expressions cut so that many of them share a mask: counts that no token can tell apart, and fragments."""

from __future__ import annotations

from collections.abc import Iterable

from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import (
    EPSILON,
    UNLIMITED,
    Alt,
    Both,
    Bytes,
    Concat,
    Node,
    Pool,
    Repeat,
    Rule,
    Strings,
)
from sgl_like.runtime.constrain.recursion import left_recursion

__all__ = ["alternatives", "clip", "is_of", "remaining", "split"]


def clip(pool: Pool, node: Node, length: int) -> Node:
    """An expression with the same viable prefixes of up to `length` bytes, and the same for many counts.

    ``x{0,9000}`` and ``x{0,8999}`` cannot be told apart by one token: both clip to ``x*``, so that they share one
    mask. Exact because every repetition takes at least `min_len` bytes. In a conjunction ``x{0,n}`` is dropped if
    ``x`` is one of `Pool.characters`, of which all else is known to consist, and whatever a token leaves to be read of
    the rest is known to fit.
    """
    return _clip(pool, node, length, {})


def _clip(pool: Pool, node: Node, length: int, known: dict[Node, Node]) -> Node:
    """`clip`, which meets the parts of an ambiguous grammar's expression again and again.

    One frame for each level: the numbers up to 1e308 nest some 600 deep, and Python allows 1,000.
    """
    found = known.get(node)
    if found is not None:
        return found
    pool.check_clock()
    if isinstance(node, Both):
        found = _clip_both(pool, node, length)
    elif isinstance(node, Repeat):
        found = _clip_repeat(pool, node, length)
    elif isinstance(node, Alt):
        items: list[Node] = []
        for item in node.items:
            items.append(_clip(pool, item, length, known))  # a comprehension would be a frame
        found = pool.alt(items)
    else:
        heads: list[Node] = []
        tail, used, changed = node, 0, False
        while isinstance(tail, Concat) and used <= length:
            heads.append(_clip(pool, tail.head, length, known))
            changed |= heads[-1] is not tail.head
            used += tail.head.min_len
            tail = tail.tail
        if isinstance(tail, Repeat | Alt | Both) and used <= length:
            last = _clip(pool, tail, length, known)
            changed |= last is not tail
            tail = last
        found = pool.sequence(*heads, tail) if changed else node
    known[node] = found
    return found


def _clip_repeat(pool: Pool, node: Repeat, length: int) -> Node:
    if node.item.nullable:
        return node
    most = -(-length // node.item.min_len)  # of them begin in a token
    if node.high is not None and node.high < most:
        return node
    return pool.repeat(node.item, min(node.low, most), None)


def alternatives(pool: Pool, node: Node, most: int) -> list[Node]:
    """Expressions that `node` is the alternation of; `node` itself if there would be more than `most`."""
    head, tail = (node.head, node.tail) if isinstance(node, Concat) else (node, EPSILON)
    if isinstance(head, Rule) and not left_recursion(pool, head).members:
        return alternatives(pool, pool.concat(head.body, tail), most)
    if isinstance(head, Alt) and len(head.items) <= most:
        return [pool.concat(item, tail) for item in head.items]
    return [node]


def split(pool: Pool, node: Node) -> tuple[Node, Node]:
    """Cut a concatenation after the first literal that comes after something else: (head, tail), tail may be empty.

    What is read inside a JSON string up to its quote is the same wherever the string stands.
    """
    heads: list[Node] = []
    tail, seen = node, False
    while isinstance(tail, Concat):
        heads.append(tail.head)
        is_literal = isinstance(tail.head, Strings) and not tail.head.nullable
        tail = tail.tail
        if seen and is_literal:
            return pool.sequence(*heads), tail
        seen = seen or not is_literal
    return node, EPSILON


def _clip_both(pool: Pool, node: Both, length: int) -> Node:
    kept = list(node.positive)
    for each in node.positive:
        body = each.head if isinstance(each, Concat) and _is_quote(each.tail) else each
        if not isinstance(body, Repeat) or body.item not in pool.characters or len(kept) == 1:
            continue
        others = [other for other in kept if other is not each]
        if body.low or not is_of(pool, others, body.item):
            continue
        if (
            body.high is not None
        ):  # a token takes `length` characters at most, and then there is room for the rest
            rest = remaining(pool, others[0]) if len(others) == 1 and not node.negative else UNLIMITED
            if length + rest > body.high:
                continue
        kept = others
    if len(kept) == len(node.positive):
        return node
    left = derive.conjoin(pool, kept, node.negative)
    return left if isinstance(left, Both) else clip(pool, left, length)


def _is_quote(node: Node) -> bool:
    """Whether it is what ends a JSON string, and not the rest of a pattern."""
    return isinstance(node, Strings) and tuple(node.strings) == (b'"',)


def is_of(pool: Pool, texts: Iterable[Node], character: Node) -> bool:
    """Whether texts, beside others of characters, are known to consist of this one of `Pool.characters`."""
    wider = pool.characters[pool.characters.index(character) + 1 :]
    return not any(_mentions(pool, each, item) for each in texts for item in wider)


def remaining(pool: Pool, node: Node) -> int:
    """What is left of `node` wherever one stops reading has an end within so many bytes; `UNLIMITED`: not known."""
    found = pool.remaining.get(node)
    if found is None:
        if isinstance(node, Strings | Bytes) or node is EPSILON:
            found = node.max_len
        elif isinstance(node, Concat):
            found = max(remaining(pool, node.head) + node.tail.min_len, remaining(pool, node.tail))
        elif isinstance(node, Alt):
            found = max(remaining(pool, item) for item in node.items)
        elif isinstance(node, Repeat):
            found = remaining(pool, node.item) + max(node.low - 1, 0) * node.item.min_len
        else:
            found = UNLIMITED
        found = pool.remaining[node] = min(found, UNLIMITED)
    return found


def _mentions(pool: Pool, node: Node, wanted: Node) -> bool:
    """Whether an expression has another within it, as far as can be told; else True."""
    key = (node, wanted)
    found = pool.mentions.get(key)
    if found is None:
        if node is wanted:
            found = True
        elif isinstance(node, Repeat):
            found = _mentions(pool, node.item, wanted)
        elif isinstance(node, Concat):
            found = _mentions(pool, node.head, wanted) or _mentions(pool, node.tail, wanted)
        elif isinstance(node, Alt | Both):
            parts = node.items if isinstance(node, Alt) else (*node.positive, *node.negative)
            found = any(_mentions(pool, part, wanted) for part in parts)
        else:
            found = not isinstance(node, Strings | Bytes) and node is not EPSILON
        pool.mentions[key] = found
    return found
