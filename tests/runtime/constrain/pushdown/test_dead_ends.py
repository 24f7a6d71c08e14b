"""Masks lead nowhere from where nothing valid can follow, in any style; and they allow all that is valid."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.pushdown.compile import JsonCompiler
from sgl_like.runtime.constrain.pushdown.machine import Stack
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from tests.support.constrain_schemas import schemas

ANY, COMPACT = Style(spaces=3, any_order=True), Style()
COMPILER = JsonCompiler(Vocabulary([*(bytes([b]) for b in range(256)), None], [256]))
VALUES: list[Any] = [
    None, True, 0, 1, 12, -1.5, "a", "name", "", "b", [], {}, [1], ["a", 1], [True, None], [[]], [{}], [{"a": 1}],
    [1, 1, 1], {"a": 1}, {"a": "a"}, {"b": 1}, {"a": 1, "b": "a"}, {"name": None}, {"kin": 0, "a": "name"}, {"x": 1},
    {"a": {}}, {"a": []}, {"a": 1, "x": "a"}, {"a": 1, "b": 1, "name": 1}, {"b": {"a": 1}},
]  # fmt: skip


def begin(schema: Any, style: Style) -> Stack:
    return COMPILER.compile(schema, style).grammar().start


def reads(schema: Any, style: Style, text: bytes) -> bool:
    return COMPILER.machine().read(begin(schema, style), text) is not None


REFUSED: list[tuple[Any, Style, bytes]] = [
    # Too late in schema order.
    ({"properties": {"a": True}, "anyOf": [{"required": ["b"]}, {"required": ["a"]}]}, COMPACT, b'{"x'),
    ({"type": "object", "not": {"properties": {"a": {"type": "integer"}}}}, COMPACT, b'{"x'),
    ({"type": "object", "not": {"properties": {"a": {"type": "integer"}}}}, COMPACT, b'{"a":1,'),
    ({"if": {"required": ["x"]}, "then": {"required": ["b"]}, "properties": {"b": True, "x": True}}, COMPACT, b'{"x":'),
    # No room, or nothing to fill it with.
    ({"maxProperties": 2, "dependentRequired": {"a": ["b", "c"]}}, ANY, b'{"a":'),
    ({"minProperties": 2, "properties": {"a": True}, "additionalProperties": False}, ANY, b"{"),
    ({"minItems": 3, "prefixItems": [True], "items": False}, ANY, b"["),
    ({"contains": {"type": "integer"}, "prefixItems": [True], "items": {"type": "string"}}, ANY, b'["'),
    ({"contains": {"required": ["b"], "properties": {"b": False}, "type": "object"}}, ANY, b"["),
    # Names that come as undeclared ones too.
    ({"patternProperties": {"^ab$": True}, "required": ["ab"], "additionalProperties": False}, ANY, b'{"ab":1,'),
    ({"propertyNames": {"enum": ["a"]}, "properties": {"a": True}}, ANY, b'{"a":1,'),
    # Decided assertions.
    ({"type": "array", "minItems": 2, "not": {"contains": {"type": "integer"}}}, ANY, b"[1,"),
    ({"uniqueItems": True, "minItems": 3, "items": {"enum": [1, [1]]}}, ANY, b"["),
    # Further down.
    ({"properties": {"a": {"type": "object", "required": ["b"], "properties": {
        "b": {"required": ["c"], "type": "object", "properties": {"c": False}}}}}}, ANY, b'{"a":'),
    *(({"properties": {"a": {"type": "object", "required": ["b"], "properties": {"b": each}}}}, ANY, b'{"a":')
      for each in (
          {"type": "string", "minLength": 3, "maxLength": 2},
          {"type": "string", "pattern": "^abc$", "maxLength": 2},
          {"type": "integer", "minimum": 1.2, "maximum": 1.8},
          {"type": "array", "minItems": 2, "maxItems": 1},
          {"type": "array", "minItems": 1, "items": {"type": "string", "enum": [1]}},
          {"type": "array", "minItems": 2, "items": {"const": 1}, "uniqueItems": True},
          {"type": "array", "minItems": 2, "items": {"type": "array", "minItems": 1, "items": False}},
          {"allOf": [{"type": "string"}, {"type": "number"}]},
      )),
    ({"oneOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"const": "x"}}}]}, ANY, b'{"a":"x"'),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "style", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_leads_nowhere_is_refused(schema: Any, style: Style, text: bytes) -> None:
    assert not reads(schema, style, text)


def test_names_come_in_the_order_of_the_schema_whatever_applies_in_place() -> None:
    schema = {
        "properties": {"a": True},
        "anyOf": [{"properties": {"b": True}, "required": ["b"]}, {"properties": {"name": True}}],
        "required": ["a"],
    }
    assert reads(schema, COMPACT, b'{"a":1,"b":1,"name":1}')
    assert not reads(schema, COMPACT, b'{"b')


NOTHING: list[Any] = [
    False,
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["a"]}]},
    {"type": "array", "contains": {"type": "integer"}, "items": {"type": "string"}},
    {"type": "object", "required": ["a"], "not": {"required": ["a"]}},
    {"type": "object", "not": {"required": []}},
]


@pytest.mark.parametrize("schema", NOTHING, ids=json.dumps)
@pytest.mark.parametrize("style", [ANY, COMPACT], ids=["any", "compact"])
def test_schemas_that_allow_nothing(schema: Any, style: Style) -> None:
    with pytest.raises(ConstraintError, match="no output at all"):
        begin(schema, style)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas())
def test_values_are_allowed_if_they_are_valid(schema: Any) -> None:
    validator, machine = jsonschema.Draft202012Validator(schema), COMPILER.machine()
    try:
        first: Stack | None = begin(schema, ANY)
    except ConstraintError:
        first = None
        with pytest.raises(ConstraintError):
            begin(schema, COMPACT)
    for value in VALUES:
        after = (
            None if first is None else machine.read(first, json.dumps(value, separators=(",", ":")).encode())
        )
        assert (after is not None and machine.accepting(after)) == validator.is_valid(value), value
