"""Numeric bounds against arithmetic."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.compiler import CompiledGrammar, GrammarCompiler
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
