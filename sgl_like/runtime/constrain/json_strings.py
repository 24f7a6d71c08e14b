r"""JSON strings (RFC 8259, section 7) with length, pattern and format.

A plain string may use every escape that JSON has: ``\n``, ``\/``, ``\u00e9``, and pairs of surrogates; each counts as
one character. Under `pattern`, `format` or in the names of undeclared properties every character has one spelling
only, that of ``json.dumps(..., ensure_ascii=False)``: otherwise ``\u0061`` would be a way around them.
"""

from __future__ import annotations

import json
from typing import Any

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.codepoints import ALL, Ranges, intersect, utf8
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import Node, Pool
from sgl_like.runtime.constrain.json_keywords import Schema, at
from sgl_like.runtime.constrain.regex import Converter, search_to_expr

__all__ = ["FORMATS", "Strings", "encode_json"]

_RAW: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF))
_ESCAPED: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))

_YEAR = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

FORMATS = {
    "date": _DATE,  # RFC 3339 full-date, with the right number of days
    "time": _TIME,  # RFC 3339 full-time, without leap seconds, to the microsecond
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "email": rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+){{0,8}}@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}}",
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
}


def encode_json(value: Any, comma: str, colon: str, pointer: str, keyword: str) -> bytes:
    """`value` as JSON text in UTF-8.

    Raises:
        UnsupportedSchemaError: it has no such form (NaN, a lone surrogate, something that is not JSON).
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(comma, colon)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedSchemaError(
            keyword, pointer, f"has a value that JSON cannot express: {error}"
        ) from None


class Strings:
    """Builds the expressions of JSON strings in one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._quote = pool.literal(b'"')
        self._one_spelling = self.character(ALL)
        self._any_spelling = pool.alt((utf8(pool, _RAW), self._escapes()))

    def character(self, ranges: Ranges) -> Node:
        """One character of the set, as ``json.dumps(ensure_ascii=False)`` writes it."""
        escaped = (c for low, high in intersect(ranges, _ESCAPED) for c in range(low, high + 1))
        escapes = self._pool.strings(json.dumps(chr(c))[1:-1].encode() for c in escaped)
        return self._pool.alt((utf8(self._pool, intersect(ranges, _RAW)), escapes))

    def _escapes(self) -> Node:
        r"""``\`` and: a letter, u and a character of the basic plane, or u and a pair of surrogates."""
        convert = Converter(self._pool, lambda ranges: utf8(self._pool, ranges))
        return convert.full(
            r'\\(?:["\\/bfnrt]|u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
            r"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
        )

    def any_text(self) -> Node:
        """Any string."""
        return self._quoted(self._pool.repeat(self._any_spelling, 0, None))

    def from_schema(self, schema: Schema, pointer: str, one_spelling: bool = False) -> Node:
        """A string that `minLength`, `maxLength`, `pattern` and `format` of `schema` allow.

        Raises:
            UnsupportedSchemaError: the pattern has bad syntax, or needs what `regex_to_expr` cannot do.
            ConstraintTooComplex: a limit was reached.
        """
        conditions: list[Node] = []
        if "pattern" in schema:
            try:
                conditions.append(search_to_expr(self._pool, schema["pattern"], self.character))
            except ConstraintTooComplex:
                raise
            except ConstraintError as error:
                raise UnsupportedSchemaError(
                    "pattern", at(pointer, "pattern"), f"cannot be enforced: {error}"
                ) from None
        if schema.get("format") in FORMATS:
            conditions.append(Converter(self._pool, self.character).full(FORMATS[schema["format"]]))
        low = int(schema.get("minLength", 0))
        high = int(schema["maxLength"]) if "maxLength" in schema else None
        character = self._one_spelling if conditions or one_spelling else self._any_spelling
        if not conditions or low or high is not None:
            conditions.append(self._pool.repeat(character, low, high))
        return self._quoted(conjoin(self._pool, conditions))

    def undeclared_name(self, declared: list[bytes], allowed: Node | None) -> Node:
        """A property name that is not one of `declared` (JSON strings with quotes) and, if given, is in `allowed`."""
        name = allowed or self._quoted(self._pool.repeat(self._one_spelling, 0, None))
        return conjoin(self._pool, [name], [self._pool.strings(declared)])

    def _quoted(self, body: Node) -> Node:
        return self._pool.sequence(self._quote, body, self._quote)
