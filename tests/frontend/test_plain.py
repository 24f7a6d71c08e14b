"""Plain data: to JSON and back, and told apart."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.frontend.batches.plain import NotPlainError, decode, digest, encode

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = SCALARS | st.sampled_from(["$tuple", "$dict", "$float", "$"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    return bool(a == b)


@given(VALUES)
def test_everything_comes_back_as_it_was(value: Any) -> None:
    text = json.dumps(encode(value), allow_nan=False)
    assert same(decode(json.loads(text)), value)


def test_what_is_refused() -> None:
    for value in (object(), {1, 2}, b"x", [1, {"a": lambda: 0}], datetime.date(2026, 1, 1)):
        with pytest.raises(NotPlainError, match="is no plain data"):
            encode(value)
    assert math.isnan(decode(encode(math.nan)))


class Colour(enum.Enum):
    red = 1
    blue = 2


class Level(enum.IntEnum):
    low = 1


@dataclasses.dataclass
class Point:
    x: int
    tags: frozenset[str] = frozenset()


class Order(pydantic.BaseModel):
    item: str


DIFFERENT: list[Any] = [
    None, True, 1, 1.5, "1", "", [], [1], [[1]], {}, {"1": 1}, {1: 1}, {"a": None}, {"a": {}}, b"", b"1",
    Colour.red, Colour.blue, Level.low, Point(1), Point(2), Point(1, frozenset({"a", "b"})), Order(item="x"),
    Order(item="y"), datetime.date(2026, 1, 1), Path("a"), {"1"},
]  # fmt: skip


def test_a_digest_tells_values_apart() -> None:
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)
    assert digest((1, 2)) == digest([1, 2]), "a row is the same as a tuple or as a list"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(NotPlainError, match="object is no plain data"):
        digest([object()])


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from tests.frontend.test_plain import *; print([digest(value) for value in DIFFERENT])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr([digest(value) for value in DIFFERENT])
