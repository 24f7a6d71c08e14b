r"""Regular expressions in Python's syntax to byte expressions.

The parser is the one inside ``re`` (`re._parser`, the same in Python 3.11 to 3.14), so syntax, flags, classes and
error positions agree with ``re`` by construction; interegular's own parser has no anchors, no ``\u`` and ASCII-only
classes, and expands counted repetition.

The whole output has to match. Anchors and look-aheads are conditions on the rest of the output, so a pattern is
converted from its end to its start: ``convert(item, rest)`` is the expression of `item` and all that follows it.

    a(?=b)c   ->   a . ((b . anything) and c)         a$b   ->   a . ((nothing or newline) and b)
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.codepoints import (
    ALL,
    Ranges,
    complement,
    matching,
    normalize,
    other_cases,
    utf8,
)
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import EMPTY, EPSILON, Node, Pool

__all__ = ["Converter", "regex_to_expr", "search_to_expr"]

_parser: Any = importlib.import_module("re._parser")

# Whether an item stands at the very start of the output: always, never, or it depends on what came before.
_YES, _NO, _MAYBE = "yes", "no", "maybe"

_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_LINE_ENDS = normalize((c, c) for c in (0x0A, 0x0D, 0x2028, 0x2029))
_UNSUPPORTED = {
    "GROUPREF": "back-references",
    "GROUPREF_IGNORE": "back-references",
    "GROUPREF_EXISTS": "conditional groups",
    "ATOMIC_GROUP": "atomic groups",
    "POSSESSIVE_REPEAT": "possessive repetition",
}


def regex_to_expr(pool: Pool, pattern: str) -> Node:
    """The strings, in UTF-8, for which ``re.fullmatch(pattern, string)`` matches; `EMPTY` if there are none.

    Raises:
        ConstraintError: bad syntax (with its position), or a construct that is not regular or not supported:
            back-references, look-behind, word boundaries, conditional, atomic and possessive groups, and anchors or
            look-aheads in a place where it depends on the text what they apply to.
        ConstraintTooComplex: a limit of the pool was reached.
    """
    return Converter(pool, lambda ranges: utf8(pool, ranges)).full(pattern)


def search_to_expr(pool: Pool, pattern: str, encode: Callable[[Ranges], Node]) -> Node:
    r"""The strings in which JSON Schema's ``pattern`` is found somewhere (2020-12 validation, 6.3.3).

    Where ECMA-262, Python and Rust read a pattern differently, only what all of them accept is in it: ``\d`` and
    ``\w`` are ASCII, ``\D`` and ``\W`` leave out what is a digit or letter in Unicode, ``.`` is no line end,
    ``$`` is the end only.

    `encode` says how one character out of a set is written (in JSON: with escapes), each in one way only.

    Raises: see `regex_to_expr`.
    """
    return Converter(pool, encode, portable=True).search(pattern)


class Converter:
    """Converts patterns.

    Args:
        encode: the expression of one character out of a set.
        portable: read classes as described in `search_to_expr`, not exactly as Python does.
    """

    def __init__(self, pool: Pool, encode: Callable[[Ranges], Node], portable: bool = False) -> None:
        self._pool = pool
        self._encode = encode
        self._portable = portable
        self._any = pool.repeat(encode(ALL), 0, None)
        self._encoded: dict[Ranges, Node] = {}

    def full(self, pattern: str) -> Node:
        """The strings that `pattern` matches as a whole. Raises as `regex_to_expr` does."""
        items, flags = self._parse(pattern)
        return self._guard(pattern, lambda: self._sequence(items, EPSILON, _YES, flags, False))

    def search(self, pattern: str) -> Node:
        """The strings that have a match of `pattern` in them. Raises as `regex_to_expr` does."""
        items, flags = self._parse(pattern)

        def convert() -> Node:
            at_start = self._sequence(items, self._any, _YES, flags, False)
            later = self._sequence(items, self._any, _NO, flags, False)
            if at_start is later:
                return self._pool.concat(self._any, later)
            some = self._pool.repeat(self._char(ALL), 1, None)
            return self._pool.alt((at_start, self._pool.concat(some, later)))

        return self._guard(pattern, convert)

    def occurrences(self, pattern: str) -> tuple[Node, Node]:
        """What may follow from where a match begins, the match included: at the start of the text, and further in.
        Raises as `regex_to_expr` does.
        """
        items, flags = self._parse(pattern)
        at_start = self._guard(pattern, lambda: self._sequence(items, self._any, _YES, flags, False))
        later = self._guard(pattern, lambda: self._sequence(items, self._any, _NO, flags, False))
        return at_start, later

    def _parse(self, pattern: str) -> tuple[Any, int]:
        try:
            parsed = _parser.parse(pattern)
        except re.error as error:
            where = "" if error.pos is None else f" at position {error.pos}"
            raise ConstraintError(f"regex {_short(pattern)}: {error.msg}{where}") from None
        except RecursionError:
            raise ConstraintTooComplex(f"regex {_short(pattern)} is nested too deeply") from None
        except OverflowError as error:
            raise ConstraintError(f"regex {_short(pattern)}: {error}") from None
        return parsed, int(parsed.state.flags)

    def _guard(self, pattern: str, convert: Callable[[], Node]) -> Node:
        try:
            return convert()
        except RecursionError:
            raise ConstraintTooComplex(f"regex {_short(pattern)} is nested too deeply") from None
        except _Unsupported as error:
            raise ConstraintError(f"regex {_short(pattern)}: {error} cannot be enforced") from None

    def _sequence(self, items: Any, rest: Node, start: str, flags: int, wide: bool) -> Node:
        """`items` followed by `rest`. `start`: whether the first item is at the start of the output. `wide`: take the
        larger reading of classes (inside a negative look-ahead).
        """
        starts = []
        for op, value in items:
            starts.append(start)
            low, high = _parser.SubPattern(items.state, [(op, value)]).getwidth()  # least and most characters
            start = start if high == 0 else _NO if start == _NO or low > 0 else _MAYBE
        for (op, value), begin in zip(reversed(list(items)), reversed(starts), strict=True):
            rest = self._item(str(op), value, rest, begin, flags, wide)
        return rest

    def _item(self, op: str, value: Any, rest: Node, start: str, flags: int, wide: bool) -> Node:
        pool = self._pool
        if op in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return pool.concat(self._char(self._class(op, value, flags, wide)), rest)
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(value, rest, start, flags, wide)
        if op == "SUBPATTERN":
            _, added, removed, inner = value
            return self._sequence(inner, rest, start, (flags | added) & ~removed, wide)
        if op == "BRANCH":
            return pool.alt(self._sequence(branch, rest, start, flags, wide) for branch in value[1])
        if op == "AT":
            return self._anchor(str(value), rest, start, flags)
        if op in ("ASSERT", "ASSERT_NOT"):
            direction, inner = value
            if direction < 0:
                raise _Unsupported("look-behind")
            ahead = self._sequence(inner, self._any, start, flags, wide ^ (op == "ASSERT_NOT"))
            return conjoin(pool, [rest, ahead]) if op == "ASSERT" else conjoin(pool, [rest], [ahead])
        if op == "FAILURE":
            return EMPTY
        raise _Unsupported(_UNSUPPORTED.get(op, op))

    def _repeat(self, value: Any, rest: Node, start: str, flags: int, wide: bool) -> Node:
        low, high, inner = value
        most = None if high is _parser.MAXREPEAT else int(high)
        if not _looks_around(inner):
            return self._pool.concat(
                self._pool.repeat(self._sequence(inner, EPSILON, start, flags, wide), int(low), most), rest
            )
        if most != 1:
            raise _Unsupported("an anchor or look-ahead inside a repetition")
        once = self._sequence(inner, rest, start, flags, wide)
        return once if low else self._pool.alt((once, rest))

    def _anchor(self, code: str, rest: Node, start: str, flags: int) -> Node:
        """An anchor is a condition on what follows, or on whether anything came before."""
        if code in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            if start == _YES:
                return rest
            if start == _NO and not (code == "AT_BEGINNING" and flags & re.MULTILINE):
                return EMPTY
            raise _Unsupported("^ after something that may be empty (or, with (?m), after the start)")
        if code not in ("AT_END", "AT_END_STRING"):
            raise _Unsupported(r"a word boundary (\b or \B)")
        end = EPSILON
        if code == "AT_END" and flags & re.MULTILINE:
            end = self._pool.optional(self._pool.concat(self._char(((10, 10),)), self._any))
        elif code == "AT_END" and not self._portable:
            end = self._pool.optional(self._char(((10, 10),)))
        return conjoin(self._pool, [rest, end])

    def _char(self, ranges: Ranges) -> Node:
        node = self._encoded.get(ranges)
        if node is None:
            node = self._encoded[ranges] = self._encode(ranges)
        return node

    def _class(self, op: str, value: Any, flags: int, wide: bool) -> Ranges:
        """The set of characters that one item matches."""
        if op == "ANY":
            if flags & re.DOTALL:
                return ALL
            return complement(_LINE_ENDS if self._portable and not wide else ((10, 10),))
        members = value if op == "IN" else [("LITERAL", value)]
        negated = op == "NOT_LITERAL" or str(members[0][0]) == "NEGATE"
        members = [member for member in members if str(member[0]) != "NEGATE"]
        ranges: list[tuple[int, int]] = []
        for kind, item in members:
            own = self._member(str(kind), item, flags, wide ^ negated)
            ranges.extend(own)
            if flags & re.IGNORECASE and str(kind) != "CATEGORY":
                ranges.extend(other_cases(own, flags & re.ASCII))
        return complement(normalize(ranges)) if negated else normalize(ranges)

    def _member(self, kind: str, item: Any, flags: int, wide: bool) -> Ranges:
        if kind == "LITERAL":
            return ((item, item),)
        if kind == "RANGE":
            return ((item[0], item[1]),)
        source = _CATEGORIES[str(item)]
        ascii_only = bool(flags & re.ASCII)
        if self._portable:  # \d: ASCII is the smaller set; \D: all that is no digit in Unicode either
            ascii_only = source.islower() != wide
        return matching(source, int(re.ASCII) if ascii_only else 0)


class _Unsupported(Exception):
    """A construct that cannot be converted; the message names it."""


def _looks_around(items: Any) -> bool:
    """Whether anything in `items` depends on what is around it."""
    for op, value in items:
        name = str(op)
        if name in ("AT", "ASSERT", "ASSERT_NOT"):
            return True
        if name == "BRANCH" and any(map(_looks_around, value[1])):
            return True
        if name in ("SUBPATTERN", "MAX_REPEAT", "MIN_REPEAT") and _looks_around(value[-1]):
            return True
    return False


def _short(pattern: str) -> str:
    return repr(pattern) if len(pattern) <= 60 else repr(pattern[:57] + "...")
