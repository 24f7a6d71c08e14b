"""Which keywords a JSON Schema may have here, and what their values must look like.

Keywords that only describe (annotations) are ignored, as the specification says; `format` with an unknown name is
one of them. Everything else that is not enforced is an error that names the keyword and its JSON pointer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sgl_like.errors import UnsupportedSchemaError

__all__ = ["ANNOTATIONS", "APPLIES_TO", "TYPES", "at", "check_keywords", "own_types"]

Schema = Mapping[str, Any]

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

_DESCRIBING = """
    title description default examples example deprecated readOnly writeOnly discriminator $schema $id $comment
    $defs definitions contentMediaType contentEncoding contentSchema
"""
ANNOTATIONS = frozenset(_DESCRIBING.split())

_OBJECT = """
    properties required additionalProperties patternProperties propertyNames minProperties maxProperties
"""
APPLIES_TO = {
    "object": tuple(_OBJECT.split()),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


def at(pointer: str, *steps: str | int) -> str:
    """`pointer` and some steps more, escaped (RFC 6901)."""
    return pointer + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_schema(value: Any) -> bool:
    return isinstance(value, bool | Mapping)


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _is_properties(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_schema(v) for k, v in value.items())


_COUNT = (_is_count, "must be a non-negative integer")
_NUMBER = (_is_number, "must be a finite number")
_SCHEMA = (_is_schema, "must be a schema: an object or a boolean")
_SCHEMAS = (_is_schemas, "must be a non-empty array of schemas")
_TEXT = (_is_text, "must be a string")

_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, f"must be one of {', '.join(TYPES)}, or a non-empty array of them"),
    "enum": (lambda v: isinstance(v, list) and bool(v), "must be a non-empty array"),
    "const": (lambda v: True, ""),
    "properties": (_is_properties, "must be an object of schemas"),
    "required": (lambda v: isinstance(v, list) and all(map(_is_text, v)), "must be an array of strings"),
    "additionalProperties": _SCHEMA,
    "propertyNames": _SCHEMA,
    "patternProperties": (_is_properties, "must be an object of schemas"),
    "minProperties": _COUNT,
    "maxProperties": _COUNT,
    "items": (lambda v: _is_schema(v), "must be a schema (write a tuple as prefixItems)"),
    "prefixItems": _SCHEMAS,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "uniqueItems": (lambda v: v is False, "is not supported (only false is)"),
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "pattern": _TEXT,
    "format": _TEXT,
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _NUMBER,
    "exclusiveMaximum": _NUMBER,
    "anyOf": _SCHEMAS,
    "oneOf": _SCHEMAS,
    "allOf": _SCHEMAS,
    "$ref": _TEXT,
}


def check_keywords(schema: Schema, pointer: str) -> frozenset[str]:
    """The assertions of `schema`: its keywords without annotations.

    Raises:
        UnsupportedSchemaError: a keyword is unknown or not supported, or has a value that it must not have.
    """
    assertions = []
    for keyword, value in schema.items():
        if keyword in ANNOTATIONS or keyword.startswith("x-"):
            continue
        if keyword not in _VALUES:
            raise UnsupportedSchemaError(keyword, at(pointer, keyword))
        is_valid, reason = _VALUES[keyword]
        if not is_valid(value):
            raise UnsupportedSchemaError(keyword, at(pointer, keyword), reason)
        assertions.append(keyword)
    return frozenset(assertions)


def own_types(schema: Schema) -> frozenset[str]:
    """The types that ``type`` allows; all of them without it."""
    names = schema.get("type", TYPES)
    return frozenset([names] if isinstance(names, str) else names)
