"""The pushdown machine: masks against trying every token, verdicts against the JSON-Schema-Test-Suite."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.pushdown.compile import JsonCompiler
from sgl_like.runtime.constrain.pushdown.machine import Stack
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from tests.support.constrain_schemas import schemas

SUITE = Path(__file__).parents[5] / "shared/bench/constraints/json-schema-test-suite/tests"
META = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
PIECES = [
    '{"',
    ' {"',
    ": [",
    '":',
    '": ',
    '","',
    '"}',
    "  ",
    "\n ",
    "},",
    "]}",
    "tr",
    "ue",
    "name",
    "a",
    "kin",
    '"kind',
    "12",
    "[[",
]
TOKENS = [
    *(bytes([b]) for b in range(256)),
    *(p.encode() for p in PIECES),
    "한".encode()[:2],
]
LOOSE = Style(spaces=20, any_order=True)


class Compiled:
    """A compiler whose machine is at hand."""

    def __init__(self) -> None:
        self.compiler = JsonCompiler(Vocabulary([*TOKENS, None], [len(TOKENS)]))
        self.machine = self.compiler.machine()

    def compile(self, schema: Any, style: Style) -> Stack:
        grammar = self.compiler.compile(schema, style).grammar()
        self.machine = grammar.machine
        return grammar.start


def compiler() -> Compiled:
    return Compiled()


def allowed(compiled: Compiled, stack: Stack) -> set[int]:
    mask = np.zeros(compiled.machine.vocabulary.words, dtype=np.int32)
    compiled.machine.fill(stack, mask)
    return {t for t in range(len(TOKENS) + 1) if int(mask[t >> 5]) >> (t & 31) & 1}


SHAPES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"type": "string"},
        "next": {"$ref": "#"},
        "n": {"type": "integer", "minimum": 3},
    },
    "required": ["kind"],
    "anyOf": [
        {"properties": {"kind": {"const": "a"}}, "not": {"required": ["n"]}},
        {
            "properties": {
                "kind": {"const": "name"},
                "tags": {"contains": {"const": True}},
            },
            "required": ["n"],
        },
    ],
    "if": {"required": ["next"]},
    "then": {"maxProperties": 2},
}
INSTANCES: list[Any] = [
    {"kind": "a"},
    {"kind": "name", "n": 12, "tags": [1, True]},
    {"n": 4, "kind": "name", "extra": [[{}]]},
    {"kind": "a", "next": {"n": 5, "kind": "name"}},
    {"kind": "a", "n": 12},
    {"kind": "name", "n": 12, "tags": [1]},
    {"kind": "a", "next": {"kind": "a"}, "more": 0},
    {"kind": "name", "n": 2},
    {"next": {"kind": "a"}},
]


@pytest.mark.parametrize("instance", INSTANCES, ids=json.dumps)
@pytest.mark.parametrize("indent", [None, 1])
def test_masks_equal_trying_every_token(instance: Any, indent: int | None) -> None:
    compiled = compiler()
    stack: Stack | None = compiled.compile(SHAPES, LOOSE)
    valid = jsonschema.Draft202012Validator(SHAPES).is_valid(instance)
    for byte in json.dumps(instance, indent=indent).encode():
        assert stack is not None
        tried = {t for t, data in enumerate(TOKENS) if compiled.machine.read(stack, data) is not None}
        assert allowed(compiled, stack) - {len(TOKENS)} == tried
        assert (len(TOKENS) in allowed(compiled, stack)) == compiled.machine.accepting(stack)
        stack = compiled.machine.step(stack, byte)
        if stack is None:
            break
    assert (stack is not None and compiled.machine.accepting(stack)) == valid


def test_recursion_and_deep_nesting() -> None:
    compiled = compiler()
    schema = {
        "anyOf": [
            {"type": "null"},
            {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
        ]
    }
    stack = compiled.compile(schema, Style())
    after = compiled.machine.read(stack, b"[" * 5000 + b"null" + b"]" * 5000)
    assert after is not None and compiled.machine.accepting(after)
    assert compiled.machine.read(stack, b"[null,") is None


def test_compact_style_in_schema_order() -> None:
    compiled = compiler()
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "null"},
            "c": {"type": "boolean"},
        },
        "required": ["b"],
    }
    stack = compiled.compile(schema, Style(any_order=False))
    for text, good in [
        ('{"a":1,"b":null,"c":true}', True),
        ('{"b":null}', True),
        ('{"b":null,"x":[1]}', True),
        ('{"b":null,"a":1}', False),
        ('{"c":true}', False),
        ('{"x":1,"b":null}', False),
        ('{"a": 1,"b":null}', False),
    ]:
        after = compiled.machine.read(stack, text.encode())
        assert (after is not None and compiled.machine.accepting(after)) == good, text


@pytest.mark.skipif(
    not SUITE.is_dir(),
    reason="the JSON-Schema-Test-Suite is not beside this repository",
)
@pytest.mark.parametrize("draft, least", [("draft2020-12", 930), ("draft7", 815)])
def test_json_schema_test_suite(draft: str, least: int) -> None:
    """Required tests right; nothing invalid is accepted. What cannot be enforced is refused, not counted."""
    compiled = compiler()
    counts: Counter[str] = Counter()
    wrong = []
    for path in sorted((SUITE / draft).glob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            schema = group["schema"]
            if isinstance(schema, dict):
                schema = {"$schema": META[draft], **schema}
            for test in group["tests"]:
                try:
                    stack = compiled.compile(schema, LOOSE)
                    data = json.dumps(test["data"], ensure_ascii=False).encode("utf-8", "surrogatepass")
                    after = compiled.machine.read(stack, data)
                except ConstraintError:
                    counts["refused"] += 1
                    continue
                accepted = after is not None and compiled.machine.accepting(after)
                counts["right" if accepted == test["valid"] else f"accepted is {accepted}"] += 1
                if accepted and not test["valid"]:
                    wrong.append((path.name, group["description"], test["description"]))
    assert not wrong
    assert counts["right"] >= least, counts


@pytest.mark.parametrize(
    "schema",
    [
        {"propertyNames": {"maxLength": 2}, "properties": {"name": {}, "a": {"type": "null"}}},
        {"propertyNames": {"enum": ["kin", "b"]}, "properties": {"kind": True}},
        {"patternProperties": {"^n": {"type": "null"}}, "properties": {"name": False, "kind": {"const": 1}}},
        {"items": {"type": "string", "maxLength": 3, "minLength": 2}, "minItems": 2},
        {"items": {"type": "string", "pattern": "^(?:ab|[a-n]{2,5})$"}},
        {"type": "array", "items": {"enum": ["a", "name", 12, "kin"]}, "uniqueItems": True},
        {"oneOf": [{"maximum": 8}, {"maximum": -2}]},
        {"type": ["string", "number"], "not": {"enum": ["a", "kin", "name", 1, 12.5]}},
        {"type": "array", "items": {"type": ["string", "integer"], "not": {"enum": ["kin", 12]}}},
        {
            "type": "object",
            "unevaluatedProperties": False,
            "anyOf": [{"properties": {"a": {"type": "null"}}}, {"properties": {"kind": True}}],
        },
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("style", [LOOSE, Style()], ids=["any", "compact"])
def test_masks_on_random_walks(schema: Any, style: Style) -> None:
    """Masks equal trying every token wherever random tokens lead."""
    walk_at_random(schema, style, 6)


@given(schema=schemas(), style=st.sampled_from([LOOSE, Style()]))
@settings(max_examples=60)
def test_masks_of_random_schemas(schema: Any, style: Style) -> None:
    """The same for schemas that nobody thought of."""
    try:
        walk_at_random(schema, style, 2)
    except ConstraintError as error:
        assert "allows no output" in str(error)


def walk_at_random(schema: Any, style: Style, times: int) -> None:
    """Where random tokens lead, the mask is what can be read."""
    compiled, chance = compiler(), random.Random(1)
    for _ in range(times):
        stack = compiled.compile(schema, style)
        for _ in range(14):
            mask = allowed(compiled, stack) - {len(TOKENS)}
            tried = {t for t, data in enumerate(TOKENS) if compiled.machine.read(stack, data) is not None}
            assert mask == tried, compiled.machine.frames(stack)
            if not mask:
                break
            structural = [t for t in mask if TOKENS[t][:1] in b'{}[]",:' or len(TOKENS[t]) > 1]
            after = compiled.machine.step(stack, chance.choice(sorted(structural or mask)))
            assert after is not None
            stack = after
