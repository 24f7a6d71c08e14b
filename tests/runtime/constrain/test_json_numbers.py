"""Numeric bounds and multiples against arithmetic."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError, UnsupportedSchemaError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import CompiledGrammar, GrammarCompiler
from sgl_like.runtime.constrain.derive import edges, matches, shortest
from sgl_like.runtime.constrain.expr import EMPTY, Pool
from sgl_like.runtime.constrain.json_numbers import Numbers
from tests.support.constrain_vocab import make_vocabulary, random_output

VOCABULARY = make_vocabulary()
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
INTEGERS = st.one_of(st.integers(-150, 150), st.integers(-(10**20), 10**20))
DECIMALS = st.one_of(
    st.integers(-1500, 1500).map(lambda i: i / 100), st.floats(-(10.0**17), 10.0**17), st.integers(-20, 20)
)


def _compile(schema: dict[str, Any]) -> CompiledGrammar | None:
    try:
        return GrammarCompiler(VOCABULARY).compile_json_schema(schema)
    except ConstraintError as error:
        assert "allows no output" in str(error)
        return None


def _accepts(grammar: CompiledGrammar | None, text: str) -> bool:
    if grammar is None:
        return False
    matcher = grammar.matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(BOUNDS), st.one_of(INTEGERS, DECIMALS), max_size=3), st.data())
def test_integers_are_exact(bounds: dict[str, Any], data: st.DataObject) -> None:
    schema = {"type": "integer", **bounds}
    grammar = _compile(schema)
    near = [int(Decimal(b)) + d for b in bounds.values() for d in (-1, 0, 1)]
    for value in [*near, data.draw(INTEGERS)]:
        expected = jsonschema.Draft202012Validator(schema).is_valid(value)
        assert _accepts(grammar, str(value)) == expected, value


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(BOUNDS), DECIMALS, min_size=1, max_size=3), st.data())
def test_numbers_are_exact(bounds: dict[str, Any], data: st.DataObject) -> None:
    """What is written with few digits is accepted exactly if it is within the bounds."""
    schema = {"type": "number", **bounds}
    grammar = _compile(schema)
    near = [round(float(b), 3) + d for b in bounds.values() for d in (-1, -0.01, 0, 0.01, 1) if abs(b) < 1e6]
    for value in [*near, data.draw(st.integers(-2000, 2000)) / 100, data.draw(st.integers(-20, 20))]:
        text = f"{round(value, 6):f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        if text == "-0":
            continue
        assert _accepts(grammar, text) == jsonschema.Draft202012Validator(schema).is_valid(
            json.loads(text)
        ), text


@settings(max_examples=150)
@given(
    st.sampled_from(["number", "integer"]),
    st.dictionaries(st.sampled_from(BOUNDS), DECIMALS, max_size=2),
    st.integers(0, 2**32),
)
def test_random_outputs_validate_in_floats(kind: str, bounds: dict[str, Any], seed: int) -> None:
    schema = {"type": kind, **bounds}
    grammar = _compile(schema)
    if grammar is not None:
        text = random_output(grammar.matcher(), VOCABULARY, random.Random(seed), tokens=20).decode()
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize(
    ("bounds", "valid", "invalid"),
    [
        ({"minimum": 0}, ["0", "0.0", "0.5", "17", "100.25"], ["-1", "-0.1", "-0"]),
        ({"exclusiveMinimum": 0}, ["0.1", "0.01", "1", "0.10"], ["0", "0.0", "-1"]),
        ({"maximum": 1}, ["1", "1.0", "0.99", "-5.5", "0"], ["1.01", "2"]),
        ({"minimum": 1.25, "maximum": 1.5}, ["1.25", "1.250", "1.3", "1.5", "1.50"], ["1.2", "1.51", "1", "2"]),
        ({"exclusiveMinimum": 1.25, "exclusiveMaximum": 1.5}, ["1.251", "1.49"], ["1.25", "1.5", "1.250", "1.50"]),
        ({"minimum": -1.5, "maximum": -0.25}, ["-1.5", "-1", "-0.25", "-0.3"], ["-1.51", "-0.2", "0", "1"]),
        ({"minimum": -0.5, "maximum": 0.5}, ["0", "-0.5", "0.5", "0.0"], ["0.6", "-0.51"]),
        ({"minimum": 1e30}, ["1" * 31, str(int(1e30))], ["9" * 30, "1" + "0" * 30]),
        ({"minimum": 0.30000000000000004}, ["0.30000000000001", "0.31", "1"], ["0.3", "0.30"]),
    ],
)  # fmt: skip
def test_edges(bounds: dict[str, Any], valid: list[str], invalid: list[str]) -> None:
    grammar = _compile({"type": "number", **bounds})
    for text in valid:
        assert _accepts(grammar, text), text
    for text in invalid:
        assert not _accepts(grammar, text), text


DIVISORS = st.one_of(
    st.sampled_from([1, 2, 7, 11, 1_000_000, 1.0, 0.5, 2.5, 0.01, 0.1, 1e-8, 0.0075, 0.0001, 0.3, 97.3]),
    st.integers(1, 10**6),
    st.integers(1, 10**6).map(lambda i: i / 1000),
)
NEAR = st.dictionaries(
    st.sampled_from(BOUNDS), st.one_of(st.integers(-9999, 9999), st.floats(-99, 99)), max_size=2
)


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["number", "integer"]), DIVISORS, NEAR, st.data())
def test_multiples(kind: str, divisor: float, bounds: dict[str, Any], data: st.DataObject) -> None:
    """Exactly the multiples in decimal arithmetic, but for those that `jsonschema` refuses because of its floats."""
    schema = {"type": kind, "multipleOf": divisor, **bounds}
    validator = jsonschema.Draft202012Validator(schema)
    pool = Pool(Limits())
    node = Numbers(pool).from_schema(schema, [kind])
    exact = Decimal(repr(divisor))
    near = [int(Decimal(bound) / exact) + d for bound in bounds.values() for d in (-1, 0, 1)]
    for factor in [*near, -1, 0, 1, 7, data.draw(st.integers(-2000, 2000))]:
        value = factor * exact
        for text in (_plain(value), _plain(value + Decimal("0.001")), _plain(value + 1)):
            if kind == "integer" and "." in text:
                continue
            is_multiple = Decimal(text) % exact == 0
            expected = is_multiple and validator.is_valid(json.loads(text))
            assert matches(pool, node, text.encode()) == expected, text


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["number", "integer"]), DIVISORS, NEAR, st.integers(0, 2**32))
def test_random_multiples_validate(kind: str, divisor: float, bounds: dict[str, Any], seed: int) -> None:
    schema = {"type": kind, "multipleOf": divisor, **bounds}
    pool, rng = Pool(Limits()), random.Random(seed)
    node = Numbers(pool).from_schema(schema, [kind])
    if node is EMPTY:
        return
    path = bytearray()
    while len(path) < 12 and not (node.nullable and rng.random() < 0.2) and edges(pool, node):
        mask, node = rng.choice(edges(pool, node))
        path.append(rng.choice([byte for byte in range(256) if mask >> byte & 1]))
    text = (path + shortest(pool, node)).decode()
    jsonschema.validate(json.loads(text), schema)
    assert Decimal(text) % Decimal(repr(divisor)) == 0


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"multipleOf": 2}, ["0", "6000.0", "-4", "4.0000", str(2**70)], ["3", "4.5", "1e1", "04", "4.", "--4"]),
        ({"multipleOf": 0.01}, ["19.98", "1", "1.50", "0.1", "-3.25"], ["0.07", "19.991", "1.001"]),
        ({"multipleOf": 1e-8}, ["12391239123", "0.00000001"], ["0.000000001"]),
        ({"multipleOf": 0.0001}, ["0.0075"], ["0.00751"]),
        ({"multipleOf": 2.5}, ["5", "7.5", "-2.50", "1000000002.5"], ["2", "2.25", "0.5"]),
        ({"multipleOf": 1_000_000, "minimum": 1}, ["1000000", "123000000"], ["0", "1000", "1000001"]),
        ({"multipleOf": 10**40}, ["0", str(3 * 10**40)], ["1" + "0" * 39]),
        ({"multipleOf": 0.123456789}, ["0", "0.123456789"], ["1" + "0" * 60, "0.123"]),
        ({"multipleOf": 3.0, "maximum": -7}, ["-9", "-9.0"], ["-6", "-8"]),
    ],
)  # fmt: skip
def test_multiples_by_hand(schema: dict[str, Any], valid: list[str], invalid: list[str]) -> None:
    pool = Pool(Limits())
    node = Numbers(pool).from_schema(schema, ["number"])
    for text in valid:
        assert matches(pool, node, text.encode()), text
    for text in invalid:
        assert not matches(pool, node, text.encode()), text


def test_multiples_that_cannot_be() -> None:
    pool = Pool(Limits())
    numbers = Numbers(pool)
    assert numbers.number({"multipleOf": 1_000_000, "minimum": 1, "maximum": 999_999}) is EMPTY
    assert numbers.from_schema({"multipleOf": 2.5, "minimum": 1, "maximum": 4}, ["integer"]) is EMPTY
    for wrong in (0, -1, True, "2", float("nan"), float("inf")):
        with pytest.raises(UnsupportedSchemaError, match="multipleOf"):
            numbers.number({"multipleOf": wrong}, "/x")


def test_whole_numbers_with_zeros() -> None:
    pool = Pool(Limits())
    node = Numbers(pool).from_schema({"minimum": -3}, ["integer"])
    for text in ("-3", "-3.0", "12.0000", "9" * 64):
        assert matches(pool, node, text.encode()), text
    for text in ("-4.0", "1.5", "1.", "9" * 16 + ".0", "1e3"):
        assert not matches(pool, node, text.encode()), text
    assert Numbers(pool).from_schema({}, ["string"]) is EMPTY


@pytest.mark.parametrize("kind", ["number", "integer"])
@pytest.mark.parametrize(
    "schema",
    [{"minimum": 5}, {"exclusiveMaximum": 2.5}, {"multipleOf": 0.5}, {"multipleOf": 3}, {"multipleOf": 0.01}],
)
def test_verdicts_about_decimals_are_exact(schema: dict[str, Any], kind: str) -> None:
    pool, rng = Pool(Limits()), random.Random(1)
    numbers = Numbers(pool)
    allowed = numbers.from_schema(schema, [kind])
    validator = jsonschema.Draft202012Validator({"type": kind, **schema})
    for _ in range(100):
        node, path = numbers.decimal(), bytearray()
        while not (node.nullable and rng.random() < 0.4) and edges(pool, node):
            mask, node = rng.choice(edges(pool, node))
            path.append(rng.choice([byte for byte in range(256) if mask >> byte & 1]))
        assert matches(pool, allowed, bytes(path)) == validator.is_valid(json.loads(path)), path
