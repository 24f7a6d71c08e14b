"""JSON Schema: masks against lists of all outputs, random outputs against ``jsonschema`` and pydantic."""

from __future__ import annotations

import datetime
import json
import random
import uuid
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.compiler import CompiledGrammar, GrammarCompiler
from sgl_like.runtime.constrain.json_schema import PropertyOrder
from tests.support.constrain_naive import all_texts, finite_schemas
from tests.support.constrain_vocab import allowed, make_vocabulary, random_output

VOCABULARY = make_vocabulary()
ORDERS: tuple[PropertyOrder, ...] = ("schema", "any")


def compile_schema(schema: Any, order: PropertyOrder = "schema", **options: Any) -> CompiledGrammar:
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


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Address(BaseModel):
    street: str = Field(min_length=1, max_length=12, description="Where to")
    zip_code: Annotated[str, Field(pattern=r"^\d{5}(?:-\d{4})?$")]
    lines: tuple[int, str] = (1, "")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str | None = None


class Bird(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["bird", "hen"]
    wings: Literal[2]


class Ant(BaseModel):
    kind: Literal["ant"] = "ant"


class Bee(BaseModel):
    kind: Literal["bee"] = "bee"


class Person(BaseModel):
    """Someone."""

    name: Annotated[str, Field(min_length=1)]
    age: Annotated[int, Field(gt=0, lt=150)]
    email: str | None = None
    color: Color
    address: Address
    friends: list[Address] = Field(default_factory=list, max_length=2)


class Times(BaseModel):
    day: datetime.date
    at: datetime.datetime
    clock: datetime.time
    key: uuid.UUID
    optional_day: datetime.date | None = None


class Zoo(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: Annotated[list[Cat | Bird], Field(min_length=1, max_length=3)]
    best: Annotated[Cat | Bird, Field(discriminator="kind")]
    tagged: Annotated[Ant | Bee, Field(discriminator="kind")]


class Maps(BaseModel):
    counts: dict[str, int]
    by_color: dict[Color, list[bool]] = Field(max_length=2)
    names: dict[Annotated[str, Field(pattern="^[a-c]+$")], None]
    anything: Any
    mixed: list[int | str | None]


class Numbers(BaseModel):
    ratio: Annotated[float, Field(ge=0, le=1)]
    delta: Annotated[float, Field(gt=-2.5, lt=1000.125)]
    free: float
    whole: int
    few: Annotated[int, Field(ge=-3, lt=12)]
    pair: tuple[Annotated[float, Field(lt=0)], bool]


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int
    b: Literal["x", 1, None] = None


class Nothing(BaseModel):
    pass


MODELS = [Address, Cat, Dog, Bird, Person, Times, Zoo, Maps, Numbers, Loose, Nothing]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("model", MODELS)
def test_random_outputs_of_pydantic_models_validate(model: type[BaseModel], order: PropertyOrder) -> None:
    schema = model.model_json_schema()
    checker = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.FormatChecker(["date", "uuid"])
    )
    grammar = compile_schema(model, order)
    for seed in range(12):
        text = random_output(grammar.matcher(), VOCABULARY, random.Random(seed), tokens=150).decode()
        checker.validate(json.loads(text))
        model.model_validate_json(text)


@pytest.mark.parametrize("order", ORDERS)
def test_a_pydantic_instance_is_accepted(order: PropertyOrder) -> None:
    address = Address(street="가로수길 1", zip_code="12345-6789")
    person = Person(name='O"Neil 😀\n', age=149, color=Color.RED, address=address, friends=[address])
    assert accepts(Person, person.model_dump_json(), order)
    times = Times(
        day=datetime.date(2024, 2, 29),
        at=datetime.datetime(2024, 12, 31, 23, 59, 59, 123456, tzinfo=datetime.UTC),
        clock=datetime.time(0, 0, tzinfo=datetime.UTC),
        key=uuid.UUID(int=5),
    )
    assert accepts(Times, times.model_dump_json(), order)


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
        ('{"b":2,"d":4}', False, False),
        ('{"b":2,}', False, False),
        ('{,"b":2}', False, False),
        ('{"b" :2}', False, False),
    ],
)
def test_property_order(text: str, schema_order: bool, any_order: bool) -> None:
    assert accepts(OBJECT, text, "schema") == schema_order
    assert accepts(OBJECT, text, "any") == any_order


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
        ({"type": "integer"}, ["0", "-1", "120", "9" * 64], ["01", "-0", "1.0", "1e2", "+1", "9" * 65]),
        ({"type": "number"}, ["0", "-0.5", "1e10", "1.5E-07", "10"], ["01", ".5", "1.", "1e", "NaN", "Infinity"]),
        ({"type": "boolean"}, ["true", "false"], ["True", "1"]),
        ({"type": "null"}, ["null"], ["none"]),
        ({"type": ["integer", "null", "string"]}, ["1", "null", '""'], ["1.5", "true"]),
        ({"enum": ["a", 1, None, {"b": [1.5]}]}, ['"a"', "1", "null", '{"b":[1.5]}'], ['"b"', "1.0"]),
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
        (True, ["1", '{"a":[{"b":1}]}', "[[[1]]]"], ["[[[[1]]]]", ""]),
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


def test_schema_as_text_or_model_or_dict_is_the_same_grammar() -> None:
    compiler = GrammarCompiler(VOCABULARY)
    schema = Cat.model_json_schema()
    grammar = compiler.compile_json_schema(schema)
    assert compiler.compile_json_schema(json.dumps(schema)) is grammar
    assert compiler.compile_json_schema(Cat) is grammar
    assert compiler.compile_json_schema(schema, "any") is not grammar


SMALL = {"type": "string", "minLength": 1, "maxLength": 4}
LARGE = {
    "enum of 10,000": (
        {"enum": [f"value {i * 7919 % 100003}" for i in range(10_000)]},
        b'"value 7919"',
        9_000,
    ),
    "maxLength 10,000": ({"type": "string", "maxLength": 10_000}, b'"' + b"ab" * 200 + b'"', 5_000),
    "minLength 5,000": ({"type": "string", "minLength": 5_000}, b'"' + b"a" * 5_000 + b'"', 16_000),
    "maxItems 100,000": (
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**5},
        b"[1,2,34]",
        800,
    ),
    "100 optional": (
        {"type": "object", "properties": {f"property_{i}": SMALL for i in range(100)}},
        b'{"property_7":"a","property_99":"b"}',
        1_500,
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
    assert grammar.states < most


def test_states_are_shared_whatever_the_order_was() -> None:
    """After a value, only what may still come matters."""
    values = {"type": "string", "minLength": 1}
    schema = {"type": "object", "properties": dict.fromkeys("abcd", values)}
    grammar = compile_schema(schema, "any")
    first, second = grammar.matcher(), grammar.matcher()
    assert first.accept_bytes(b'{"a":"x","b":"y"')
    assert second.accept_bytes(b'{"b":"zzz","a":"w"')
    assert first._state is second._state
    allowed(first)
    known = grammar.states
    allowed(second)
    assert grammar.states == known
