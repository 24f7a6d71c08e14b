"""Multiples of floats against the test that `jsonschema` makes, one number after the other."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.derive import edges, matches, shortest
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool
from sgl_like.runtime.constrain.float_multiples import DIGITS, FloatMultiples, start_of

DIVISORS = st.one_of(
    st.sampled_from([0.01, 0.1, 0.3, 0.07, 97.3, 0.0075, 1e-8, 123.456, 0.99, 1.1, 413.844, 1e-14, 1.3e-13]),
    st.integers(1, 10**6).map(lambda i: i / 1000),
    st.integers(1, 10**9).map(lambda i: i / 10**7),
)


def _family(divisor: float, low: int = 0, high: int | None = None, zeros: int = 4) -> FloatMultiples:
    exact = Fraction(repr(divisor))
    places = next(places for places in range(DIGITS) if (exact * 10**places).denominator == 1)
    most: int = 10 ** (DIGITS + places)
    return FloatMultiples(
        divisor, int(exact * 10**places), places, low, most if high is None else high, zeros
    )


def _plain(n: int, places: int) -> str:
    text = str(n).rjust(places + 1, "0")
    return f"{text[: len(text) - places]}.{text[len(text) - places :]}" if places else text


def _is_multiple(text: str, divisor: float) -> bool:
    exact = (Fraction(text) / Fraction(repr(divisor))).denominator == 1
    return exact and jsonschema.Draft202012Validator({"multipleOf": divisor}).is_valid(json.loads(text))


def _bytes(pool: Pool, node: Node) -> set[int]:
    return {byte for mask, _ in edges(pool, node) for byte in range(256) if mask >> byte & 1}


@settings(max_examples=400, deadline=None)
@given(DIVISORS, st.integers(0, 14), st.randoms(use_true_random=False))
def test_numbers_against_jsonschema(divisor: float, digits: int, rng: random.Random) -> None:
    """Multiples and their neighbours, of all sizes."""
    family = _family(divisor)
    pool = Pool(Limits())
    node = start_of(pool, family)
    size = 10 ** min(digits + family.places, DIGITS)
    for _ in range(20):
        n = rng.randrange(size) // family.modulus * family.modulus + rng.choice([0, 0, 0, 1])
        text = _plain(n, family.places)
        whole, _, rest = text.partition(".")
        if len(whole) + len(rest.rstrip("0")) > DIGITS:
            continue
        shown = text.rstrip("0").rstrip(".") if "." in text else text
        assert matches(pool, node, shown.encode()) == _is_multiple(shown, divisor), shown
        if rest and len(whole) + len(rest) <= DIGITS:
            assert matches(pool, node, text.encode()) == _is_multiple(shown, divisor), text


@settings(max_examples=300, deadline=None)
@given(DIVISORS, st.integers(0, 49), st.integers(1, 60), st.integers(0, 3), st.randoms(use_true_random=False))
def test_ranges_against_counting(
    divisor: float, bits: int, count: int, whole: int, rng: random.Random
) -> None:
    """What is found by arithmetic about many multiples is what each of them says."""
    family = _family(divisor)
    step = math.lcm(family.modulus, 10 ** (family.places - min(whole, family.places)))
    most = 10**DIGITS * 10 ** (family.places - min(whole, family.places)) // step
    first = max(1, min(rng.randrange(1 << bits, 2 << bits), most - count))
    if first + count > most:
        return
    fits = [family.has(step * i) for i in range(first, first + count)]
    assert family._any_far(first, first + count - 1, step) == any(fits)
    for i, fit in enumerate(fits[:8]):
        assert family._any_far(first + i, first + i, step) == fit
    gap = max(range(count), key=lambda i: next((j for j in range(i, count) if fits[j]), count) - i)
    stop = next((j for j in range(gap, count) if fits[j]), count)
    if stop > gap:
        assert not family._any_far(first + gap, first + stop - 1, step)
    assert family.has_any(step * first - rng.randrange(step), step * (first + count) - 1, step) == any(fits)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.01, 0.1, 0.3, 0.07, 1.1, 0.9, 2.7, 0.29]),
    st.integers(0, 150),
    st.integers(0, 1500),
    st.sampled_from([0, 1, 4]),
    st.integers(0, 2**32),
)
def test_prefixes_against_all_texts(divisor: float, low: int, span: int, zeros: int, seed: int) -> None:
    """Every prefix goes on with exactly the bytes that some text has there, and is as far from an end as it says."""
    family = _family(divisor, low, low + span, zeros)
    texts = set()
    for n in range(low, low + span + 1):
        text = _plain(n, family.places)
        short = text.rstrip("0")
        if _is_multiple(text, divisor):
            texts.update(text + "0" * more for more in range(zeros + 1))
            texts.update(text[:size] for size in range(max(len(short), text.index(".") + 2), len(text)))
            if short.endswith("."):
                texts.add(short[:-1])
    pool, rng = Pool(Limits()), random.Random(seed)
    node = start_of(pool, family)
    assert (node is EMPTY) == (not texts)
    for _ in range(3):
        at, path = node, ""
        while at is not EMPTY:
            after = {ord(text[len(path)]) for text in texts if text.startswith(path) and text != path}
            assert _bytes(pool, at) == after, path
            assert at.nullable == (path in texts), path
            least = min(len(text) for text in texts if text.startswith(path)) - len(path)
            assert at.min_len <= least == len(shortest(pool, at)), path
            if not after:
                break
            byte = rng.choice(sorted(after))
            path += chr(byte)
            at = next(target for mask, target in edges(pool, at) if mask >> byte & 1)


@pytest.mark.parametrize("divisor", [0.01, 0.3, 1.1, 97.3, 1e-8])
def test_no_prefix_of_a_long_number_leads_nowhere(divisor: float) -> None:
    family, pool = _family(divisor, low=10**9), Pool(Limits())
    for seed in range(20):
        rng, node, path = random.Random(seed), start_of(pool, family), ""
        while not (node.nullable and rng.random() < 0.2) and edges(pool, node):
            mask, node = rng.choice(edges(pool, node))
            path += chr(mask.bit_length() - 1)
        path += shortest(pool, node).decode()
        assert _is_multiple(path, divisor), path


def test_integers_without_decimals() -> None:
    pool = Pool(Limits())
    node = start_of(pool, FloatMultiples(97.3, 973, 0, 0, 10**6, 0))
    assert matches(pool, node, b"973") and matches(pool, node, b"0")
    assert not any(matches(pool, node, text) for text in (b"973.0", b"97", b"0.0", b"0973", b"1946000"))
