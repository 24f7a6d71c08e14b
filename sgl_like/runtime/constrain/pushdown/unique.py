"""``uniqueItems``: what must not come again depends on the text of items, which frames do not see.

A reader of an array whose items are unique goes byte by byte and keeps the text of each open item. When one ends, the
array's frame is replaced by one that knows it. The walk over the vocabulary has no such reader: it stops at a `Gate`
before each item, and the tokens that go on there are tried one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sgl_like.runtime.constrain.pushdown import walk
from sgl_like.runtime.constrain.pushdown.arrays import Array, InItem, Unique, without
from sgl_like.runtime.constrain.pushdown.syntax import Members

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.pushdown.tables import Tables

_ENDS_NUMBERS = b",]} \t\r\n"


class Open(NamedTuple):
    """An item that is being read: how many stack nodes are below its array, the array's node, the text so far."""

    depth: int
    node: int
    text: bytes


def follow(
    tables: Tables, items: tuple[Open, ...], state: int, below: int, byte: int
) -> tuple[int, int, tuple[Open, ...]] | None:
    """The configuration and the open items after one byte, which led to `state` on `below`; None if it must not come.

    Args:
        tables: of the machine.
        items: open items before the byte, outermost first.
        state: on top after the byte, as far as frames know.
        below: the stack node below it.
        byte: it.
    """
    chain = nodes_of(tables, below)
    one = bytes([byte])
    kept: list[Open] = []
    ended: list[Open] = []
    for each in items:
        if each.depth < len(chain) and chain[each.depth] == each.node:
            kept.append(each._replace(text=each.text + one))
        else:
            ended.append(each)
    for each in reversed(ended):
        left = each.text[:1] in b"-0123456789" and byte in _ENDS_NUMBERS
        frame = tables.frame(int(tables.nodes[each.node, 0]))
        assert isinstance(frame, InItem) and frame.unique is not None
        unique = frame.unique.with_item((each.text if left else each.text + one).decode())
        if unique is None:
            return None
        if each.depth == len(chain) - 1:
            patched = _patched(tables, state, chain[-1], unique)
            if patched is None:
                return None
            state, below = patched
            chain[-1] = below
    for depth, node in enumerate(chain):
        frame = tables.frame(int(tables.nodes[node, 0]))
        if isinstance(frame, InItem) and frame.unique is not None and all(node != each.node for each in kept):
            kept.append(Open(depth, node, one))
    return state, below, tuple(sorted(kept))


def _patched(tables: Tables, state: int, node: int, unique: Unique) -> tuple[int, int] | None:
    """The configuration of an array between items that knows its last item."""
    array, members = tables.frame(int(tables.nodes[node, 0])), tables.frame(state)
    if not isinstance(array, Array) or not isinstance(members, Members):
        return state, node  # the array has ended
    frames = without(array, members, unique)
    if frames is None:
        return None
    low, top = (tables.state(frame).number for frame in frames)
    return top, tables.node(low, int(tables.nodes[node, 1]))


def nodes_of(tables: Tables, node: int) -> list[int]:
    """The stack nodes from the lowest to `node`."""
    chain = []
    while node != walk.BARRIER:
        chain.append(node)
        node = int(tables.nodes[node, 1])
    chain.reverse()
    return chain
