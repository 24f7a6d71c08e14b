"""JSON Schema: masks against lists of all outputs, texts against ``jsonschema``, order, separators, whitespace."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import CompiledFrames, GrammarCompiler, PropertyOrder
from tests.support.constrain_naive import all_texts, finite_schemas
from tests.support.constrain_vocab import allowed, make_vocabulary

VOCABULARY = make_vocabulary()
ORDERS: tuple[PropertyOrder, ...] = ("schema", "any")


def compile_schema(schema: Any, order: PropertyOrder = "schema", **options: Any) -> CompiledFrames:
    return GrammarCompiler(VOCABULARY).compile_json_schema(schema, order, **options)


def accepts(schema: Any, text: str, order: PropertyOrder = "schema", **options: Any) -> bool:
    matcher = compile_schema(schema, order, **options).matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete


@settings(max_examples=100)
@given(finite_schemas(), st.sampled_from(ORDERS), st.integers(0, 2**32))
def test_mask_equals_trying_every_token(schema: dict[str, Any], order: PropertyOrder, seed: int) -> None:
    listed = all_texts(schema, order == "any")
    assume(listed)
    texts = {text.encode() for text in listed or ()}
    rng = random.Random(seed)
    matcher = compile_schema(schema, order).matcher()
    for _ in range(25):
        prefixes = {text[:i] for text in texts for i in range(min(len(text), 16) + 1)}
        expected = {i for i, data in enumerate(VOCABULARY.token_bytes) if data in prefixes - {b""}}
        mask = allowed(matcher)
        assert mask - VOCABULARY.eos_token_ids == expected
        assert bool(mask & VOCABULARY.eos_token_ids) == matcher.is_complete == (b"" in texts)
        if not expected:
            break
        choice = rng.choice(sorted(expected))
        data = VOCABULARY.token_bytes[choice] or b""
        assert matcher.accept_token(choice)
        texts = {text[len(data) :] for text in texts if text.startswith(data)}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",", ": "), (", ", ":")])
def test_separators(separators: tuple[str, str]) -> None:
    schema = {
        "properties": {"a": {"const": {"x": [1, 2]}}, "b": {"type": "array", "items": {"type": "null"}}},
        "additionalProperties": {"type": "integer"},
        "type": "object",
    }
    value = {"a": {"x": [1, 2]}, "b": [None, None, None], "c": 5, "d": -6}
    for order in ORDERS:
        assert accepts(schema, json.dumps(value, separators=separators), order, separators=separators)
        assert accepts(schema, "{}", order, separators=separators)
        other = (", ", ":") if separators[0] == "," else (",", ":")
        assert not accepts(schema, json.dumps(value, separators=other), order, separators=separators)
    with pytest.raises(ConstraintError, match="separators"):
        compile_schema(schema, separators=(",  ", ":"))
    with pytest.raises(ConstraintError, match="property_order"):
        compile_schema(schema, order="random")  # type: ignore[arg-type]


@pytest.mark.parametrize("indent", [None, 1, "\t"])
def test_whitespace(indent: Any) -> None:
    text = "\r\n " + json.dumps({"b": [1, {}, []], "a": {"c": None}}, indent=indent)
    assert accepts(True, text, whitespace="any")
    assert not accepts(True, text)
    compiler = GrammarCompiler(VOCABULARY, Limits(max_whitespace=3))
    for spaces in range(6):
        matcher = compiler.compile_json_schema(True, whitespace="any").matcher()
        assert matcher.accept_bytes(b"[1," + b" " * spaces + b"2]") == (spaces <= 3)
    with pytest.raises(ConstraintError, match="whitespace"):
        compile_schema(True, whitespace="some")


OBJECT = {
    "type": "object",
    "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}},
    "required": ["b"],
}


@pytest.mark.parametrize(
    ("text", "schema_order", "any_order"),
    [
        ('{"b":2}', True, True),
        ('{"a":1,"b":2,"c":3}', True, True),
        ('{"b":2,"c":3}', True, True),
        ('{"c":3,"b":2}', False, True),
        ('{"b":2,"a":1}', False, True),
        ('{"a":1,"c":3}', False, False),
        ('{"b":2,"b":2}', False, False),
        ("{}", False, False),
        ('{"b":2,"d":4}', True, True),
        ('{"d":4,"b":2}', False, True),
        ('{"b":2,"d":4,"c":3}', False, True),
        ('{"b":2,}', False, False),
        ('{,"b":2}', False, False),
        ('{"b" :2}', False, False),
    ],
)
def test_property_order(text: str, schema_order: bool, any_order: bool) -> None:
    assert accepts(OBJECT, text, "schema") == schema_order
    assert accepts(OBJECT, text, "any") == any_order


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [OBJECT, {"properties": {"c": {"const": 4}, "d": {}}, "required": ["d"]}]},
        {"properties": {"a": {}, "b": {}}, "dependentRequired": {"b": ["a"]}},
        {"properties": {"a": {}, "b": {}}, "dependentSchemas": {"b": {"required": ["a"]}}},
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_no_name_leads_nowhere(schema: dict[str, Any], order: PropertyOrder) -> None:
    """In the order of the schema, a name is not allowed if another one would have to come before it."""
    grammar = compile_schema({"type": "object", **schema}, order)
    for names in itertools.chain.from_iterable(itertools.permutations("abcd", size) for size in (1, 2)):
        matcher = grammar.matcher()
        if matcher.accept_bytes(b"{" + b",".join(b'"%c":%d' % (ord(name), ord(name) - 96) for name in names)):
            assert matcher.shortest_completion().endswith(b"}")


ONE = {"const": 1}
PAIR = [{"const": 1}, {"const": 2}]


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "string"}, ['""', r'"\"\\\/\b\f\n\r\t"', r'"\u00e9\uD83D\ude00"', '"\x7f가😀"'], ['"\n"', '"\\x"']),
        ({"type": "string"}, [], [r'"\ud800"', r'"\udc00\ud800"', r'"\u12"', '"', "''", '"a"b"', r'"\u00g0"']),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"가나"', r'"\n\u00e9😀"', r'"\ud83d\ude00a"'], ['"a"']),
        ({"type": "string", "maxLength": 1}, ['""', r'"\ud83d\ude00"', '"😀"'], ['"ab"', r'"\n\n"']),
        ({"type": "string", "pattern": "b"}, ['"b"', '"abc"', '"가b\\n"'], ['"a"', '""', r'"\u0062"']),
        ({"type": "string", "pattern": "^a|b$"}, ['"ax"', '"xb"', '"a"'], ['"xa"', '"bx"', '"b\\n"']),
        ({"type": "string", "pattern": '^[^a]"\n$'}, [r'"b\"\n"', r'"\\\"\n"', r'"\u0001\"\n"'], [r'"a\"\n"']),
        ({"type": "string", "pattern": "^(?!foo)"}, ['""', '"fo"', '"xfoo"'], ['"foo"', r'"\u0066oo"']),
        ({"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 4}, ['"abcd"'], ['"a"', '"abcde"']),
        ({"type": "string", "pattern": "a", "format": "date"}, [], []),
        ({"type": "string", "pattern": r"^\d$"}, ['"1"'], ['"٣"', '"a"']),
        ({"type": "string", "pattern": r"^\W$"}, ['"-"', '"\\n"'], ['"_"', '"가"']),
        ({"type": "string", "format": "phone"}, ['"x"'], ["1"]),
        ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2000-02-29"', '"0001-01-31"'], ['"1900-02-29"']),
        ({"type": "string", "format": "date"}, [], ['"2023-02-29"', '"0000-01-01"', '"2024-04-31"', '"2024-13-01"']),
        ({"type": "string", "format": "time"}, ['"23:59:59Z"', '"00:00:00.5+09:00"'], ['"24:00:00Z"', '"00:00:00"']),
        ({"type": "string", "format": "email"}, ['"a.b+c@d-e.co.kr"'], ['"a@b"', '"a..b@c.de"', '"a@-b.de"']),
        ({"type": "string", "format": "ipv4"}, ['"0.10.255.249"'], ['"256.1.1.1"', '"01.1.1.1"']),
        ({"type": "integer"}, ["0", "-1", "120", "9" * 64, "1.0"], ["01", "-0", "1.5", "1e2", "+1", "9" * 65]),
        ({"type": "number"}, ["0", "-0.5", "1e10", "1.5E-07", "10"], ["01", ".5", "1.", "1e", "NaN", "Infinity"]),
        ({"type": "boolean"}, ["true", "false"], ["True", "1"]),
        ({"type": "null"}, ["null"], ["none"]),
        ({"type": ["integer", "null", "string"]}, ["1", "null", '""'], ["1.5", "true"]),
        ({"enum": ["a", 1, None, {"b": [1.5]}]}, ['"a"', "1", "1.0", "null", '{"b":[1.5]}'], ['"b"', "1.5"]),
        ({"type": "integer", "enum": ["a", 1, True, 2.0, 2.5]}, ["1", "2.0"], ['"a"', "true", "2.5"]),
        ({"enum": [1, 2], "const": 2}, ["2"], ["1"]),
        ({"const": 'é"\n'}, ['"é\\"\\n"'], ['"\\u00e9\\"\\n"']),
        ({"type": "array", "items": {"const": 1}}, ["[]", "[1,1]"], ["[2]", "[1,]", "[,1]"]),
        ({"type": "array", "items": ONE, "minItems": 2, "maxItems": 3}, ["[1,1]", "[1,1,1]"], ["[1]", "[1,1,1,1]"]),
        ({"type": "array", "prefixItems": PAIR, "items": {"const": 3}}, ["[]", "[1]", "[1,2,3,3]"], ["[2]"]),
        ({"type": "array", "prefixItems": PAIR, "items": False}, ["[]", "[1,2]"], ["[1,2,3]"]),
        ({"type": "array", "prefixItems": PAIR, "minItems": 1, "maxItems": 1}, ["[1]"], ["[]", "[1,2]"]),
        ({"type": "array", "prefixItems": [ONE], "items": {"const": 2}, "minItems": 3}, ["[1,2,2]"], ["[1,2]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"type": "array", "items": False}, ["[]"], ["[1]"]),
        ({"type": "object"}, ["{}", '{"a":1,"b":{"c":[[]]}}'], ["[]"]),
        ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a":1}']),
        ({"type": "object", "additionalProperties": ONE, "minProperties": 1}, ['{"a":1}', '{"a":1,"b":1}'], ["{}"]),
        ({"type": "object", "additionalProperties": ONE, "maxProperties": 1}, ["{}", '{"a":1}'], ['{"a":1,"b":1}']),
        ({"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"const": 2}},
         ['{"a":1}', '{"a":1,"b":2}', '{"b":2}', '{"aa":2}', '{"":2}'], ['{"a":2}', r'{"\u0061":2}', '{"b":2,"a":1}']),
        ({"type": "object", "required": ["z"]}, ['{"z":1}'], ["{}", '{"a":1}']),
        ({"type": "object", "properties": {"a": False, "b": {"const": 1}}}, ["{}", '{"b":1}'], ['{"a":1}']),
        ({"type": "object", "properties": {'x"~/': {"const": 1}}}, [r'{"x\"~/":1}'], []),
        ({"anyOf": [{"const": 1}, {"type": "null"}]}, ["1", "null"], ["2"]),
        ({"type": "object", "anyOf": [OBJECT]}, ['{"b":2}'], []),
        ({"allOf": [{"const": 1}], "title": "T"}, ["1"], ["2"]),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ['"a"', "1"], ["1.5"]),
        ({"oneOf": [{"enum": [1, 2]}, {"const": 3}]}, ["1", "3"], ["4"]),
        ({"$defs": {"a/b": {"$ref": "#/$defs/c~d"}, "c~d": {"const": 1}}, "$ref": "#/$defs/a~1b"}, ["1"], ["2"]),
        ({"$ref": "#/definitions/%61", "definitions": {"a": {"const": 1}}, "description": "x"}, ["1"], []),
        ({"minimum": 5}, ["5", '"a"', "null", "[1]", '{"a":1}'], ["4"]),
        ({"minLength": 2.0}, ["5", '"aa"'], ['"a"']),
        (True, ["1", '{"a":[{"b":1}]}', "[[[[1]]]]", "[" * 100 + "]" * 100], ["[[[[1]]]", ""]),
        ({"type": "object", "properties": {"a": ONE}, "patternProperties": {"^b": {"const": 2}}},
         ['{"a":1,"bc":2,"c":3}'], ['{"a":1,"bc":3}', '{"a":2}']),
        ({"allOf": [{"minimum": 3}, {"multipleOf": 2}], "maximum": 7}, ["4", "6", '"a"'], ["2", "5", "8"]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}], "minimum": 3, "minLength": 2},
         ["3", '"ab"'], ["2", '"a"']),
        ({"oneOf": [{"type": "number"}, {"minimum": 3}]}, ["2", '"a"'], ["3"]),
        ({"not": {"type": ["object", "array"]}}, ["1", '"a"'], ["{}", "[]"]),
        ({"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"type": "null"}}, ['"a"', "null"], ['""', "1"]),
        ({"type": "array", "contains": ONE, "uniqueItems": True}, ["[1]", "[2,1]"], ["[]", "[2]", "[1,2,1]"]),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, ["{}", '{"b":1}', '{"a":1,"b":1}'], ['{"a":1}']),
        ({"allOf": [{"properties": {"a": ONE}}], "unevaluatedProperties": False, "type": "object"},
         ["{}", '{"a":1}'], ['{"b":1}']),
        ({"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False},
         ["{}", '{"child":{"child":{}}}'], ['{"child":1}', '{"child":{"b":{}}}']),
        ({"type": "null", "surprise": 1, "x-y": {}}, ["null"], ["1"]),
        ({"title": "x"}, ["null", "[]"], ["nul"]),
    ],
)  # fmt: skip
def test_keywords(schema: Any, valid: list[str], invalid: list[str]) -> None:
    if not valid and not invalid:
        with pytest.raises(ConstraintError, match="allows no output"):
            compile_schema(schema)
        return
    for text in valid:
        assert accepts(schema, text), text
        jsonschema.validate(json.loads(text), schema)
    for text in invalid:
        assert not accepts(schema, text), text


SMALL = {"type": "string", "minLength": 1, "maxLength": 4}
LARGE = {
    "enum of 10,000": (
        {"enum": [f"value {i * 7919 % 100003}" for i in range(10_000)]},
        b'"value 7919"',
        100,
    ),
    "maxLength 10,000": ({"type": "string", "maxLength": 10_000}, b'"' + b"ab" * 200 + b'"', 200),
    "minLength 5,000": ({"type": "string", "minLength": 5_000}, b'"' + b"a" * 5_000 + b'"', 2_000),
    "maxItems 100,000": (
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**5},
        b"[1,2,34]",
        100,
    ),
    "100 optional": (
        {"type": "object", "properties": {f"property_{i}": SMALL for i in range(100)}},
        b'{"property_7":"a","property_99":"b"}',
        200,
    ),
    "deep": (None, b'{"a":' * 60 + b"1" + b"}" * 60, 600),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", list(LARGE))
def test_large_schemas_stay_small(name: str, order: PropertyOrder) -> None:
    schema, text, most = LARGE[name]
    if schema is None:
        schema = {"const": 1}
        for _ in range(60):
            schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    grammar = compile_schema(schema, order)
    matcher = grammar.matcher()
    for i in range(0, len(text), 5):
        allowed(matcher)
        assert matcher.accept_bytes(text[i : i + 5])
    assert matcher.is_complete
    assert len(grammar.grammar().machine.tables.states) < most


def test_states_are_shared_whatever_the_order_was() -> None:
    """After a value, only what may still come matters."""
    values = {"type": "string", "minLength": 1}
    schema = {"type": "object", "properties": dict.fromkeys("abcd", values)}
    grammar = compile_schema(schema, "any")
    first, second = grammar.matcher(), grammar.matcher()
    assert first.accept_bytes(b'{"a":"x","b":"y"')
    assert second.accept_bytes(b'{"b":"zzz","a":"w"')
    assert first._stack is second._stack


def test_what_an_integer_is_depends_on_the_draft() -> None:
    compiler = GrammarCompiler(make_vocabulary())
    for draft, expected in (("draft-04/schema", False), ("draft-07/schema", True)):
        schema = {"$schema": f"http://json-schema.org/{draft}#", "type": "integer"}
        matcher = compiler.compile_json_schema(schema).matcher()
        assert matcher.accept_bytes(b"1.0") == expected
