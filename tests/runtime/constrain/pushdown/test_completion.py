"""Completions are valid under `jsonschema`, and as short as can be; forced bytes equal trying all bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.pushdown.compile import JsonCompiler
from sgl_like.runtime.constrain.pushdown.completion import shortest_completion
from sgl_like.runtime.constrain.pushdown.forced import forced_bytes, next_bytes, next_sets
from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from tests.support.constrain_schemas import SCHEMAS, TREE, schemas

PIECES = [
    '{"', '":', '": ', '","', '"}', "  ", "\n ", "},", "]}", "tr", "ue", "name", "a", "kin", '"kind', "12", "[[",
]  # fmt: skip
TOKENS = [*(bytes([b]) for b in range(256)), *(p.encode() for p in PIECES), "한".encode()[:2]]
VOCABULARY = Vocabulary([*TOKENS, None], [len(TOKENS)])
STRUCTURAL = frozenset(b'{}[]",:019-tfnab')
ANY, COMPACT = Style(spaces=3, any_order=True), Style()
COMPILER = JsonCompiler(VOCABULARY)
MACHINE = COMPILER.machine()
COMPLETIONS = COMPILER.completions


def begin(schema: Any, style: Style) -> Stack:
    """The stack before an output."""
    grammar = COMPILER.compile(schema, style).grammar()
    assert grammar.machine is MACHINE
    return grammar.start


def allowed(machine: Machine, stack: Stack) -> list[int]:
    mask = np.zeros(VOCABULARY.words, dtype=np.int32)
    machine.fill(stack, mask)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(TOKENS)]).tolist()


def walk(schema: Any, style: Style, seed: int, steps: int) -> Iterator[tuple[Machine, Stack, bytes]]:
    """Random outputs, and where they have got to. Ends where the engine finds out that it cannot go on."""
    rng, machine = random.Random(seed), MACHINE
    try:
        stack: Stack | None = begin(schema, style)
    except ConstraintTooComplex:
        raise
    except ConstraintError:
        return  # nothing is valid
    out = b""
    for _ in range(steps):
        assert stack is not None
        yield machine, stack, out
        try:
            choices = allowed(machine, stack)
        except ConstraintError:
            return
        if not choices:
            return
        structural = [t for t in choices if TOKENS[t][0] in STRUCTURAL]
        token = rng.choice(structural if structural and rng.random() < 0.85 else choices)
        out += TOKENS[token]
        stack = machine.step(stack, token)


def is_valid(schema: Any, data: bytes) -> bool:
    default = jsonschema.Draft202012Validator
    validator = jsonschema.validators.validator_for(schema, default) if isinstance(schema, dict) else default
    return bool(validator(schema).is_valid(json.loads(data)))


def has_repeated_names(data: bytes) -> bool:
    found = []
    json.loads(
        data, object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) < len(pairs)) or dict(pairs)
    )
    return any(found)


def check_completion(schema: Any, machine: Machine, stack: Stack, out: bytes) -> None:
    data = COMPLETIONS.of(stack)
    after = machine.read(stack, data) if data else stack
    assert after is not None and machine.accepting(after), (out, data)
    assert is_valid(schema, out + data) or has_repeated_names(out + data), (out, data)


@pytest.mark.parametrize("style", [ANY, COMPACT], ids=["any", "compact"])
@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_every_prefix_can_be_completed(schema: Any, style: Style) -> None:
    for seed in range(3):
        for machine, stack, out in walk(schema, style, seed, 24):
            check_completion(schema, machine, stack, out)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas(), st.integers(0, 2**32))
def test_random_schemas(schema: Any, seed: int) -> None:
    """Wherever the masks lead there is a completion, and it is valid."""
    for machine, stack, out in walk(schema, random.Random(seed).choice([ANY, COMPACT]), seed, 12):
        check_completion(schema, machine, stack, out)


TINY: list[Any] = [
    {"enum": ["abc", "b", 10]},
    {"type": "array", "items": {"enum": [10, "a"]}, "minItems": 2, "maxItems": 2},
    {"type": "array", "prefixItems": [{"const": "a"}, {"const": True}], "items": False, "contains": {"const": True}},
    {"type": "object", "properties": {"a": {"const": 1}, "b": {"enum": [22, None]}}, "required": ["b"],
     "additionalProperties": False},
    {"type": "object", "properties": {"a": {"enum": [12, 3]}, "b": {"const": 1}}, "additionalProperties": False,
     "minProperties": 1, "not": {"properties": {"a": {"const": 3}}}},
    {"anyOf": [{"const": "aaaaaaaa"}, {"type": "array", "items": {"const": "b"}, "minItems": 1, "maxItems": 2}]},
    {"oneOf": [{"enum": [100, 2]}, {"enum": [2, 30]}]},
    {"type": "array", "items": {"enum": [1, 22, 333]}, "not": {"contains": {"const": 1}}, "minItems": 1,
     "maxItems": 2},
    {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": 1}]},
    {"type": "object", "properties": {k: {"enum": [1]} for k in "ab"}, "additionalProperties": False,
     "if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["b"]}},
]  # fmt: skip


def breadth_first(machine: Machine, stack: Stack) -> int:
    """Bytes to the next place where the output may end; -1 if there is none."""
    seen, row, length = {stack}, [stack], 0
    while not any(machine.accepting(each) for each in row):
        length += 1
        found = (machine.read(each, bytes([byte])) for each in row for byte in range(256))
        row = list(dict.fromkeys(each for each in found if each is not None and each not in seen))
        seen.update(row)
        if not row:
            return -1
    return length


@pytest.mark.parametrize("style", [Style(any_order=True), COMPACT], ids=["any", "compact"])
@pytest.mark.parametrize("schema", TINY, ids=range(len(TINY)))
def test_as_short_as_breadth_first_search_finds(schema: Any, style: Style) -> None:
    for seed in range(2):
        for machine, stack, _ in walk(schema, style, seed, 6):
            assert len(COMPLETIONS.of(stack)) == breadth_first(machine, stack)


@pytest.mark.parametrize("style", [ANY, COMPACT], ids=["any", "compact"])
@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_next_and_forced_bytes_equal_trying_all(schema: Any, style: Style) -> None:
    for machine, stack, _ in walk(schema, style, 5, 12):
        sets = list(next_sets(machine, stack))
        tried = [byte for byte in range(256) if machine.read(stack, bytes([byte])) is not None]
        assert sum(sets) == sum(1 << byte for byte in tried)
        assert set(next_bytes(machine, stack, bytes(range(256)))) == set(tried)
        forced, here = b"", stack
        while not machine.accepting(here):
            tried = [byte for byte in range(256) if machine.read(here, bytes([byte])) is not None]
            if len(tried) != 1:
                break
            forced += bytes(tried)
            after = machine.read(here, bytes(tried))
            assert after is not None
            here = after
        assert forced_bytes(machine, stack, 1000) == forced


MANY = {"type": "object", "required": [f"field{i}" for i in range(60)]}


@pytest.mark.parametrize("style", [ANY, COMPACT], ids=["any", "compact"])
def test_many_required_members_come_in_order(style: Style) -> None:
    stack = begin(MANY, style)
    done = json.loads(shortest_completion(MACHINE, stack, Limits()))
    assert list(done) == MANY["required"]


def test_deep_nesting() -> None:
    stack = MACHINE.read(begin(TREE, COMPACT), b'{"v":1,"left":' * 2000)
    assert stack is not None
    assert COMPLETIONS.of(stack) == b'{"v":1' + b"}" * 2001


def test_alternatives_with_many_members_each() -> None:
    alternatives = [
        {
            "properties": {"kind": {"const": f"kind{i}"}},
            "required": ["kind", *(f"m{i}_{j}" for j in range(8))],
        }
        for i in range(12)
    ]
    schema = {"type": "object", "oneOf": alternatives}
    for style in (ANY, COMPACT):
        data = COMPLETIONS.of(begin(schema, style))
        assert is_valid(schema, data) and len(json.loads(data)) == 9


def test_invented_names_differ() -> None:
    schema = {"type": "object", "minProperties": 4, "properties": {"a": {"type": "null"}}}
    for prefix in (b"", b'{"":1,', b'{"a":null,"b":{},"'):
        stack = begin(schema, Style(any_order=True))
        after = MACHINE.read(stack, prefix) if prefix else stack
        assert after is not None
        assert is_valid(schema, prefix + COMPLETIONS.of(after))


def test_no_output_at_all() -> None:
    with pytest.raises(ConstraintError, match="no output at all"):
        begin({"allOf": [{"not": {"type": "string"}}, {"type": "string"}]}, COMPACT)


def test_going_over_the_limit() -> None:
    stack = begin({**MANY, "minProperties": 61}, COMPACT)
    with pytest.raises(ConstraintTooComplex, match="within the limits"):
        shortest_completion(MACHINE, stack, Limits(max_search=20))


def test_going_over_the_time() -> None:
    """Items that must all differ: each takes longer to find than the one before."""
    stack = begin({"type": "array", "minItems": 10**9, "uniqueItems": True}, COMPACT)
    with pytest.raises(ConstraintTooComplex, match="within the limits"):
        shortest_completion(MACHINE, stack, Limits(max_step_seconds=0.2))
