"""Sampling parameters say what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from sgl_like.errors import SamplingParamsError
from sgl_like.runtime.sampling_params import SamplingParams


@pytest.mark.parametrize(
    "values, message",
    [
        ({"temprature": 1}, "unknown sampling parameter 'temprature'; did you mean 'temperature'?"),
        ({"max_tokens": 3, "max_new_tokens": 4}, "'max_new_tokens' is given twice"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, not -1"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be an integer, not 1.5"),
        ({"max_new_tokens": True}, "max_new_tokens must be an integer, not True"),
        ({"temperature": float("nan")}, "temperature must be a finite number, not nan"),
        ({"temperature": -0.1}, "temperature must be at least 0, not -0.1"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], not 0"),
        ({"top_p": 1.1}, "top_p must be between 0 and 1, not 1.1"),
        ({"top_k": 0}, r"top_k must be -1 \(off\) or at least 1"),
        ({"min_p": 2}, "min_p must be between 0 and 1"),
        ({"seed": "x"}, "seed must be an integer"),
        ({"stop": [""]}, "stop must be a non-empty string"),
        ({"stop": ["x"] * 17}, "stop: at most 16 strings, not 17"),
        ({"stop": "x" * 2000}, "more than 1024 bytes"),
        ({"stop_token_ids": [-1]}, "stop_token_ids entry must be at least 0"),
        ({"regex": 3}, "regex must be a string, not int"),
        ({"ebnf": 3}, "ebnf must be a string, not int"),
        ({"regex": "a", "json_schema": "{}"}, "regex and json_schema cannot be given together"),
        ({"ebnf": "a", "structural_tag": {}}, "ebnf and structural_tag cannot be given together"),
        ({"structural_tag": 3}, "structural_tag must be JSON text or a dict, not int"),
        ({"json_schema": 3}, "json_schema must be JSON text or a dict, not int"),
        ({"json_schema": {"enum": [object()]}}, "json_schema cannot be written as JSON"),
        ({"ignore_eos": 1}, "ignore_eos must be True or False, not 1"),
        ({"property_order": "x"}, "property_order must be"),
        ({"whitespace": "x"}, 'whitespace must be "compact" or "any"'),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplingParamsError, match=message):
        SamplingParams.from_dict(values)


def test_friendly_forms() -> None:
    params = SamplingParams.from_dict(
        {"max_tokens": 5, "stop": "x", "stop_token_ids": 3, "json_schema": {"type": "null"}, "top_k": None}
    )
    assert (params.max_new_tokens, params.stop, params.stop_token_ids, params.top_k) == (5, ("x",), (3,), -1)
    assert params.json_schema == '{"type": "null"}' and params.is_constrained and not params.is_greedy
    assert hash(params) == hash(
        SamplingParams.from_dict(
            {**{"max_new_tokens": 5, "stop": ["x"]}, "stop_token_ids": [3], "json_schema": '{"type": "null"}'}
        )
    )
