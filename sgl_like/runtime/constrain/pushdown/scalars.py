"""Strings, numbers and literals: formulas over them are byte expressions, so conjunctions are exact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sgl_like.errors import UnsupportedSchemaError
from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, EPSILON, Node, Pool
from sgl_like.runtime.constrain.json_keywords import at
from sgl_like.runtime.constrain.json_numbers import Numbers
from sgl_like.runtime.constrain.json_strings import Strings
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    And,
    Formula,
    Not,
    Or,
)
from sgl_like.runtime.constrain.pushdown.frame import Action, Frame, Go, Leave, Pop
from sgl_like.runtime.constrain.pushdown.schema import Own, Schema

KINDS = {
    **dict.fromkeys(b'"', "string"), **dict.fromkeys(b"-0123456789", "number"), **dict.fromkeys(b"tfn", "literal"),
}  # fmt: skip
LITERALS = {"boolean": (b"true", b"false"), "null": (b"null",)}


class Scalars:
    """Byte expressions of formulas.

    Args:
        pool: where expressions are made.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.strings = Strings(pool)
        self._numbers = Numbers(pool)
        self._memo: dict[tuple[Formula, str], Node] = {}
        self.any = {
            "string": self.strings.any_text(),
            "number": self._numbers.number({}),
            "literal": pool.strings((b"true", b"false", b"null")),
        }
        self.plain = {
            **self.any,
            "string": self.strings.from_schema({}, "", one_spelling=True),
        }

    def of(self, formula: Formula, kind: str) -> Node:
        """The texts of one kind that a formula allows."""
        if formula is TRUE:
            return self.any[kind]
        return self._of(formula, kind)

    def _of(self, formula: Formula, kind: str) -> Node:
        if formula is TRUE:
            return self.plain[kind]
        if formula is FALSE:
            return EMPTY
        found = self._memo.get((formula, kind))
        if found is None:
            if isinstance(formula, And):
                positive = [self._of(p, kind) for p in formula.parts if not isinstance(p, Not)]
                negative = [self._of(p.part, kind) for p in formula.parts if isinstance(p, Not)]
                found = derive.conjoin(self.pool, positive or [self.plain[kind]], negative)
            elif isinstance(formula, Or):
                found = self.pool.alt([self._of(p, kind) for p in formula.parts])
            elif isinstance(formula, Not):
                found = derive.conjoin(self.pool, [self.plain[kind]], [self._of(formula.part, kind)])
            else:
                assert isinstance(formula, Own)
                found = self._own(formula.schema, kind)
            self._memo[formula, kind] = found
        return found

    def _own(self, schema: Schema, kind: str) -> Node:
        node = self._typed(schema, kind)
        raw = schema.raw
        for keyword, values in (
            ("enum", raw.get("enum")),
            ("const", [raw["const"]] if "const" in raw else None),
        ):
            if values is not None and node is not EMPTY:
                texts = {text for value in values for text in scalar_texts(value, kind, schema, keyword)}
                node = derive.conjoin(self.pool, [node, self.pool.strings(texts)])
        return node

    def _typed(self, schema: Schema, kind: str) -> Node:
        types, raw = schema.types, schema.raw
        if kind == "literal":
            return self.pool.strings(t for name, texts in LITERALS.items() if name in types for t in texts)
        if kind == "string":
            if "string" not in types:
                return EMPTY
            return self.strings.from_schema(raw, schema.pointer, one_spelling=not _only_lengths(raw))
        if not types & {"number", "integer"}:
            return EMPTY
        if "multipleOf" in raw and Decimal(repr(raw["multipleOf"])) != 1:
            raise UnsupportedSchemaError("multipleOf", at(schema.pointer, "multipleOf"))
        if "number" in types and "multipleOf" not in raw:
            return self._numbers.number(raw)
        integer = self._numbers.integer(raw)
        zeros = self.pool.sequence(self.pool.literal(b"."), self.pool.repeat(self.pool.literal(b"0"), 1, 4))
        return self.pool.concat(integer, self.pool.optional(zeros))


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


class Scalar(Frame):
    """Inside a string, a number or a literal.

    Args:
        pool: of the expressions.
        node: what may still come.
        watch: expressions whose verdicts are the result.
    """

    __slots__ = ("_hash", "node", "pool", "watch")

    def __init__(self, pool: Pool, node: Node, watch: tuple[Node, ...]) -> None:
        self.pool = pool
        self.node = node
        self.watch = watch
        self._hash = hash((id(node), tuple(map(id, watch))))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scalar) and self.node is other.node and self.watch == other.watch

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Derivatives of all expressions side by side."""
        self.pool.start_work()
        mask, target = edge(self.pool, self.node, byte)
        if target is EMPTY:
            return mask, Leave(self._result(self.watch)) if self.node.nullable else None
        watch = []
        for each in self.watch:
            own, after = edge(self.pool, each, byte)
            mask &= own
            watch.append(after)
        if target is EPSILON:
            return mask, Pop(self._result(watch))
        return mask, Go(Scalar(self.pool, target, tuple(watch)))

    @staticmethod
    def _result(watch: tuple[Node, ...] | list[Node]) -> tuple[bool, ...]:
        return tuple(node.nullable for node in watch)

    @property
    def leaving(self) -> tuple[tuple[bool, ...]] | None:
        """A number may end with the output."""
        return (self._result(self.watch),) if self.node.nullable else None

    def core(self, longest: int) -> Frame:
        """A frame with the same mask; see `derive.clip`."""
        if self.watch:
            return self
        clipped = derive.clip(self.pool, self.node, longest)
        return self if clipped is self.node else Scalar(self.pool, clipped, ())


def edge(pool: Pool, node: Node, byte: int) -> tuple[int, Node]:
    """The set of bytes around `byte` and the derivative by it."""
    if node is EMPTY:
        return ALL_BYTES, EMPTY
    rest = ALL_BYTES
    for mask, target in derive.edges(pool, node):
        if mask >> byte & 1:
            return mask, target
        rest &= ~mask
    return rest, EMPTY
