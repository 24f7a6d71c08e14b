"""Masks of a whole batch in one call equal those filled one by one, whatever wrote them."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain import batch
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.batch import fill_masks
from sgl_like.runtime.constrain.compiler import GrammarCompiler
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
    out = np.full((2, 1), 7, np.int32)
    with pytest.raises(ConstraintError):
        fill_masks([None, stuck], out)
    assert (out == 7).all()


class Slow:
    """A matcher that says when it is asked, and by which thread, and waits until enough of them are."""

    def __init__(self, matcher: Matcher, barrier: threading.Barrier, asked: list[int]) -> None:
        self._matcher, self._barrier, self._asked = matcher, barrier, asked

    @property
    def learns_with(self) -> object:
        return self

    def mask_parts(self) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        self._asked.append(threading.get_ident())
        self._barrier.wait(60)
        return self._matcher.mask_parts()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads help after the first row."""
    monkeypatch.setattr(batch, "_ALONE", 0.0)


@pytest.mark.usefixtures("impatient")
def test_threads_find_masks_side_by_side() -> None:
    made = [each for each in matchers(6) if each is not None]
    asked: list[int] = []
    together = threading.Barrier(3)
    slow = [Slow(each, together, asked) for each in made[:3]]
    one, many = np.zeros((4, 9), np.int32), np.zeros((4, 9), np.int32)
    fill_masks(made[:1] + made[:3], many, threads=1)
    fill_masks(cast("list[Matcher]", [made[0], *slow]), one, threads=3)
    assert np.array_equal(one, many)
    assert len(set(asked)) == 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("threads", [None, 1, 2, 5])
def test_threads_give_the_same_masks(threads: int | None) -> None:
    for seed in range(20):
        chance = random.Random(seed)
        compiler = GrammarCompiler(Vocabulary([bytes([b]) for b in range(256)] + [b"ab", b"ca", None], [258]))
        made: list[Matcher | None] = [
            compiler.compile_regex(f"[{chance.choice('abc')}x]{{{n}}}(ab|c){{1,9}}").matcher()
            for n in range(7)
        ]
        made += [compiler.compile_json_schema({"maxLength": n}).matcher() for n in range(3)]
        made = [chance.choice([*made, None]) for _ in range(20)]  # the same matcher may come again
        one, many = np.zeros((20, 9), np.int32), np.full((20, 9), -1, np.int32)
        fill_masks(made, one, threads)
        for row, matcher in enumerate(made):
            if matcher is not None:
                matcher.fill_mask(many, row)
        assert np.array_equal(one, many)


@pytest.mark.usefixtures("impatient")
def test_the_first_matcher_that_cannot_go_on_is_the_error() -> None:
    compiler = GrammarCompiler(Vocabulary([b"a", b"c", None], [2]))
    made = [
        compiler.compile_regex(pattern).matcher() for pattern in ("a", "c", "a*", "b", "(?:x|bb)", "ac", "bc")
    ]
    for _ in range(20):
        out = np.full((7, 1), 7, np.int32)
        with pytest.raises(ConstraintError, match="no token"):
            fill_masks(made, out, threads=4)
        assert (out == 7).all()


@pytest.mark.usefixtures("impatient")
def test_many_callers_at_once() -> None:
    made = matchers(40)
    expected = np.zeros((40, 9), np.int32)
    fill_masks(made, expected, threads=1)

    def fill(_: int) -> NDArray[np.int32]:
        out = np.zeros((40, 9), np.int32)
        fill_masks(matchers(40), out, threads=3)
        return out

    with ThreadPoolExecutor(6) as callers:
        assert all(np.array_equal(out, expected) for out in callers.map(fill, range(24)))
