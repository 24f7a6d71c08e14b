"""JSON Schema (the part that pydantic emits, and a little more) to byte expressions.

What is produced is always valid; it need not be all that is valid:

* no whitespace but the separators', one spelling of names and of strings under a pattern (see `json_strings`);
* an object with declared properties and without the keyword ``additionalProperties`` has the declared ones only;
* a value that nothing is said about (``{}``, ``true``) nests `ANY_DEPTH` levels of arrays and objects at most;
* integers are written without decimals and exponent; numbers as `json_numbers` says.

What cannot be enforced exactly is an `UnsupportedSchemaError`; nothing is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import unquote

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool
from sgl_like.runtime.constrain.json_containers import array_of, object_of
from sgl_like.runtime.constrain.json_disjoint import possible_types, target, why_not_disjoint
from sgl_like.runtime.constrain.json_keywords import APPLIES_TO, TYPES, Schema, at, check_keywords, own_types
from sgl_like.runtime.constrain.json_numbers import Numbers
from sgl_like.runtime.constrain.json_strings import Strings, encode_json

__all__ = ["ANY_DEPTH", "PropertyOrder", "SchemaConverter", "load_schema"]

ANY_DEPTH = 3

PropertyOrder = Literal["schema", "any"]

_COMBINERS = frozenset(("anyOf", "oneOf", "allOf", "$ref"))


def load_schema(schema: Any) -> Schema | bool:
    """A schema as JSON values.

    Args:
        schema: a mapping, a bool, JSON text, or anything with ``model_json_schema()`` (a pydantic model).

    Raises:
        ConstraintError: text that is not JSON (with its position), or a value that is not a schema.
    """
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    if isinstance(schema, str | bytes):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ConstraintError(f"the JSON schema is not JSON: {error}") from None
    if not isinstance(schema, Mapping | bool):
        raise ConstraintError(f"a JSON schema is an object or a boolean, not {type(schema).__name__}")
    return schema


class SchemaConverter:
    """Converts one schema document.

    Args:
        pool: where the expressions are made.
        root: the whole document, which ``$ref`` points into.
        property_order: ``"schema"``: declared properties in the order of the schema, optional ones may be left out;
            ``"any"``: in any order, each at most once.
        separators: what stands between members or items, and after a name: ``,`` and ``:``, each with at most one
            space after it.

    Raises:
        ConstraintError: another order or other separators.
    """

    def __init__(
        self,
        pool: Pool,
        root: Schema | bool,
        property_order: PropertyOrder = "schema",
        separators: tuple[str, str] = (",", ":"),
    ) -> None:
        if property_order not in ("schema", "any"):
            raise ConstraintError(f"property_order is 'schema' or 'any', not {property_order!r}")
        if tuple(separators) not in ((",", ":"), (", ", ": "), (",", ": "), (", ", ":")):
            raise ConstraintError(
                f"separators are ',' and ':', each with at most one space after it: {separators!r}"
            )
        self.pool = pool
        self.any_order = property_order == "any"
        self.comma, self.colon = separators
        self.strings = Strings(pool)
        self._numbers = Numbers(pool)
        self._root = root
        self._targets: dict[str, Node] = {}
        self._open: list[str] = []  # the references being followed
        self._depth = 0
        self._any: list[Node] = []

    def convert(self, schema: Schema | bool, pointer: str = "") -> Node:
        """The JSON texts that `schema`, found at `pointer`, allows.

        Raises:
            UnsupportedSchemaError: something cannot be enforced.
            ConstraintTooComplex: a limit was reached.
        """
        if isinstance(schema, bool):
            return self.any_value(ANY_DEPTH) if schema else EMPTY
        self._depth += 1
        if self._depth > self.pool.limits.max_depth:
            raise ConstraintTooComplex(
                f"the JSON schema is nested more than {self.pool.limits.max_depth} levels deep"
            )
        try:
            return self._convert(schema, check_keywords(schema, pointer), pointer)
        finally:
            self._depth -= 1

    def any_value(self, depth: int) -> Node:
        """Any JSON value with up to `depth` levels of arrays and objects."""
        pool = self.pool
        while len(self._any) <= depth:
            parts = [
                pool.strings((b"true", b"false", b"null")),
                self._numbers.number({}),
                self.strings.any_text(),
            ]
            if self._any:
                parts += [array_of(self, {}, "", self._any[-1]), object_of(self, {}, "", self._any[-1])]
            self._any.append(pool.alt(parts))
        return self._any[depth]

    def _convert(self, schema: Schema, keywords: frozenset[str], pointer: str) -> Node:
        for keyword in ("enum", "const"):
            if keyword in keywords:
                return self._finite(schema, keywords, pointer, keyword)
        combiner = next((keyword for keyword in schema if keyword in _COMBINERS), None)
        if combiner is not None:
            return self._combine(schema, keywords, pointer, combiner)
        return self._typed(schema, pointer)

    def _typed(self, schema: Schema, pointer: str) -> Node:
        types = own_types(schema)
        if types == frozenset(TYPES) and not any(k in schema for keys in APPLIES_TO.values() for k in keys):
            return self.any_value(ANY_DEPTH)
        parts: list[Node] = []
        for name in TYPES:
            if name in types and not (name == "integer" and "number" in types):
                parts.append(self._of_type(name, schema, pointer))
        return self.pool.alt(parts)

    def _of_type(self, name: str, schema: Schema, pointer: str) -> Node:
        if name == "object":
            return object_of(self, schema, pointer)
        if name == "array":
            return array_of(self, schema, pointer)
        if name == "string":
            return self.strings.from_schema(schema, pointer)
        if name == "integer":
            return self._numbers.integer(schema)
        if name == "number":
            return self._numbers.number(schema)
        return self.pool.strings((b"true", b"false") if name == "boolean" else (b"null",))

    def _finite(self, schema: Schema, keywords: frozenset[str], pointer: str, keyword: str) -> Node:
        """The values of `enum` and `const`, those with the right type."""
        self._no_others(keywords, {"enum", "const", "type"}, pointer, keyword)
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        texts = {
            self._text(value, pointer, keyword) for value in values if _has_type(value, own_types(schema))
        }
        if "enum" in schema and "const" in schema:
            texts &= {self._text(schema["const"], pointer, "const")}
        return self.pool.strings(texts)

    def _text(self, value: Any, pointer: str, keyword: str) -> bytes:
        return encode_json(value, self.comma, self.colon, at(pointer, keyword), keyword)

    def _combine(self, schema: Schema, keywords: frozenset[str], pointer: str, keyword: str) -> Node:
        self._no_others(keywords, {keyword, "type"}, pointer, keyword)
        if keyword == "$ref":
            branches = [(self.resolve(schema["$ref"], pointer), at(pointer, "$ref"))]
            nodes = [self._follow(schema["$ref"], pointer)]
        else:
            branches = [(branch, at(pointer, keyword, i)) for i, branch in enumerate(schema[keyword])]
            nodes = [self.convert(branch, where) for branch, where in branches]
        if keyword == "allOf" and len(branches) > 1:
            raise UnsupportedSchemaError(
                "allOf", at(pointer, "allOf"), "is supported with a single schema only"
            )
        if "type" in keywords:
            for branch, where in branches:
                if not possible_types(branch, self.resolve, where) <= _with_integers(own_types(schema)):
                    reason = f"cannot be conjoined with {keyword!r} beside it, which allows other types"
                    raise UnsupportedSchemaError("type", at(pointer, "type"), reason)
        if keyword == "oneOf":
            nodes = self._exclusive(schema, pointer, nodes)
        return self.pool.alt(nodes)

    def _exclusive(self, schema: Schema, pointer: str, nodes: list[Node]) -> list[Node]:
        """The branches of ``oneOf``, which must not overlap.

        pydantic does not call a tag required that has a default, but wants it all the same, and without it objects
        may fit several branches: where there is a ``discriminator``, the tag is made required.
        """
        branches = schema["oneOf"]
        discriminator = schema.get("discriminator")
        tag = discriminator.get("propertyName") if isinstance(discriminator, Mapping) else None
        targets = [target(branch, self.resolve, pointer) for branch in branches]
        tagged = [
            {**branch, "required": [*branch.get("required", []), tag]}
            for branch in targets
            if isinstance(branch, Mapping) and tag in branch.get("properties", {})
        ]
        is_tagged = len(tagged) == len(branches)
        problem = why_not_disjoint(tagged if is_tagged else branches, self.resolve, pointer)
        if problem:
            raise UnsupportedSchemaError("oneOf", at(pointer, "oneOf"), problem)
        if not is_tagged:
            return nodes
        return [self.convert(branch, at(pointer, "oneOf", i)) for i, branch in enumerate(tagged)]

    def _no_others(self, keywords: frozenset[str], allowed: set[str], pointer: str, keyword: str) -> None:
        others = sorted(keywords - allowed)
        if others:
            reason = f"cannot be conjoined with {keyword!r} beside it"
            raise UnsupportedSchemaError(others[0], at(pointer, others[0]), reason)

    def resolve(self, reference: str, pointer: str) -> Schema | bool:
        """The schema that ``$ref`` in the schema at `pointer` points to.

        Raises:
            UnsupportedSchemaError: it points nowhere, or out of the document.
        """
        if reference != "#" and not reference.startswith("#/"):
            reason = f"points to {reference!r}: only '#' and '#/...' within the document are supported"
            raise UnsupportedSchemaError("$ref", at(pointer, "$ref"), reason)
        found: Any = self._root
        for step in unquote(reference[1:]).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, Mapping) and step in found:
                found = found[step]
            else:
                raise UnsupportedSchemaError(
                    "$ref", at(pointer, "$ref"), f"points to {reference!r}, which is not there"
                )
        if not isinstance(found, Mapping | bool):
            raise UnsupportedSchemaError(
                "$ref", at(pointer, "$ref"), f"points to {reference!r}, which is no schema"
            )
        return found

    def _follow(self, reference: str, pointer: str) -> Node:
        if reference in self._open:
            reason = f"points to {reference!r}, which is recursive; recursion is not supported"
            raise UnsupportedSchemaError("$ref", at(pointer, "$ref"), reason)
        if reference not in self._targets:
            self._open.append(reference)
            try:
                self._targets[reference] = self.convert(
                    self.resolve(reference, pointer), unquote(reference[1:])
                )
            finally:
                self._open.pop()
        return self._targets[reference]


def _with_integers(types: frozenset[str]) -> frozenset[str]:
    return types | {"integer"} if "number" in types else types


def _has_type(value: Any, types: frozenset[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int | float):
        whole = isinstance(value, int) or value.is_integer()
        return "number" in types or (whole and "integer" in types)
    names: list[tuple[Any, str]] = [(str, "string"), (list | tuple, "array"), (Mapping, "object")]
    return next((name for kind, name in names if isinstance(value, kind)), "null") in types
