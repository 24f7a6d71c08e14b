"""Strings, numbers and literals: formulas over them are byte expressions, so conjunctions are exact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sgl_like.errors import UnsupportedSchemaError
from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool
from sgl_like.runtime.constrain.json_numbers import Numbers
from sgl_like.runtime.constrain.json_strings import Strings
from sgl_like.runtime.constrain.lengths import meet
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    And,
    Formula,
    Not,
    Or,
)
from sgl_like.runtime.constrain.pushdown.keywords import at
from sgl_like.runtime.constrain.pushdown.schema import NUMBER, STRING, Own, Schema

KINDS = {
    **dict.fromkeys(b'"', "string"), **dict.fromkeys(b"-0123456789", "number"), **dict.fromkeys(b"tfn", "literal"),
}  # fmt: skip
_TYPES = {
    "string": frozenset({"string"}),
    "number": frozenset({"number", "integer"}),
    "literal": frozenset({"boolean", "null"}),
}
_ASSERTIONS = {"string": frozenset(STRING), "number": frozenset(NUMBER), "literal": frozenset[str]()}
_CONJOIN = {"string": meet, "number": derive.conjoin, "literal": derive.conjoin}
LITERALS = {"boolean": (b"true", b"false"), "null": (b"null",)}


class Library:
    """Expressions of strings, numbers and literals that all schemas have in common.

    Args:
        pool: where expressions are made.

    Attributes:
        any: all texts of a kind.
        plain: all that are written in one way only, beside which others can be excluded.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.strings = Strings(pool)
        self.numbers = Numbers(pool)
        self.any = {
            "string": self.strings.any_text(),
            "number": self.numbers.number({}),
            "literal": pool.strings((b"true", b"false", b"null")),
        }
        self.plain = {
            **self.any,
            "string": self.strings.from_schema({}, "", one_spelling=True),
            "number": self.numbers.decimal(),
        }
        self.simple: dict[tuple[str, frozenset[str], bool], Node] = {}


class Scalars:
    """Byte expressions of the formulas of one schema.

    Args:
        library: what they are made of.
    """

    def __init__(self, library: Library) -> None:
        self.pool = library.pool
        self.strings, self._numbers = library.strings, library.numbers
        self.any, self.plain = library.any, library.plain
        self._simple = library.simple
        self._memo: dict[tuple[Formula, str], Node] = {}

    def forget(self) -> None:
        """Drop what can be worked out again."""
        self._memo.clear()

    def of(self, formula: Formula, kind: str, plain: bool = False) -> Node:
        """The texts of one kind that a formula allows; `plain`: strings in one spelling only."""
        if formula is TRUE and not plain:
            return self.any[kind]
        return self._of(formula, kind)

    def _of(self, formula: Formula, kind: str) -> Node:
        if formula is TRUE:
            return self.plain[kind]
        if formula is FALSE:
            return EMPTY
        found = self._memo.get((formula, kind))
        if found is None:
            conjoin = _CONJOIN[kind]
            if isinstance(formula, And):
                positive = [self._of(p, kind) for p in formula.parts if not isinstance(p, Not)]
                negative = [self._of(p.part, kind) for p in formula.parts if isinstance(p, Not)]
                found = conjoin(self.pool, [*positive, self.plain[kind]] if negative else positive, negative)
            elif isinstance(formula, Or):
                found = self.pool.alt([self._of(p, kind) for p in formula.parts])
            elif isinstance(formula, Not):
                found = conjoin(self.pool, [self.plain[kind]], [self._of(formula.part, kind)])
            else:
                assert isinstance(formula, Own)
                found = self._own(formula.schema, kind)
            self._memo[formula, kind] = found
        return found

    def _own(self, schema: Schema, kind: str) -> Node:
        types = schema.types & _TYPES[kind]
        if not types:
            return EMPTY
        node = self._typed(schema, kind, types)
        raw = schema.raw
        is_any = kind == "string" and _ASSERTIONS[kind].isdisjoint(raw)
        for keyword, values in (
            ("enum", raw.get("enum")),
            ("const", [raw["const"]] if "const" in raw else None),
        ):
            if values is not None and node is not EMPTY:
                texts = {text for value in values for text in scalar_texts(value, kind, schema, keyword)}
                allowed = self.pool.strings(texts)
                node, is_any = allowed if is_any else _CONJOIN[kind](self.pool, [node, allowed]), False
        return node

    def _typed(self, schema: Schema, kind: str, types: frozenset[str]) -> Node:
        raw = schema.raw
        if not _ASSERTIONS[kind].isdisjoint(raw):
            if kind == "string":
                return self.strings.from_schema(raw, schema.pointer, one_spelling=not _only_lengths(raw))
            return self._number(schema, raw, types)
        key = (kind, types, schema.dialect.decimals)
        found = self._simple.get(key)
        if found is None:
            if kind == "literal":
                found = self.pool.strings(text for name in types for text in LITERALS[name])
            elif kind == "string":
                found = self.strings.from_schema({}, "")
            else:
                found = self._number(schema, {}, types)
            self._simple[key] = found
        return found

    def _number(self, schema: Schema, raw: Mapping[str, Any], types: frozenset[str]) -> Node:
        if "number" not in types and not schema.dialect.decimals:
            return self._numbers.integer(raw, schema.pointer)
        return self._numbers.from_schema(raw, types, schema.pointer)


def _only_lengths(raw: Mapping[str, Any]) -> bool:
    return "pattern" not in raw and "format" not in raw and "enum" not in raw and "const" not in raw


def scalar_texts(value: Any, kind: str, schema: Schema, keyword: str) -> list[bytes]:
    """The spellings of a value, if it is of this kind."""
    if isinstance(value, bool) or value is None:
        return [json.dumps(value).encode()] if kind == "literal" else []
    if isinstance(value, str):
        if kind != "string":
            return []
        try:
            return [json.dumps(value, ensure_ascii=False).encode()]
        except UnicodeEncodeError as error:
            raise UnsupportedSchemaError(
                keyword,
                at(schema.pointer, keyword),
                f"has a string that is not valid Unicode: {error}",
            ) from None
    if isinstance(value, int | float) and kind == "number":
        texts = [json.dumps(value)]
        if value == int(value) and abs(value) < 10**15:
            texts += [str(int(value)), f"{int(value)}.0"]
        return [text.encode() for text in texts]
    return []
