"""Regexes as GBNF: the same texts, by our own reader of grammars."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError
from sgl_like.frontend.backend.remote.gbnf import choices_to_gbnf, regex_to_gbnf
from sgl_like.frontend.outputs.dtypes import REGEX_BOOL, REGEX_FLOAT, REGEX_INT, REGEX_STR
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.derive import matches
from sgl_like.runtime.constrain.expr import Pool
from sgl_like.runtime.constrain.gbnf import gbnf_to_expr
from tests.support.constrain_naive import CHARACTERS, NaiveRegex, naive_regexes


def accepts(grammar: str, texts: list[str]) -> list[bool]:
    pool = Pool(Limits())
    node = gbnf_to_expr(pool, grammar)
    return [matches(pool, node, text.encode()) for text in texts]


TEXTS = st.lists(st.text([*CHARACTERS, "x", "가"], max_size=6), max_size=12)


@given(naive_regexes(negated=True), TEXTS)
def test_random_regexes(naive: NaiveRegex, texts: list[str]) -> None:
    expected = [re.fullmatch(naive.source, text) is not None for text in texts]
    assert accepts(regex_to_gbnf(naive.source), texts) == expected


SAMPLES = [
    "",
    "a",
    "A",
    "-12",
    "+3 ",
    "4.5",
    "True",
    '"a\\"b"',
    "x\n",
    "a-b]",
    "é",
    "2026-11-29",
    "\x07\\",
    "aa bb",
    "ſ",
]


@pytest.mark.parametrize(
    "pattern",
    [
        REGEX_BOOL, REGEX_FLOAT, REGEX_INT, REGEX_STR, r"(?i)a|tRUE", r"[^a]", r".", r"(?s).", r"^a$", r"\A(?:a|b)\Z",
        r"[\]a\-b]+", r"\d{4}-\d{2}-\d{2}", r"\w+\s?\w*", r"\W", r"[^\w]", r"\x07\\", r"", r"a{2} b{1,}", r"(?i)s",
    ],
)  # fmt: skip
def test_regexes_by_example(pattern: str) -> None:
    expected = [re.fullmatch(pattern, text) is not None for text in SAMPLES]
    found = accepts(regex_to_gbnf(pattern), SAMPLES)
    wide = [text for text, mine, its in zip(SAMPLES, found, expected, strict=True) if mine and not its]
    narrow = [text for text, mine, its in zip(SAMPLES, found, expected, strict=True) if its and not mine]
    assert wide == [] and all(not text.isascii() for text in narrow)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True), st.text(max_size=5))
def test_choices(choices: list[str], other: str) -> None:
    texts = [*choices, other]
    assert accepts(choices_to_gbnf(tuple(choices)), texts) == [text in choices for text in texts]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?=a)a", "assert cannot be said in GBNF; use ebnf or json_schema"),
        (r"\bword", "an anchor inside it"),
        (r"(a)\1", "a back reference"),
        ("(", "missing \\)"),
    ],
)
def test_what_gbnf_cannot_say(pattern: str, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        regex_to_gbnf(pattern)
