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
        ({"frequency_penalty": 2.5}, "frequency_penalty must be between -2 and 2, not 2.5"),
        ({"presence_penalty": "1"}, "presence_penalty must be a finite number, not '1'"),
        ({"repetition_penalty": 0}, "repetition_penalty must be between 1e-06 and 2, not 0"),
        ({"repetition_penalty": 1e-320}, "repetition_penalty must be between 1e-06 and 2, not 1e-320"),
        ({"repetition_penalty": 3}, "repetition_penalty must be between 1e-06 and 2, not 3"),
        ({"logit_bias": [1]}, r"logit_bias must be a dict from token id to bias, not \[1\]"),
        ({"logit_bias": {"x": 1}}, "logit_bias: 'x' is not a token id"),
        ({"logit_bias": {-1: 1}}, "logit_bias: -1 is not a token id"),
        ({"logit_bias": {True: 1}}, "logit_bias: True is not a token id"),
        ({"logit_bias": {"7": 101}}, r"logit_bias\[7\] must be between -100 and 100, not 101"),
        ({"logit_bias": {"7": 1, 7: 1}}, "logit_bias: token 7 is there twice"),
        ({"logit_bias": dict.fromkeys(range(1025), 1)}, "logit_bias: at most 1024 tokens, not 1025"),
        ({"min_new_tokens": -1}, "min_new_tokens must be at least 0, not -1"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_new_tokens must be at most max_new_tokens=8, not 9"),
        ({"bad_words": [3]}, "bad_words must be a non-empty string or a list of them, not 3"),
        ({"bad_words": ["x"] * 129}, "bad_words: at most 128 strings, not 129"),
        ({"stop_regex": 5}, "stop_regex must be a string or a list of strings, not 5"),
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"n": 65}, "n must be at most 64, not 65"),
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


def test_logit_bias_is_a_value() -> None:
    given, pairs = SamplingParams.from_dict({"logit_bias": {"7": 1, 3: -2.5}}), ((3, -2.5), (7, 1.0))
    assert given.logit_bias == pairs and given == SamplingParams(logit_bias=pairs)
    assert hash(given) == hash(SamplingParams(logit_bias=pairs))


def test_copies_draw_their_own_numbers() -> None:
    params = SamplingParams(n=3, seed=5)
    seeds = [params.for_copy(i).seed for i in range(3)]
    assert seeds[0] == 5 and len(set(seeds)) == 3 and params.for_copy(2).n == 1
    assert SamplingParams(n=2).for_copy(1).seed is None
