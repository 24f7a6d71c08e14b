"""Limits of requests, before any engine hears of them."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.constraints import Constraint, constraint_params
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call, Tenant
from sgl_like.runtime.server.limits import Limits
from sgl_like.runtime.server.sampling import make_params, make_requests
from sgl_like.runtime.server.server import Server
from tests.support.servers import shared_engine

LIMITS = Limits()
VOCAB = 4096


@pytest.fixture(scope="module")
def call() -> Call:
    server = Server(ServerConfig(), LocalEngine(shared_engine()))
    return Call(server, cast("Any", None), tenant=Tenant("a", "salt"))


def refused(values: dict[str, Any], names: dict[str, str] | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        make_params(values, LIMITS, VOCAB, names)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("values", "param", "message"),
    [
        ({"n": 65}, "n", "between 1 and 64"),
        ({"n": 10**18}, "n", "between 1 and 64"),
        ({"n": True}, "n", "between 1 and 64"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": "x" * 257}, "stop", "at most 256 bytes"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"stop_regex": ["x"] * 5}, "stop_regex", "at most 4"),
        ({"bad_words": ["x"] * 129}, "bad_words", "at most 128"),
        ({"logit_bias": {str(i): 0 for i in range(1025)}}, "logit_bias", "at most 1024"),
        ({"logit_bias": {"4096": 1}}, "logit_bias", "below 4096"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "below 4096"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias", "between -100 and 100"),
        ({"logit_bias": {"1": float("inf")}}, "logit_bias", "between -100 and 100"),
        ({"stop_token_ids": [4096]}, "stop_token_ids", "below 4096"),
        ({"stop_token_ids": [True]}, "stop_token_ids", "below 4096"),
        ({"seed": 2**63}, "seed", "64 bits"),
        ({"top_p": 1.5}, "top_p", "between 0 and 1"),
        ({"temperature": -1}, "temperature", "at least 0"),
    ],
)
def test_what_is_over_a_limit_is_refused_by_name(values: dict[str, Any], param: str, message: str) -> None:
    error = refused(values)
    assert error.param == param
    assert message in error.message


def test_errors_use_the_names_that_the_client_used() -> None:
    names = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "stop": "stop_sequences"}
    error = refused({"max_new_tokens": 3, "min_new_tokens": 4}, names)
    assert error.message == "min_tokens must be at most max_tokens=3, not 4"
    assert error.param == "min_tokens"
    assert refused({"stop": ""}, names).param == "stop_sequences"


def test_none_is_the_default() -> None:
    params = make_params({"temperature": None, "top_k": 5, "logit_bias": {"7": 3}}, LIMITS, VOCAB)
    assert (params.temperature, params.top_k, params.logit_bias) == (1.0, 5, ((7, 3.0),))


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Constraint("json", "json_schema", nested(65)), "at most 64 levels"),
        (Constraint("json", "json_schema", {"enum": list(range(10_000))}), "at most 10000 values"),
        (Constraint("json", "json_schema", {"const": "x" * 65_536}), "at most 65536 bytes"),
        (Constraint("json", "json_schema", "{"), "not JSON"),
        (Constraint("json", "json_schema", "[]"), "JSON object"),
        (Constraint("json", "structural_tag", [1]), "JSON object"),
        (Constraint("json", "regex", "a" * 4097), "at most 4096 bytes"),
        (Constraint("json", "regex", "(" * 201 + ")" * 201), "at most 200 levels"),
        (Constraint("json", "regex", ""), "empty"),
        (Constraint("json", "regex", 3), "string"),
        (Constraint("json", "ebnf", "root ::= " + "(" * 201), "at most 200 levels"),
        (Constraint("json", "choice", []), "non-empty list"),
        (Constraint("json", "choice", "ab"), "non-empty list"),
        (Constraint("json", "choice", [str(i) for i in range(257)]), "at most 256 choices"),
        (Constraint("json", "choice", ["x" * 1025]), "at most 1024 bytes"),
    ],
)
def test_constraints_have_limits(constraint: Constraint, message: str) -> None:
    with pytest.raises(ApiError, match=re.escape(message)) as caught:
        constraint_params([constraint], LIMITS)
    assert caught.value.status == 400
    assert caught.value.param is not None
    assert caught.value.param.startswith("json")


def test_constraints_within_the_limits_are_parameters() -> None:
    assert constraint_params([Constraint("a", "json_schema", nested(64))], LIMITS).keys() == {"json_schema"}
    assert constraint_params([Constraint("a", "ebnf", 'root ::= "' + "(" * 300 + '"')], LIMITS)
    regex = constraint_params([Constraint("a", "choice", ["a.b", "c|d", "c|d"])], LIMITS)["regex"]
    assert [re.fullmatch(regex, text) is not None for text in ("a.b", "c|d", "axb", "c")] == [
        True,
        True,
        False,
        False,
    ]
    assert constraint_params([], LIMITS) == {}


def test_there_is_at_most_one_constraint() -> None:
    two = [Constraint("regex", "regex", "a"), Constraint("response_format", "json_schema", {})]
    with pytest.raises(ApiError, match="regex and response_format cannot be given together"):
        constraint_params(two, LIMITS)


def test_each_prompt_has_its_outputs_one_after_the_other(call: Call) -> None:
    params = make_params({"n": 2, "seed": 3, "max_new_tokens": 4}, LIMITS, VOCAB)
    requests = make_requests(call, [[1], [2, 3]], params, priority=5, cache_salt="x")
    assert [list(request.input_ids) for request in requests] == [[1], [1], [2, 3], [2, 3]]
    assert requests[0].params.seed == 3
    assert requests[1].params.seed == requests[3].params.seed != 3
    assert {request.params.n for request in requests} == {1}
    assert {request.priority for request in requests} == {5}
    assert {request.namespace for request in requests} == {call.namespace("x")}
    assert {request.deadline for request in requests} == {LIMITS.run_seconds}
    assert len({request.rid for request in requests}) == 4


@pytest.mark.parametrize("ids", [[-1], [VOCAB], [0, 2**40], []])
def test_ids_are_in_range(call: Call, ids: list[int]) -> None:
    with pytest.raises(ApiError) as caught:
        make_requests(call, [ids], make_params({}, LIMITS, VOCAB))
    assert (caught.value.status, caught.value.param) == (400, "prompt")


def test_a_call_has_limited_outputs(call: Call) -> None:
    params = make_params({"n": 64}, LIMITS, VOCAB)
    assert len(make_requests(call, [[1]] * 4, params)) == 256
    with pytest.raises(ApiError, match="256 outputs"):
        make_requests(call, [[1]] * 5, params)
    with pytest.raises(ApiError, match="at most 128"):
        make_requests(call, [[1]] * 129, make_params({}, LIMITS, VOCAB))


def test_the_context_has_room_or_not(call: Call) -> None:
    most = call.server.info.context_length
    prompt = [5] * (most - 10)
    fits, more = (make_params({"max_new_tokens": size}, LIMITS, VOCAB) for size in (10, 11))
    assert make_requests(call, [prompt], fits)[0].params.max_new_tokens == 10
    with pytest.raises(ApiError) as caught:
        make_requests(call, [prompt], more, param="messages")
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    assert f"you requested {most + 1} tokens ({most - 10} in the messages, 11 in" in caught.value.message
    assert make_requests(call, [prompt], more, room="cut")[0].params.max_new_tokens == 10
    assert make_requests(call, [prompt], fits, room="fill")[0].params.max_new_tokens == 10
    assert make_requests(call, [[5]], fits, room="fill")[0].params.max_new_tokens == most - 1
    for room in ("refuse", "cut", "fill"):
        with pytest.raises(ApiError, match="maximum context length"):
            make_requests(call, [[5] * most], fits, room=cast("Any", room))
