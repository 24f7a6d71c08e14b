"""What a request may not say about its place in the queue."""

from __future__ import annotations

from typing import Any

import pytest

from sgl_like.errors import RequestError
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 1.5},
        {"priority": True},
        {"deadline": 0},
        {"deadline": -1.0},
        {"deadline": float("nan")},
        {"deadline": float("inf")},
        {"deadline": "soon"},
        {"namespace": None},
    ],
)
def test_scheduling_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(fields))):
        GenerateRequest([1], SamplingParams(), **fields)


def test_scheduling_fields_have_defaults() -> None:
    request = GenerateRequest([1], SamplingParams())
    assert (request.priority, request.deadline, request.namespace) == (0, None, "")
