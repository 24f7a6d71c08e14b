"""Proof that no value fits two branches of a ``oneOf``: the only case in which it is the same as ``anyOf``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sgl_like.runtime.constrain.json_keywords import TYPES, Schema, own_types

__all__ = ["possible_types", "target", "why_not_disjoint"]

Resolve = Callable[[str, str], "Schema | bool"]

_FOLLOWED = 64  # references and nested combinations looked into


def possible_types(schema: Schema | bool, resolve: Resolve, pointer: str, depth: int = 0) -> frozenset[str]:
    """A set of types that has those of all values that fit `schema`. "number" comes with "integer"."""
    if isinstance(schema, bool) or depth > _FOLLOWED:
        return frozenset(TYPES) if schema else frozenset()
    types = own_types(schema)
    if "number" in types:
        types |= {"integer"}
    for keyword in ("enum", "const"):
        if keyword in schema:
            values = schema["enum"] if keyword == "enum" else [schema["const"]]
            types &= frozenset(name for value in values for name in _names(value))
    if isinstance(schema.get("$ref"), str):
        types &= possible_types(resolve(schema["$ref"], pointer), resolve, pointer, depth + 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(keyword), list) and (keyword != "allOf" or len(schema[keyword]) == 1):
            parts = (possible_types(branch, resolve, pointer, depth + 1) for branch in schema[keyword])
            types &= frozenset[str]().union(*parts)
    return types


def why_not_disjoint(branches: Sequence[Schema | bool], resolve: Resolve, pointer: str) -> str:
    """Empty if no two branches have a value in common, provably; else a reason that names the two.

    Two branches are apart if they allow different types; or if a property has a const or enum in both, with no value
    in common, and one of them requires it (pydantic's discriminated unions); or if both are such enums themselves.
    """
    kinds = [possible_types(branch, resolve, pointer) for branch in branches]
    tags = [_tags(branch, resolve, pointer) for branch in branches]
    required = [_required(branch, resolve, pointer) for branch in branches]
    for j in range(len(branches)):
        for i in range(j):
            common = kinds[i] & kinds[j]
            apart = {name for name in tags[i].keys() & tags[j].keys() if not tags[i][name] & tags[j][name]}
            is_tagged = common == {"object"} and not apart.isdisjoint(required[i] | required[j])
            if common and "" not in apart and not is_tagged:
                return (
                    f"is supported only where its branches cannot overlap, and {i} and {j} may; "
                    "use anyOf, or give them a required property with different const values"
                )
    return ""


def target(schema: Schema | bool, resolve: Resolve, pointer: str) -> Schema | bool:
    """What a chain of references ends in."""
    for _ in range(_FOLLOWED):
        if isinstance(schema, bool) or not isinstance(schema.get("$ref"), str):
            break
        schema = resolve(schema["$ref"], pointer)
    return schema


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool) or value is None:
        return ("null",) if value is None else ("boolean",)
    if isinstance(value, int | float):
        return ("number", "integer")
    return (
        ("string",)
        if isinstance(value, str)
        else ("array",)
        if isinstance(value, list | tuple)
        else ("object",)
    )


def _required(schema: Schema | bool, resolve: Resolve, pointer: str) -> frozenset[str]:
    schema = target(schema, resolve, pointer)
    return (
        frozenset()
        if isinstance(schema, bool)
        else frozenset(name for name in schema.get("required", []) if name)
    )


def _tags(schema: Schema | bool, resolve: Resolve, pointer: str) -> dict[str, frozenset[str]]:
    """The finite sets of values (as JSON text) of properties; under "" those of the schema itself."""
    schema = target(schema, resolve, pointer)
    found = _values(schema)
    tags = {} if found is None else {"": found}
    if not isinstance(schema, bool):
        for name, value in schema.get("properties", {}).items():
            values = _values(target(value, resolve, pointer))
            if name and values is not None:
                tags[name] = values
    return tags


def _values(schema: Schema | bool) -> frozenset[str] | None:
    if isinstance(schema, bool) or not ("const" in schema or "enum" in schema):
        return None
    values = [schema["const"]] if "const" in schema else schema["enum"]
    return frozenset(json.dumps(_plain(value), sort_keys=True) for value in values)


def _plain(value: Any) -> Any:
    """1 and 1.0 are the same value in JSON."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
