r"""JSON strings (RFC 8259, section 7) with length, pattern and format.

A plain string may use every escape that JSON has: ``\n``, ``\/``, ``\u00e9``, and pairs of surrogates; each counts as
one character. Under `pattern`, `format` or in the names of undeclared properties every character has one spelling
only, that of ``json.dumps(..., ensure_ascii=False)``: otherwise ``\u0061`` would be a way around them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.codepoints import ALL, Ranges, intersect, utf8
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import EPSILON, Alt, Both, Bytes, Concat, Node, Pool, Repeat
from sgl_like.runtime.constrain.expr import Strings as StringSet
from sgl_like.runtime.constrain.json_formats import FORMATS, Part
from sgl_like.runtime.constrain.lengths import sized
from sgl_like.runtime.constrain.pushdown.keywords import at
from sgl_like.runtime.constrain.regex import Converter, search_to_expr

__all__ = ["FORMATS", "Strings"]

_RAW: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF))
_ESCAPED: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))


class Strings:
    """Builds the expressions of JSON strings in one pool, each when it is first asked for; the pool keeps them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._quote = pool.literal(b'"')

    @property
    def _one_spelling(self) -> Node:
        return self.character(ALL)

    @property
    def _any_spelling(self) -> Node:
        pool = self._pool
        return pool.keep("any spelling", lambda: pool.alt((utf8(pool, _RAW), self._escapes())))

    def character(self, ranges: Ranges) -> Node:
        """One character of the set, as ``json.dumps(ensure_ascii=False)`` writes it."""

        def build() -> Node:
            escaped = (c for low, high in intersect(ranges, _ESCAPED) for c in range(low, high + 1))
            escapes = self._pool.strings(json.dumps(chr(c))[1:-1].encode() for c in escaped)
            return self._pool.alt((utf8(self._pool, intersect(ranges, _RAW)), escapes))

        return self._pool.keep(("character", ranges), build)

    def _escapes(self) -> Node:
        r"""``\`` and: a letter, u and a character of the basic plane, or u and a pair of surrogates."""
        pool = self._pool
        hexes = pool.byte_set(_hexes("0123456789abcdef"))
        two, three = pool.repeat(hexes, 2, 2), pool.repeat(hexes, 3, 3)
        second = pool.sequence(
            pool.literal(b"\\u"), pool.byte_set(_hexes("d")), pool.byte_set(_hexes("cdef")), two
        )
        after_d = pool.alt(
            (
                pool.concat(pool.byte_set(_hexes("01234567")), two),
                pool.sequence(pool.byte_set(_hexes("89ab")), two, second),
            )
        )
        units = pool.alt(
            (
                pool.concat(pool.byte_set(_hexes("0123456789abcef")), three),
                pool.concat(pool.byte_set(_hexes("d")), after_d),
            )
        )
        letters = pool.strings(bytes([byte]) for byte in b'"\\/bfnrt')
        return pool.concat(pool.literal(b"\\"), pool.alt((letters, pool.concat(pool.literal(b"u"), units))))

    def any_text(self) -> Node:
        """Any string."""
        return self._quoted(self._pool.repeat(self._any_spelling, 0, None))

    def from_schema(self, schema: Mapping[str, Any], pointer: str, one_spelling: bool = False) -> Node:
        """A string that `minLength`, `maxLength`, `pattern` and `format` of `schema` allow.

        Raises:
            UnsupportedSchemaError: the pattern has bad syntax, or needs what `regex_to_expr` cannot do.
            ConstraintTooComplex: a limit was reached.
        """
        low = int(schema.get("minLength", 0))
        high = int(schema["maxLength"]) if "maxLength" in schema else None
        conditions: list[Node] = []
        if "pattern" in schema:
            conditions.append(self._pattern(schema["pattern"], pointer))
        if schema.get("format") in FORMATS:
            conditions.append(self._format(schema["format"]))
        character = self._one_spelling if conditions or one_spelling else self._any_spelling
        if not self._pool.characters:
            self._pool.characters[:] = self._one_spelling, self._any_spelling
        if not conditions:
            return self._quoted(self._pool.repeat(character, low, high))
        if len(conditions) == 1 and (low or high is not None):
            return self._quoted(sized(self._pool, conditions[0], low, high))
        if low or high is not None:
            conditions.append(self._pool.repeat(character, low, high))
        return self._quoted(conjoin(self._pool, conditions))

    def _pattern(self, pattern: str, pointer: str) -> Node:
        pool = self._pool
        try:
            return pool.keep(("pattern", pattern), lambda: search_to_expr(pool, pattern, self.character))
        except ConstraintTooComplex:
            raise
        except ConstraintError as error:
            raise UnsupportedSchemaError(
                "pattern", at(pointer, "pattern"), f"cannot be enforced: {error}"
            ) from None

    def _format(self, name: str) -> Node:
        pool = self._pool
        return pool.keep(("format", name), lambda: _copy(pool, _format_body(name), {EPSILON: EPSILON}))

    def part(self, part: Part) -> Node:
        """The texts, without quotes, that one part of a format matches."""
        found = Converter(self._pool, self.character).full(part.pattern)
        if part.most is None:
            return found
        return conjoin(self._pool, [found, self._pool.repeat(self._one_spelling, 0, part.most)])

    def _quoted(self, body: Node) -> Node:
        return self._pool.sequence(self._quote, body, self._quote)


@lru_cache(maxsize=len(FORMATS))
def _format_body(name: str) -> Node:
    """The texts of a format, in a pool of its own: to parse and convert ``iri`` takes 15 ms, to copy it 1 ms."""
    pool = Pool(Limits())
    strings = Strings(pool)
    parts = {part: strings.part(part) for parts in FORMATS[name] for part in parts}
    return pool.alt(pool.sequence(*(parts[part] for part in way)) for way in FORMATS[name])


def _copy(pool: Pool, node: Node, known: dict[Node, Node]) -> Node:
    """The same expression in another pool, for the kinds that patterns are made of. `known`: what was copied."""
    found = known.get(node)
    if found is not None:
        return found
    if isinstance(node, Bytes):
        found = pool.byte_set(node.mask)
    elif isinstance(node, StringSet):
        found = pool.strings(node.strings)
    elif isinstance(node, Concat):
        found = pool.concat(_copy(pool, node.head, known), _copy(pool, node.tail, known))
    elif isinstance(node, Repeat):
        found = pool.repeat(_copy(pool, node.item, known), node.low, node.high)
    elif isinstance(node, Alt):
        found = pool.alt([_copy(pool, item, known) for item in node.items])
    else:
        assert isinstance(node, Both) and not node.negative
        found = conjoin(pool, [_copy(pool, item, known) for item in node.positive])
    known[node] = found
    return found


def _hexes(digits: str) -> int:
    """The byte set of some hexadecimal digits, in both cases."""
    return sum({1 << ord(digit) for digit in digits + digits.upper()})
