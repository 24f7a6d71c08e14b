"""Outputs and errors as JSON, and back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like import errors
from sgl_like.errors import RequestError, SglError
from sgl_like.frontend.backend.events import (
    call_key,
    error_from_json,
    error_to_json,
    joined,
    output_from_json,
    output_to_json,
)
from sgl_like.runtime.logprobs import PlaceLogprobs
from sgl_like.runtime.protocol import FinishReason, Output, Usage

LOGPROBS = st.one_of(st.none(), st.floats(max_value=0, allow_nan=False), st.just(-math.inf))
ENTRIES = st.tuples(LOGPROBS, st.integers(-1, 9), st.one_of(st.none(), st.text(max_size=3)))
PLACES = st.builds(
    PlaceLogprobs, ENTRIES, st.lists(ENTRIES, max_size=2).map(tuple), st.lists(ENTRIES, max_size=1).map(tuple)
)
FINISHES = st.builds(
    FinishReason, st.sampled_from(["stop", "length"]), st.one_of(st.none(), st.integers(0, 9), st.text())
)


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    ids = tuple(draw(st.lists(st.integers(0, 99), max_size=4)))
    forced = tuple(sorted(draw(st.sets(st.integers(0, len(ids) - 1))))) if ids else ()
    text = draw(st.one_of(st.text(), st.just("\ud800")))
    places = st.lists(PLACES, max_size=2).map(tuple)
    usage = Usage(*draw(st.tuples(*[st.integers(0, 9)] * 3)))
    scores = draw(st.one_of(st.none(), st.just(((-1.0, -2.5), (-0.5,)))))
    return Output("r", text, ids, draw(FINISHES), None, usage, scores, draw(places), draw(places), forced)


@given(outputs())
def test_outputs_come_back(output: Output) -> None:
    assert output_from_json(json.loads(json.dumps(output_to_json(output))), "r") == output


@given(st.lists(outputs(), min_size=1, max_size=4))
def test_joined_events(events: list[Output]) -> None:
    whole = joined(events)
    assert whole.text == "".join(event.text for event in events) and whole.finish == events[-1].finish
    flags = [place in event.forced for event in events for place in range(len(event.token_ids))]
    assert [place in whole.forced for place in range(len(whole.token_ids))] == flags


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_comes_back(name: str) -> None:
    kind = getattr(errors, name)
    error = kind("uniqueItems", "/a", "is odd") if name == "UnsupportedSchemaError" else kind.__new__(kind)
    if name != "UnsupportedSchemaError":
        Exception.__init__(error, "what went wrong")
        vars(error)["status"] = 5
    back = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(back) is kind and str(back) == str(error) and vars(back) == vars(error)


def test_an_error_that_is_not_known_here() -> None:
    class Odd(SglError):
        pass

    assert type(error_from_json(error_to_json(Odd("x")))) is errors.EngineError
    assert type(error_from_json({"type": "annotations", "message": "x"})) is errors.EngineError


def test_keys() -> None:
    assert call_key((1, 2), {"b": 1, "a": (1,), "c": None}) == call_key([1, 2], {"a": [1], "b": 1})
    one, other = ({"json_schema": {"properties": names}} for names in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert call_key([1], one) != call_key([1], other)
    with pytest.raises(RequestError, match="cannot be written as JSON"):
        call_key([1], {"a": object()})
