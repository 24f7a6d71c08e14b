"""JSON Schema documents as formulas: each sub-schema becomes a formula over leaves, on demand.

A leaf holds what one schema object asserts itself, without what it applies in place (`allOf`, `anyOf`, `$ref`, ...),
which becomes the formula around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from sgl_like.errors import UnsupportedSchemaError
from sgl_like.runtime.constrain.json_keywords import TYPES, at
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    Formula,
    Formulas,
    Leaf,
)

OBJECT = ("properties", "required", "additionalProperties", "patternProperties", "propertyNames",
          "minProperties", "maxProperties", "dependentRequired", "unevaluatedProperties")  # fmt: skip
ARRAY = ("items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains", "minItems",
         "maxItems", "uniqueItems", "unevaluatedItems")  # fmt: skip
STRING = ("minLength", "maxLength", "pattern", "format")
NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
OWN = frozenset((*OBJECT, *ARRAY, *STRING, *NUMBER, "type", "enum", "const", "dependencies"))
_NESTED = ("allOf", "anyOf", "oneOf", "prefixItems")
_NESTED_ONE = ("not", "if", "then", "else", "additionalProperties", "propertyNames", "contains", "items",
               "additionalItems", "unevaluatedProperties", "unevaluatedItems")  # fmt: skip
_NESTED_BY_NAME = (
    "properties",
    "patternProperties",
    "dependentSchemas",
    "$defs",
    "definitions",
    "dependencies",
)


class Own(Leaf):
    """What a schema object asserts itself, before anything is known about the value."""

    __slots__ = ("schema",)
    schema: Schema


class Schema:
    """One sub-schema of a document. Compare with ``is``."""

    def __init__(self, document: Document, raw: Mapping[str, Any], pointer: str, base: str) -> None:
        self.document = document
        self.raw = raw
        self.pointer = pointer
        self.base = base
        self._formula: Formula | None = None
        self._entered = False

    @property
    def types(self) -> frozenset[str]:
        """The types that ``type`` allows."""
        names = self.raw.get("type", TYPES)
        return frozenset([names] if isinstance(names, str) else names)

    def formula(self) -> Formula:
        """The formula that stands for this schema.

        Raises:
            UnsupportedSchemaError: something in it cannot be enforced.
        """
        if self._formula is None:
            if self._entered:
                raise UnsupportedSchemaError(
                    "$ref", self.pointer, "refers to itself without reading anything"
                )
            self._entered = True
            try:
                self._formula = self.document.formulas.all_of(self._parts())
            finally:
                self._entered = False
        return self._formula

    def sub(self, *steps: str | int) -> Formula:
        """The formula of a schema within this one."""
        raw: Any = self.raw
        for step in steps:
            raw = raw[step]
        return self.document.schema(raw, at(self.pointer, *steps), self.base)

    def _parts(self) -> Iterator[Formula]:
        raw, f, document = self.raw, self.document.formulas, self.document
        if "$ref" in raw:
            yield document.resolve(raw["$ref"], self)
            if document.draft7:
                return
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in raw:
                yield document.resolve_dynamic(raw[keyword], self, keyword)
        if not OWN.isdisjoint(raw):
            leaf = f.leaf((Own, id(self)), Own)
            assert isinstance(leaf, Own)
            leaf.schema = self
            yield leaf
        for i in range(len(raw.get("allOf", ()))):
            yield self.sub("allOf", i)
        if "anyOf" in raw:
            yield f.any_of([self.sub("anyOf", i) for i in range(len(raw["anyOf"]))])
        if "oneOf" in raw:
            yield f.exactly_one([self.sub("oneOf", i) for i in range(len(raw["oneOf"]))])
        if "not" in raw:
            yield f.negate(self.sub("not"))
        if "if" in raw and ("then" in raw or "else" in raw):
            condition = self.sub("if")
            then = self.sub("then") if "then" in raw else TRUE
            other = self.sub("else") if "else" in raw else TRUE
            yield f.any_of([f.all_of([condition, then]), f.all_of([f.negate(condition), other])])
        for name, keyword in self._dependent_schemas():
            present = document.keep(
                {"type": "object", "required": [name]},
                at(self.pointer, keyword, name) + "#",
                self.base,
            )
            yield f.any_of([f.negate(present), self.sub(keyword, name)])

    def _dependent_schemas(self) -> Iterator[tuple[str, str]]:
        for name in self.raw.get("dependentSchemas", ()):
            yield name, "dependentSchemas"
        for name, value in self.raw.get("dependencies", {}).items():
            if not isinstance(value, list):
                yield name, "dependencies"

    def dependent_required(self) -> dict[str, list[str]]:
        """Property names that others require."""
        out = dict(self.raw.get("dependentRequired", {}))
        out.update({k: v for k, v in self.raw.get("dependencies", {}).items() if isinstance(v, list)})
        return out


class Document:
    """A schema document: its sub-schemas and references."""

    def __init__(self, root: Any, formulas: Formulas) -> None:
        self.root = root
        self.formulas = formulas
        self.draft7 = isinstance(root, Mapping) and "draft-0" in str(root.get("$schema", ""))
        self._schemas: dict[tuple[int, str], Schema] = {}
        self._places: dict[str, tuple[Any, str, str]] = {}  # URI with fragment -> (raw, pointer, base)
        self._dynamic: dict[str, list[str]] = {}
        self._bases: dict[int, str] = {}
        self._made: dict[str, Mapping[str, Any]] = {}
        self._index(root, "", "")

    def schema(self, raw: Any, pointer: str, base: str) -> Formula:
        """The formula of a schema found at `pointer`."""
        if isinstance(raw, bool):
            return TRUE if raw else FALSE
        if not isinstance(raw, Mapping):
            raise UnsupportedSchemaError(
                pointer.rpartition("/")[2],
                pointer,
                "must be a schema: an object or a boolean",
            )
        key = (id(raw), pointer)
        found = self._schemas.get(key)
        if found is None:
            found = self._schemas[key] = Schema(self, raw, pointer, self._bases.get(id(raw), base))
        return found.formula()

    def keep(self, raw: Mapping[str, Any], pointer: str, base: str) -> Formula:
        """The formula of a schema made here; it is kept as long as the document."""
        made = self._made.setdefault(pointer, raw)
        return self.schema(made, pointer, base)

    def resolve(self, reference: str, schema: Schema) -> Formula:
        """The formula that a ``$ref`` means."""
        raw, pointer, base = self._find(reference, schema, "$ref")
        return self.schema(raw, pointer, base)

    def resolve_dynamic(self, reference: str, schema: Schema, keyword: str) -> Formula:
        """The formula of a ``$dynamicRef`` whose anchor stands once in the document, where it is a ``$ref``."""
        name = reference.rpartition("#")[2]
        if len(self._dynamic.get(name, ())) > 1:
            raise UnsupportedSchemaError(
                keyword,
                at(schema.pointer, keyword),
                "with several dynamic anchors of that name",
            )
        raw, pointer, base = self._find(reference, schema, keyword)
        return self.schema(raw, pointer, base)

    def _find(self, reference: str, schema: Schema, keyword: str) -> tuple[Any, str, str]:
        uri = urljoin(schema.base, reference)
        place = self._places.get(uri) or self._places.get(uri.rstrip("#"))
        if place is not None:
            return place
        base, fragment = urldefrag(uri)
        start = self._places.get(base)
        if start is None or (fragment and not fragment.startswith("/")):
            raise UnsupportedSchemaError(
                keyword,
                at(schema.pointer, keyword),
                f"points to {reference!r}, which is not in the document",
            )
        raw, pointer, base = start
        for step in fragment.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                raw = raw[int(name)] if isinstance(raw, list) else raw[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise UnsupportedSchemaError(
                    keyword,
                    at(schema.pointer, keyword),
                    f"points to {reference!r}, which does not exist",
                ) from None
            pointer = at(pointer, name)
            if isinstance(raw, Mapping):
                base = self._bases.get(id(raw), base)
        return raw, pointer, base

    def _index(self, raw: Any, pointer: str, base: str) -> None:
        """Note identifiers and anchors of a schema and those within it."""
        if not isinstance(raw, Mapping):
            return
        identifier = raw.get("$id")
        if isinstance(identifier, str) and not (self.draft7 and "$ref" in raw):
            if identifier.startswith("#"):
                self._places[base + identifier] = (raw, pointer, base)
            else:
                base = urldefrag(urljoin(base, identifier))[0]
        self._bases[id(raw)] = base
        if pointer == "" or isinstance(identifier, str):
            self._places.setdefault(base, (raw, pointer, base))
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(raw.get(keyword), str):
                self._places[f"{base}#{raw[keyword]}"] = (raw, pointer, base)
        if isinstance(raw.get("$dynamicAnchor"), str):
            self._dynamic.setdefault(raw["$dynamicAnchor"], []).append(pointer)
        for keyword in _NESTED_ONE:
            self._index(raw.get(keyword), at(pointer, keyword), base)
        for keyword in (*_NESTED, "items"):
            if isinstance(raw.get(keyword), list):
                for i, each in enumerate(raw[keyword]):
                    self._index(each, at(pointer, keyword, i), base)
        for keyword in _NESTED_BY_NAME:
            if isinstance(raw.get(keyword), Mapping):
                for name, each in raw[keyword].items():
                    self._index(each, at(pointer, keyword, name), base)
