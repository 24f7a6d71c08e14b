"""The kinds of expressions, and what every node knows of itself. They are made by an `expr.Pool` only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.float_multiples import FloatMultiples
    from sgl_like.runtime.constrain.recursion import LeftRecursion

__all__ = [
    "ALL_BYTES", "EMPTY", "EPSILON", "UNLIMITED", "Alt", "Both", "Bytes", "Concat", "Corner", "Divisor", "Edges",
    "FloatMultiple", "Multiple", "Node", "Repeat", "Rule", "Strings",
]  # fmt: skip

ALL_BYTES = (1 << 256) - 1
UNLIMITED = 1 << 62


class Node:
    """An expression. `nullable`: has the empty string. `min_len`: length of its shortest string in bytes (for
    `Both` and `Multiple`, a lower bound). `max_len`: no string of it is longer; `UNLIMITED` if that is not known.
    """

    __slots__ = ("__weakref__", "max_len", "min_len", "nullable", "serial")
    serial: int
    nullable: bool
    min_len: int
    max_len: int

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


@dataclass(frozen=True)
class Divisor:
    """What a decimal number has to be a multiple of, for `Multiple`.

    Args:
        modulus: the divisor times ``10 ** places``, an integer.
        places: digits after the point that count, only zeros may follow them. 0: integers, written without a point;
            else there has to be a point.
    """

    modulus: int
    places: int

    def missing(self, value: int, digits: int, zeros: int = 0) -> int:
        """The least integer t for which `value` followed by t and then by `zeros` zeros is a multiple. It fits into
        `digits` digits iff it is below ``10 ** digits``.
        """
        modulus: int = self.modulus // math.gcd(self.modulus, 10**zeros)
        shifted: int = value * 10**digits
        return -shifted % modulus

    def least_digits(self, value: int, left: int | None) -> int:
        """How many more characters a multiple takes at least; see `Multiple`."""
        for digits in range(left + 1) if left is not None else range(len(str(self.modulus)) + 1):
            zeros = left - digits if left is not None else max(0, self.places - digits)
            if self.missing(value, digits, zeros) < 10**digits:
                return digits + (left is None and self.places > 0)
        return UNLIMITED

    def is_live(self, value: int, left: int) -> bool:
        """Whether some `left` digits after `value` make a multiple."""
        size: int = 10**left
        return self.missing(value, left) < size


class Multiple(Node):
    """The rest of a decimal number that is a multiple of `divisor`.

    What came before is `value`, the remainder of its digits read as an integer: so a big divisor costs no more than
    the states that are visited. `left`: how many digits may follow that count; None before the point. Signs, leading
    zeros and how long the number is are for other expressions to say.
    """

    __slots__ = ("divisor", "left", "value")
    divisor: Divisor
    value: int
    left: int | None


class FloatMultiple(Node):
    """The rest of the text of one of a `family` of numbers.

    `value`: the digits that came, read as an integer, or -1. `scale`: None before the point; after it, how many
    decimals the family counts beyond those that came. `free`: how many of them need not be zero.
    """

    __slots__ = ("family", "free", "scale", "value")
    family: FloatMultiples
    value: int
    scale: int | None
    free: int


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
    node.serial, node.nullable, node.min_len, node.max_len = serial, nullable, min_len, 0
    return node


_DIGITS = 0x3FF << 0x30
EMPTY = _constant(0, False, UNLIMITED)
EPSILON = _constant(1, True, 0)


Edges = tuple[
    tuple[int, Node], ...
]  # (bytes, derivative by each of them); byte sets are disjoint, none is EMPTY


def has_multiple(positives: tuple[Node, ...]) -> bool:
    """Whether these are known to have a string in common: enough free digits (or more: zeros) for a `Multiple`."""
    if len(positives) != 2 or not any(isinstance(node, Multiple) for node in positives):
        return False
    digits, multiple = sorted(positives, key=lambda node: isinstance(node, Multiple))
    if not isinstance(digits, Repeat) or not isinstance(digits.item, Bytes) or digits.item.mask != _DIGITS:
        return False
    assert isinstance(multiple, Multiple)
    has_point = multiple.left is not None or not multiple.divisor.places
    return has_point and multiple.min_len <= digits.max_len
