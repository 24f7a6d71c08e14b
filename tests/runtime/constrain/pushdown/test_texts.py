"""Sets of texts: masks of keys and enumerated strings that share beginnings, against trying every token."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.pushdown.compile import JsonCompiler
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.vocabulary import Vocabulary

WORDS = ["".join(letters) for size in (1, 2, 3) for letters in product('ab"', repeat=size)]
PUNCTUATION = [
    "{",
    "}",
    ":",
    ",",
    "1",
    '{"',
    '":',
    '":1',
    '":1}',
    '":1,',
    '":1,"',
    ',"',
    ',"a',
    ',"ab"',
    '"}',
    '",',
]
TOKENS = [text.encode() for text in dict.fromkeys([*WORDS, *PUNCTUATION])]
NAMES = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)
CLOSED = {"additionalProperties": False}
ONLY_WITH_B = {"patternProperties": {"^b": {"const": 1}}, "additionalProperties": False}
STYLES = st.sampled_from([Style(), Style(any_order=True)])


def check(schema: Any, style: Style, steps: int) -> None:
    """Where random tokens lead, the mask is what can be read."""
    compiler, chance = JsonCompiler(Vocabulary([*TOKENS, None], [len(TOKENS)])), random.Random(0)
    grammar = compiler.compile(schema, style).grammar()
    machine = grammar.machine
    for _ in range(4):
        stack = grammar.start
        for _ in range(steps):
            out = np.zeros(machine.vocabulary.words, dtype=np.int32)
            machine.fill(stack, out)
            mask = {t for t in range(len(TOKENS)) if int(out[t >> 5]) >> (t & 31) & 1}
            assert mask == {t for t, data in enumerate(TOKENS) if machine.read(stack, data) is not None}
            after = machine.step(stack, chance.choice(sorted(mask))) if mask else None
            if after is None:
                break
            stack = after


@given(
    names=NAMES,
    barred=st.sets(st.text("ab", min_size=1, max_size=4), max_size=4),
    besides=st.sampled_from([{}, CLOSED, {"patternProperties": {"^a": {"const": 1}}}, ONLY_WITH_B]),
    only=st.sampled_from([None, "^a", "b$", "^(aa|ba|bab)$"]),
    need=st.booleans(),
    style=STYLES,
)
@settings(max_examples=100)
def test_keys(
    names: list[str], barred: set[str], besides: dict[str, Any], only: str | None, need: bool, style: Style
) -> None:
    """Names that may come, names that must not, and others."""
    schema = {
        "type": "object",
        "properties": {name: {"const": 1} for name in names} | dict.fromkeys(barred, False),
        **besides,
    }
    if only is not None:
        schema["propertyNames"] = {"pattern": only}
    if need:
        schema["required"] = names[:1]
    try:
        check(schema, style, 9)
    except ConstraintError as error:
        assert "allows no output" in str(error)


@given(values=NAMES, excluded=NAMES, style=STYLES)
@settings(max_examples=30)
def test_values(values: list[str], excluded: list[str], style: Style) -> None:
    """Enumerated strings, and strings that must not come."""
    items = [{"enum": values}, {"type": "string", "not": {"enum": excluded}}]
    properties = {name: items[i] for i, name in enumerate(("a", "b"))}
    check({"type": "object", "properties": properties, "required": ["a", "b"]}, style, 9)
