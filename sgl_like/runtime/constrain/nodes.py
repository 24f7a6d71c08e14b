"""The kinds of expressions, and what every node knows of itself. They are made by an `expr.Pool` only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.recursion import LeftRecursion

__all__ = [
    "ALL_BYTES", "EMPTY", "EPSILON", "Alt", "Both", "Bytes", "Concat", "Corner", "Edges", "MemberSpec", "Members",
    "Node", "Repeat", "Rule", "Strings", "bits",
]  # fmt: skip

ALL_BYTES = (1 << 256) - 1
_NEVER = 1 << 62


class Node:
    """An expression. `nullable`: has the empty string. `min_len`: length of its shortest string in bytes (for
    `Both`, a lower bound).
    """

    __slots__ = ("__weakref__", "min_len", "nullable", "serial")
    serial: int
    nullable: bool
    min_len: int

    @property
    def is_star(self) -> bool:
        """Whether any number of these in a row, or none, is known to be the same as one of them."""
        return False


class Bytes(Node):
    """One byte out of a set: bit b of `mask` set = byte b. Always at least two; one byte is a `Strings`."""

    __slots__ = ("mask",)
    mask: int


class Strings(Node):
    """A finite set of byte strings, sorted, that do not all begin alike. A single one is a literal."""

    __slots__ = ("strings",)
    strings: tuple[bytes, ...]


class Concat(Node):
    """`head` then `tail`; `head` is never a `Concat`."""

    __slots__ = ("head", "tail")
    head: Node
    tail: Node


class Alt(Node):
    """Any of `items`: at least two, none of them an `Alt`."""

    __slots__ = ("items",)
    items: tuple[Node, ...]


class Repeat(Node):
    """`item`, `low` to `high` times (None: without end)."""

    __slots__ = ("high", "item", "low")
    item: Node
    low: int
    high: int | None

    @property
    def is_star(self) -> bool:
        """See `Node.is_star`."""
        return self.low == 0 and self.high is None


class Both(Node):
    """In all of `positive` and in none of `negative`. `live`: known to be non-empty, known empty, or not known."""

    __slots__ = ("live", "negative", "positive")
    positive: tuple[Node, ...]
    negative: tuple[Node, ...]
    live: bool | None


@dataclass(frozen=True, eq=False)
class MemberSpec:
    """The members of one JSON object schema, for `Members`.

    Args:
        keys: encoded member names with the colon, e.g. ``b'"name":'``, in schema order.
        values: the value of each.
        required: bit i set = member i must be present.
        comma: what separates members.
        any_order: members come in any order; else in schema order.
        extra: an undeclared member (name, colon and value), or None. In schema order they come last.
    """

    keys: tuple[bytes, ...]
    values: tuple[Node, ...]
    required: int
    comma: bytes
    any_order: bool
    extra: Node | None


class Members(Node):
    """What may still come in an object: bit i of `remaining` set = member i may. `first`: nothing came yet.

    The node says nothing about how it was reached: objects with the same members to come share their states.
    """

    __slots__ = ("first", "remaining", "spec")
    spec: MemberSpec
    remaining: int
    first: bool


class Rule(Node):
    """A named expression that may contain itself. `body` is built when the automaton first gets to it.

    `left`: None until `recursion.left_recursion` looked at it.
    """

    __slots__ = ("_body", "_build", "left", "name")
    name: str
    left: LeftRecursion | None
    _body: Node | None
    _build: Callable[[], Node]

    @property
    def body(self) -> Node:
        """What the name stands for."""
        if self._body is None:
            self._body = self._build()
        return self._body


class Corner(Node):
    """What may follow a finished `base`, which a `goal` began with, up to the end of that `goal`; see `recursion`."""

    __slots__ = ("base", "goal")
    base: Rule
    goal: Rule

    @property
    def is_star(self) -> bool:
        """See `Node.is_star`."""
        return self.base is self.goal


def _constant(serial: int, nullable: bool, min_len: int) -> Node:
    node = Node()
    node.serial, node.nullable, node.min_len = serial, nullable, min_len
    return node


EMPTY = _constant(0, False, _NEVER)
EPSILON = _constant(1, True, 0)


def bits(mask: int) -> Iterator[int]:
    """The numbers of the set bits, in rising order."""
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


Edges = tuple[
    tuple[int, Node], ...
]  # (bytes, derivative by each of them); byte sets are disjoint, none is EMPTY
