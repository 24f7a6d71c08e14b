"""Conjunctions of texts: the same strings as brute force finds, and no product where none is needed."""

from __future__ import annotations

import json
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.expr import EMPTY, Both, Node, Pool
from sgl_like.runtime.constrain.fragments import clip
from sgl_like.runtime.constrain.json_strings import Strings
from sgl_like.runtime.constrain.lengths import meet
from sgl_like.runtime.constrain.pushdown.compile import JsonCompiler
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.vocabulary import Vocabulary

ALPHABET = 'ab"é\n한'
TEXTS = ["".join(chars) for size in range(5) for chars in product(ALPHABET, repeat=size)]

atoms = st.sampled_from(
    ["a", "b", "[ab]", "[^a]", ".", "é", "[é한]", '"', "[\\s\\S]", "ab", "(?:é|ab)", "(?:aé)?"]
)
counted = st.tuples(atoms, st.sampled_from(["", "*", "+", "?", "{2}", "{1,3}", "{2,}"])).map(
    lambda pair: f"(?:{pair[0]}){pair[1]}"
)
patterns = st.lists(counted, min_size=1, max_size=3).map("".join)
lengths = st.tuples(st.integers(0, 4), st.none() | st.integers(0, 4))


def text_of(node: Node, text: str) -> bool:
    return derive.matches(POOL, node, json_of(text))


def json_of(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


POOL = Pool(Limits())
STRINGS = Strings(POOL)


@given(patterns, lengths, st.booleans())
def test_patterns_with_lengths(pattern: str, length: tuple[int, int | None], anchored: bool) -> None:
    POOL.start_work()
    pattern = f"^(?:{pattern})$" if anchored else pattern
    low, high = length
    schema = {"pattern": pattern, "minLength": low} | ({} if high is None else {"maxLength": high})
    node = STRINGS.from_schema(schema, "")
    expected = [
        text
        for text in TEXTS
        if low <= len(text) <= (9 if high is None else high)
        and (re.fullmatch(pattern[1:-1], text) if anchored else re.search(pattern, text))
    ]
    assert [text for text in TEXTS if text_of(node, text)] == expected
    if expected:
        assert node is not EMPTY


texts = st.one_of(
    lengths.map(
        lambda length: {"minLength": length[0]} | ({} if length[1] is None else {"maxLength": length[1]})
    ),
    patterns.map(lambda pattern: {"pattern": pattern}),
    st.lists(st.sampled_from(TEXTS[:60]), min_size=1, max_size=4).map(lambda some: {"enum": some}),
)


def node_of(schema: dict[str, object], one_spelling: bool) -> Node:
    if "enum" in schema:
        assert isinstance(schema["enum"], list)
        return POOL.strings(json.dumps(text, ensure_ascii=False).encode() for text in schema["enum"])
    return STRINGS.from_schema(schema, "", one_spelling)


@given(st.lists(st.tuples(texts, st.booleans()), min_size=1, max_size=3), st.lists(texts, max_size=2))
def test_meet_is_the_conjunction(
    positive: list[tuple[dict[str, object], bool]], negative: list[dict[str, object]]
) -> None:
    POOL.start_work()
    wanted = [node_of(schema, plain) for schema, plain in positive]
    wanted += [STRINGS.from_schema({}, "", one_spelling=True)] if negative else []
    unwanted = [node_of(schema, False) for schema in negative]
    found = meet(POOL, wanted, unwanted)
    both = derive.conjoin(POOL, wanted, unwanted)
    assert (found is EMPTY) == (both is EMPTY)
    for text in TEXTS[:400]:
        assert text_of(found, text) == text_of(both, text), text


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^[a-z][a-z0-9-]*$", "maxLength": 63},
        {"pattern": "^.*$", "minLength": 2, "maxLength": 9},
        {"pattern": "^\\d{3}-[é-ü]+$", "maxLength": 40},
        {"pattern": "^(ab|c.*)$", "maxLength": 40},
        {"pattern": "^[a-z]+(-[a-z]+)*$", "minLength": 1},
    ],
)
def test_no_product_where_none_is_needed(schema: dict[str, object]) -> None:
    def nodes(node: Node) -> list[Node]:
        parts = [getattr(node, name) for name in ("head", "tail", "item") if hasattr(node, name)]
        return [node, *(each for part in [*parts, *getattr(node, "items", ())] for each in nodes(part))]

    assert not any(isinstance(each, Both) for each in nodes(STRINGS.from_schema(schema, "")))


def test_too_long_a_string_is_not_one_search() -> None:
    schema = {"not": {"type": "string", "maxLength": 100_000}, "type": "string"}
    tokens = [b'"', b"a", b'""']
    machine = JsonCompiler(Vocabulary([*tokens, None], [3])).compile(schema, Style()).grammar()
    assert [i for i in range(3) if machine.machine.step(machine.start, i) is not None] == [0]


@pytest.mark.parametrize("longest", range(4, 11))
def test_a_token_leaves_room_for_what_has_to_come(longest: int) -> None:
    tokens = [b'"', b"a", b"b", b"aa", b"aaaa", b"aaaaaa"]
    schema = {"type": "string", "pattern": "^a*(?:b{4}|a+b{4}c?)$", "maxLength": longest}
    grammar = JsonCompiler(Vocabulary([*tokens, None], [6])).compile(schema, Style()).grammar()
    machine, stack = grammar.machine, grammar.machine.step(grammar.start, 0)
    for _ in range(longest):
        assert stack is not None
        mask = np.zeros(machine.vocabulary.words, dtype=np.int32)
        machine.fill(stack, mask)
        allowed = [token for token in range(len(tokens)) if mask[0] >> token & 1]
        assert allowed == [token for token in range(len(tokens)) if machine.step(stack, token) is not None]
        stack = machine.step(stack, 1) or machine.step(stack, 2)


@pytest.mark.parametrize("pattern", ["b", "a.*b", "[ab]$", "^a.*é"])
def test_a_conjunction_that_is_clipped_keeps_its_patterns(pattern: str) -> None:
    """A pattern may begin like a text of any length, ``.*``, and is more than that."""
    POOL.start_work()
    ((_, wanted),), ((_, unwanted),) = (  # what comes after the quote
        derive.edges(POOL, STRINGS.from_schema({"pattern": each}, "")) for each in (pattern, "한")
    )
    length = POOL.concat(POOL.repeat(POOL.characters[0], 2, 4), POOL.strings([b'"']))
    for positive in ([wanted, length], [length, wanted]):
        node = derive.conjoin(POOL, positive, [unwanted])
        assert isinstance(node, Both)
        for size in (1, 3, 50):
            clipped = clip(POOL, node, size)
            read = [text for text in TEXTS if derive.matches(POOL, clipped, json_of(text)[1:])]
            assert all(re.search(pattern, text) for text in read)
