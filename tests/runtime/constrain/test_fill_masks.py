"""Masks of a whole batch in one call equal those filled one by one, whatever wrote them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.matcher import fill_masks
from sgl_like.runtime.constrain.vocabulary import Vocabulary

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "n": {"maxLength": 3}},
    "minProperties": 1,
}


def matchers(count: int) -> list[Matcher | None]:
    """Matchers of several kinds in random places, and rows without one."""
    chance = random.Random(5)
    compiler = GrammarCompiler(Vocabulary([bytes([b]) for b in range(256)] + [b'{"name":"', None], [257]))
    grammars = [compiler.compile_json_schema(SCHEMA), compiler.compile_regex("(ab|c){1,9}")]
    made: list[Matcher | None] = []
    for i in range(count):
        if i % 5 == 4:
            made.append(None)
            continue
        found: Matcher = grammars[i % 2].matcher()
        for _ in range(chance.randrange(12)):
            mask = np.zeros((1, 9), np.int32)
            found.fill_mask(mask, 0)
            allowed = [t for t in range(258) if int(mask[0, t >> 5]) >> (t & 31) & 1]
            assert found.accept_token(chance.choice(allowed))
            if found.is_terminated:
                break
        made.append(found)
    return made


@pytest.mark.parametrize("count", [0, 1, 23])
def test_one_call_equals_many(count: int) -> None:
    made = matchers(count)
    one, many = np.full((count, 9), 7, np.int32), np.full((count, 9), -1, np.int32)
    for row, matcher in enumerate(made):
        if matcher is not None:
            matcher.fill_mask(many, row)
    fill_masks(made, one)
    assert np.array_equal(one, many)


def test_a_matcher_that_cannot_go_on_says_so() -> None:
    stuck = GrammarCompiler(Vocabulary([b"a", None], [1])).compile_regex("b").matcher()
    with pytest.raises(ConstraintError):
        fill_masks([None, stuck], np.full((2, 1), 7, np.int32))
