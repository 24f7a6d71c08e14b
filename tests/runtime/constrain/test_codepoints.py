"""Character sets: UTF-8 against Python's encoder, cases against ``re``."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.codepoints import (
    ALL,
    Ranges,
    complement,
    intersect,
    matching,
    normalize,
    other_cases,
    utf8,
)
from sgl_like.runtime.constrain.derive import matches
from sgl_like.runtime.constrain.expr import EMPTY, Pool

EDGES = [
    0,
    0x7F,
    0x80,
    0x7FF,
    0x800,
    0xFFF,
    0x1000,
    0xD7FF,
    0xE000,
    0xFFFF,
    0x10000,
    0x3FFFF,
    0x40000,
    0x10FFFF,
]
CODES = st.one_of(st.sampled_from(EDGES), st.integers(0, 0x10FFFF))
RANGES = st.lists(st.tuples(CODES, CODES).map(lambda r: (min(r), max(r))), max_size=4).map(normalize)


def _has(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


@settings(max_examples=150)
@given(RANGES, st.lists(CODES, max_size=8))
def test_utf8_is_exact(ranges: Ranges, codes: list[int]) -> None:
    pool = Pool(Limits())
    node = utf8(pool, ranges)
    edges = [code + d for r in ranges for code in r for d in (-1, 0, 1)]
    for code in [*codes, *EDGES, *edges]:
        if 0 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            assert matches(pool, node, chr(code).encode()) == _has(ranges, code)
    assert not matches(pool, node, b"\xed\xa0\x80")  # a surrogate
    assert not matches(pool, node, b"\xc0\x80")  # too long a form
    assert not matches(pool, node, b"")


@given(RANGES, RANGES)
def test_sets(a: Ranges, b: Ranges) -> None:
    assert complement(complement(a)) == a
    assert intersect(a, complement(a)) == ()
    assert normalize([*a, *complement(a)]) == ALL
    both = intersect(a, b)
    assert both == intersect(b, a) == complement(normalize([*complement(a), *complement(b)]))
    assert utf8(Pool(Limits()), ()) is EMPTY


@pytest.mark.parametrize("source", [r"\d", r"\w", r"\s", r"\W", "[a-f]"])
@pytest.mark.parametrize("flags", [0, re.ASCII])
def test_classes_are_those_of_re(source: str, flags: int) -> None:
    ranges = matching(source, flags)
    for code in [*range(0x3100), *range(0xFF00, 0x10400), 0x1D7CE, 0x10FFFF]:
        if not 0xD800 <= code <= 0xDFFF:
            assert _has(ranges, code) == bool(re.fullmatch(source, chr(code), flags))


@pytest.mark.parametrize(
    "low,high", [("a", "a"), ("k", "k"), ("ß", "ß"), ("İ", "İ"), ("Α", "ω"), ("A", "z"), ("가", "각")]
)
@pytest.mark.parametrize("flags", [0, int(re.ASCII)])
def test_cases_are_those_of_re(low: str, high: str, flags: int) -> None:
    own = ((ord(low), ord(high)),)
    expected = matching(f"[{re.escape(low)}-{re.escape(high)}]", flags | int(re.IGNORECASE))
    assert normalize([*own, *other_cases(own, flags)]) == expected
