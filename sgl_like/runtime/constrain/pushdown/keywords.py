"""The keywords of JSON Schema: what their values must look like, what they apply to, how exactly they are enforced.

Keywords that are not in the registry only describe (annotations) and are ignored, as the specification says.

    python -m sgl_like.runtime.constrain.pushdown.keywords      # the table of the documentation, in Markdown
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["ARRAY", "DEFINITIONS", "IN_PLACE", "KEYWORDS", "LATEST", "NUMBER", "OBJECT", "OWN", "STRING", "TYPES",
           "Dialect", "Keyword", "at", "dialect_of", "is_schema", "json_depth", "markdown", "within"]  # fmt: skip

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

# What a keyword holds: schemas of its own (one, or a list of them), schemas by name, a reference, or JSON values.
NOTHING, SCHEMAS, NAMED, REFERENCE, VALUES = range(5)


def at(pointer: str, *steps: str | int) -> str:
    """`pointer` and some steps more, escaped (RFC 6901)."""
    for step in steps:
        text = str(step)
        if "~" in text or "/" in text:
            text = text.replace("~", "~0").replace("/", "~1")
        pointer = f"{pointer}/{text}"
    return pointer


class Keyword(NamedTuple):
    """A keyword that asserts, applies schemas, or identifies them.

    Args:
        name: as in a schema.
        applies: the type of values that it says something about; "any", or "" for what does not assert.
        is_valid: whether the specification allows this value of it.
        rule: what the value must be, for an error.
        holds: where the schemas in it are.
        enforced: "exact", or what is left out.
    """

    name: str
    applies: str
    is_valid: Callable[[Any], bool]
    rule: str
    holds: int = NOTHING
    enforced: str = "exact"


def is_schema(value: Any) -> bool:
    """Whether a value can be a schema: an object or a boolean."""
    return type(value) is dict or isinstance(value, bool | Mapping)


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_schema, value))


def _is_items(value: Any) -> bool:
    return is_schema(value) or _is_schemas(value)


def _is_named(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    for name, each in value.items():  # a loop, because it is the hottest place of a check
        if not (type(each) is dict or is_schema(each)) or not isinstance(name, str):
            return False
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_texts_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_texts(v) for k, v in value.items())


def _is_dependencies(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and (is_schema(v) or _is_texts(v)) for k, v in value.items()
    )


def _is_count(value: Any) -> bool:
    if type(value) is int:
        return value >= 0
    return isinstance(value, float) and value.is_integer() and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_type(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(name, str) and name in TYPES for name in value)
    return isinstance(value, str) and value in TYPES


_SCHEMA = (is_schema, "must be a schema: an object or a boolean", SCHEMAS)
_LIST = (_is_schemas, "must be a non-empty array of schemas", SCHEMAS)
_NAMED = (_is_named, "must be an object of schemas", NAMED)
_COUNT = (_is_count, "must be a non-negative integer")
_NUMBER = (_is_number, "must be a finite number")
_TEXT = (_is_text, "must be a string")
_FLAG = (lambda value: isinstance(value, bool), "must be a boolean")
_BOUND = (lambda value: isinstance(value, bool) or _is_number(value), "must be a finite number")

_IN_DOCUMENT = "within the document; other documents and the metaschemas are refused"
_DYNAMIC = f"exact (the outermost anchor in the dynamic scope), {_IN_DOCUMENT}"

_DIGITS = "exact; numbers are written without exponent and with decimals only up to 15 digits"

KEYWORDS = {
    keyword.name: keyword
    for keyword in (
        Keyword("type", "any", _is_type, f"must be one of {', '.join(TYPES)}, or a non-empty array of them"),
        Keyword("enum", "any", lambda value: isinstance(value, list), "must be an array", VALUES),
        Keyword("const", "any", lambda value: True, "", VALUES),
        Keyword("allOf", "any", *_LIST),
        Keyword("anyOf", "any", *_LIST),
        Keyword("oneOf", "any", *_LIST),
        Keyword("not", "any", *_SCHEMA),
        Keyword("if", "any", *_SCHEMA),
        Keyword("then", "any", *_SCHEMA),
        Keyword("else", "any", *_SCHEMA),
        Keyword("$ref", "any", *_TEXT, REFERENCE, f"exact, {_IN_DOCUMENT}"),
        Keyword("$dynamicRef", "any", *_TEXT, REFERENCE, _DYNAMIC),
        Keyword("$recursiveRef", "any", lambda value: value == "#", "must be '#'", REFERENCE, _DYNAMIC),
        Keyword("properties", "object", *_NAMED),
        Keyword("patternProperties", "object", *_NAMED, "as `pattern`"),
        Keyword("additionalProperties", "object", *_SCHEMA),
        Keyword("propertyNames", "object", *_SCHEMA),
        Keyword("required", "object", _is_texts, "must be an array of strings"),
        Keyword("minProperties", "object", *_COUNT,
                enforced="exact, but for a name that is not in the schema and is written twice"),
        Keyword("maxProperties", "object", *_COUNT),
        Keyword("dependentRequired", "object", _is_texts_by_name, "must be an object of arrays of strings"),
        Keyword("dependentSchemas", "object", *_NAMED),
        Keyword("dependencies", "object", _is_dependencies,
                "must be an object of schemas and arrays of strings", NAMED),
        Keyword("unevaluatedProperties", "object", *_SCHEMA),
        Keyword("prefixItems", "array", *_LIST),
        Keyword("items", "array", _is_items, "must be a schema or a non-empty array of schemas", SCHEMAS),
        Keyword("additionalItems", "array", *_SCHEMA),
        Keyword("contains", "array", *_SCHEMA),
        Keyword("minContains", "array", *_COUNT),
        Keyword("maxContains", "array", *_COUNT),
        Keyword("minItems", "array", *_COUNT),
        Keyword("maxItems", "array", *_COUNT),
        Keyword("uniqueItems", "array", *_FLAG,
                enforced="exact; also held to where a combinator would let it be false"),
        Keyword("unevaluatedItems", "array", *_SCHEMA),
        Keyword("minLength", "string", *_COUNT),
        Keyword("maxLength", "string", *_COUNT),
        Keyword("pattern", "string", *_TEXT, NOTHING,
                "exact (searched for, as in ECMA-262) for what is regular; back-references and `\\p{...}` are refused. "
                "Characters are written in one way only, without needless escapes"),
        Keyword("format", "string", *_TEXT, NOTHING,
                "the formats below; other names are ignored, as the specification says"),
        Keyword("minimum", "number", *_NUMBER, enforced=_DIGITS),
        Keyword("maximum", "number", *_NUMBER, enforced=_DIGITS),
        Keyword("exclusiveMinimum", "number", *_BOUND, NOTHING,
                f"{_DIGITS}; also the boolean of draft 4"),
        Keyword("exclusiveMaximum", "number", *_BOUND, NOTHING,
                f"{_DIGITS}; also the boolean of draft 4"),
        Keyword("multipleOf", "number", lambda value: _is_number(value) and value > 0,
                "must be a number greater than 0", enforced=_DIGITS),
        Keyword("$id", "", *_TEXT),
        Keyword("$anchor", "", *_TEXT),
        Keyword("$dynamicAnchor", "", *_TEXT),
        Keyword("$recursiveAnchor", "", *_FLAG),
    )
}  # fmt: skip


def _named(kind: str) -> tuple[str, ...]:
    return tuple(keyword.name for keyword in KEYWORDS.values() if keyword.applies == kind)


# Applied to the value itself, not to a part of it.
_APPLIED = """allOf anyOf oneOf not if then else dependentSchemas dependencies
    $ref $dynamicRef $recursiveRef"""
IN_PLACE = frozenset(_APPLIED.split())
DEFINITIONS = ("$defs", "definitions")
OBJECT = tuple(name for name in _named("object") if name not in ("dependentSchemas", "dependencies"))
ARRAY, STRING, NUMBER = _named("array"), _named("string"), _named("number")
OWN = frozenset((*OBJECT, *ARRAY, *STRING, *NUMBER, "type", "enum", "const", "dependencies"))


@dataclass(frozen=True)
class Dialect:
    """A draft of the specification.

    Args:
        keywords: those that mean something; a name in `KEYWORDS` that is not here is ignored.
        ref_hides: whether ``$ref`` hides the keywords beside it (draft 7 and before).
        identifier: ``$id``, or ``id`` before draft 6.
        contains_evaluates: whether items that ``contains`` matches count as evaluated.
        decimals: whether ``1.0`` is an integer (draft 6 and after).
    """

    keywords: Mapping[str, Keyword]
    ref_hides: bool = False
    identifier: str = "$id"
    contains_evaluates: bool = True
    decimals: bool = True


def _without(names: str, *changed: Keyword) -> dict[str, Keyword]:
    kept = {name: keyword for name, keyword in KEYWORDS.items() if name not in names.split()}
    return kept | {keyword.name: keyword for keyword in changed}


_BOUNDS = [KEYWORDS[name]._replace(is_valid=_is_number) for name in ("exclusiveMinimum", "exclusiveMaximum")]
_SINCE_2020 = "prefixItems $dynamicRef $dynamicAnchor"
_SINCE_2019 = f"""{_SINCE_2020} $anchor $recursiveRef $recursiveAnchor dependentRequired dependentSchemas
    minContains maxContains unevaluatedProperties unevaluatedItems"""

# Without a `$schema` that is known, every keyword of every draft means something.
LATEST = Dialect(KEYWORDS)
_DIALECTS = {
    "2020-12": Dialect(
        _without(
            "$recursiveRef $recursiveAnchor",
            *_BOUNDS,
            KEYWORDS["items"]._replace(
                is_valid=is_schema, rule="must be a schema (an array of schemas is written as prefixItems)"
            ),
        )
    ),
    "2019-09": Dialect(_without(_SINCE_2020, *_BOUNDS), contains_evaluates=False),
    "draft-07": (_draft7 := Dialect(_without(_SINCE_2019, *_BOUNDS), ref_hides=True)),
    "draft-06": _draft7,
    "draft-04": (_draft4 := Dialect(_without(_SINCE_2019), ref_hides=True, identifier="id", decimals=False)),
    "draft-03": _draft4,
}


def dialect_of(raw: Mapping[str, Any], default: Dialect) -> Dialect:
    """What the ``$schema`` of a schema says; `default` without one. Unknown ones are taken for the latest."""
    name = raw.get("$schema")
    if not isinstance(name, str):
        return default
    if "json-schema.org/" in name:
        for part, dialect in _DIALECTS.items():
            if part in name:
                return dialect
    return LATEST


def within(value: Any, pointer: str, holds: int) -> list[tuple[Any, str]]:
    """The schemas that the value of a keyword holds, with their pointers."""
    if isinstance(value, list):
        return [(each, f"{pointer}/{i}") for i, each in enumerate(value)]
    if holds != NAMED:
        return [(value, pointer)]
    if not isinstance(value, Mapping):
        return []
    # Lists are property names in `dependencies`.
    return [(each, at(pointer, name)) for name, each in value.items() if not isinstance(each, list)]


def json_depth(value: Any) -> int:
    """How deep arrays and objects nest in a JSON value: 0 for a scalar; -1 if the value is not JSON."""
    level, depth = [value], -1
    while level:
        depth += 1
        below: list[Any] = []
        for each in level:
            if isinstance(each, list):
                below.extend(each or [None])
            elif isinstance(each, Mapping):
                below.extend(each)
                below.extend(each.values() or [None])
                if not all(isinstance(name, str) for name in each):
                    return -1
            elif not _is_scalar(each):
                return -1
        level = below
    return depth


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    return value is None or isinstance(value, bool) or _is_number(value)


def markdown() -> str:
    """The table of keywords, and the formats."""
    from sgl_like.runtime.constrain.json_formats import FORMATS, NARROWER

    rows = ["| Keyword | Applies to | Enforced |", "|---|---|---|"]
    rows += [f"| `{k.name}` | {k.applies} | {k.enforced} |" for k in KEYWORDS.values() if k.applies]
    rows += ["", "| Format | Enforced |", "|---|---|"]
    rows += [f"| `{name}` | {NARROWER.get(name, 'exact')} |" for name in sorted(FORMATS)]
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())
