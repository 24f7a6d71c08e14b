"""Acceptance tests 1 to 4, 17 and 20 of serving.md: whatever a field holds, the answer is 200 or 4xx."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.runtime.server.http.app import ROUTES
from tests.support.http_clients import Answer, call
from tests.support.oracle import nothing_lost
from tests.support.servers import Running, running, shared_engine

VOCABULARY = 4096
BAD_IDS: list[Any] = [-1, 2**31, 2**63, -(2**63), 2**64, True, 1.5, "1", None, [], {}, 10**30]
PROMPTS = {
    "/v1/completions": "prompt",
    "/generate": "input_ids",
    "/v1/embeddings": "input",
    "/encode": "input_ids",
}


@pytest.fixture(scope="module")
def server() -> Any:
    with running() as started, nothing_lost(started):
        yield started


def vocabulary() -> int:
    return shared_engine().tokenizer.vocab_size


def raw(server: Running, path: str, body: str) -> Answer:
    """JSON as it is written here: also what Python would not write."""
    return call(server, path, body.encode())


def refused(answer: Answer) -> bool:
    return 400 <= answer.status < 500 and b"Traceback" not in answer.body


@pytest.mark.parametrize("path", PROMPTS)
def test_1_prompt_tokens_that_do_not_exist(server: Running, path: str) -> None:
    for bad in [*BAD_IDS, vocabulary()]:
        for ids in ([bad], [1, 2, bad], [[1], [bad]]):
            answer = call(server, path, {PROMPTS[path]: ids})
            if path == "/v1/embeddings" and ids == ["1"]:
                continue  # a text
            if bad == "1" and ids == ["1"] and path == "/v1/completions":
                continue  # a text
            assert refused(answer), (ids, answer)
    assert call(server, path, {PROMPTS[path]: [1, 2]}).status == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "n", ["65", "1000000", "1e18", "1000000000000000000", '"5"', "-1", "0", "1.5", "true", "[]"]
)
def test_2_huge_n(server: Running, path: str, n: str) -> None:
    what = (
        '"prompt": "hi"' if path == "/v1/completions" else '"messages": [{"role": "user", "content": "hi"}]'
    )
    before, seen = memory(), server.server.admission.admitted
    assert refused(raw(server, path, f'{{{what}, "n": {n}, "max_tokens": 1}}'))
    assert memory() - before < 5 * 2**20
    assert server.server.admission.admitted == seen, "nothing of it reached the engine"


def test_2_native_n_and_best_of(server: Running) -> None:
    for n in (65, 10**6, 10**18, -1, 0, "5", 1.5):
        assert refused(
            call(server, "/generate", {"text": "hi", "sampling_params": {"n": n, "max_new_tokens": 1}})
        )
        assert (
            refused(call(server, "/v1/completions", {"prompt": "hi", "best_of": n, "max_tokens": 1}))
            or n == "5"
        )
    assert refused(call(server, "/v1/completions", {"prompt": ["hi"] * 129, "max_tokens": 1}))
    assert refused(call(server, "/v1/completions", {"prompt": ["hi"] * 100, "n": 3, "max_tokens": 1}))


def test_2_sixty_four_outputs_are_admitted_as_sixty_four(server: Running) -> None:
    admission = server.server.admission
    before, admission.most_sequences = admission.admitted, 0
    answer = call(server, "/v1/completions", {"prompt": "hi", "n": 64, "max_tokens": 1})
    assert (answer.status, len(answer.json["choices"])) == (200, 64)
    assert (admission.admitted - before, admission.most_sequences) == (64, 64)


@pytest.mark.parametrize("count", [21, 10**9, -2, 10**18, "x", 1.5])
def test_3_logprob_bombs(server: Running, count: Any) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    assert refused(call(server, "/v1/completions", {"prompt": "hi", "max_tokens": 1, "logprobs": count}))
    assert refused(call(server, "/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": count}))
    native = {
        "text": "hi",
        "return_logprob": True,
        "top_logprobs_num": count,
        "sampling_params": {"max_new_tokens": 1},
    }
    assert refused(call(server, "/generate", native))
    assert refused(
        call(server, "/v1/completions", {"prompt": "hi", "max_tokens": 1, "prompt_logprobs": count})
    )


ID_FIELDS = [
    ("/v1/completions", lambda value: {"prompt": "hi", "max_tokens": 1, "stop_token_ids": value}),
    ("/v1/completions", lambda value: {"prompt": "hi", "max_tokens": 1, "allowed_token_ids": value}),
    ("/v1/chat/completions", lambda value: {**CHAT, "stop_token_ids": value}),
    (
        "/generate",
        lambda value: {"text": "hi", "sampling_params": {"max_new_tokens": 1, "stop_token_ids": value}},
    ),
    ("/generate", lambda value: {"text": "hi", "return_logprob": True, "token_ids_logprob": value}),
]
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
BAD_VALUES = st.sampled_from([-1, VOCABULARY * 4, 2**31, 2**63, "x", 1.5, True, {}, [[]], -(2**63)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(ID_FIELDS), good=st.lists(st.integers(0, 100), max_size=3), bad=BAD_VALUES)
def test_4_fields_of_token_ids(server: Running, field: Any, good: list[int], bad: Any) -> None:
    path, body = field
    assert refused(call(server, path, body([*good, bad]))), (path, bad)


BAD_BIASES = (
    '{"-1": 1}', '{"99999999": 1}', '{"1": NaN}', '{"1": Infinity}', '{"1": 1e400}', '{"1": 101}', '{"1": -100.5}',
    '{"x": 1}', '{"1": "x"}', '{"1": []}', "[1]", '"x"', '{"1.5": 1}', '{"9223372036854775808": 1}', '{"": 1}',
)  # fmt: skip


@pytest.mark.parametrize("bias", BAD_BIASES)
def test_4_biases(server: Running, bias: str) -> None:
    assert refused(
        raw(server, "/v1/completions", f'{{"prompt": "hi", "max_tokens": 1, "logit_bias": {bias}}}')
    )
    chat = json.dumps(CHAT)[:-1]
    assert refused(raw(server, "/v1/chat/completions", f'{chat}, "logit_bias": {bias}}}'))
    params = f'{{"max_new_tokens": 1, "logit_bias": {bias}}}'
    assert refused(raw(server, "/generate", f'{{"text": "hi", "sampling_params": {params}}}'))


def test_17_what_can_never_fit_is_refused_at_once(server: Running) -> None:
    context = shared_engine().get_server_info()["context_length"]
    for path, field in PROMPTS.items():
        answer = call(server, path, {field: [1] * (context + 1)})
        assert refused(answer), (path, answer)
    assert server.server.admission.sequences == 0


def _edges(low: float, high: float) -> list[Any]:
    return [low, high, low - 1, high + 1, -(10**18), 10**18, 1e308, -1e308, None, "x", [], {}, True]


NUMBERS: dict[str, list[Any]] = {
    "temperature": _edges(0, 2), "top_p": _edges(0, 1), "top_k": _edges(-1, 4096), "min_p": _edges(0, 1),
    "max_tokens": _edges(0, 8), "n": _edges(1, 64), "seed": _edges(-(2**63), 2**63 - 1),
    "frequency_penalty": _edges(-2, 2), "presence_penalty": _edges(-2, 2), "repetition_penalty": _edges(0, 2),
    "min_tokens": _edges(0, 4), "priority": _edges(-(2**31), 2**31), "logprobs": _edges(0, 20),
}  # fmt: skip
TEXTS: list[Any] = [
    "",
    [],
    [[]],
    [""],
    None,
    " ",
    "\x00",
    "<|endoftext|>",
    "<|im_start|>" * 3,
    "\U0010ffff",
    "\ufeff",
]
LISTS: dict[str, list[Any]] = {
    "stop": ["", [], [""], ["x"] * 16, ["x"] * 17, "x" * 257, [1], {}, None, ["\x00"]],
    "model": ["", "x", None, 1, "tiny", "tiny:", "../tiny", "x" * 100_000],
    "user": ["", None, "x" * 1000, 1], "cache_salt": ["", None, "x", "x" * 100_000, 1, []],
    "stream": [None, "x", 1, False], "stream_options": [None, {}, [], {"include_usage": None}, {"include_usage": 1}],
    "suffix": ["", None, "x", 1], "echo": [None, True, 1], "response_format": [None, {}, "x", {"type": "x"}],
    "bad_words": [[], [""], ["x"] * 129, None, [1]], "logit_bias": [{}, None],
}  # fmt: skip


def test_20_the_edges_of_every_field(server: Running) -> None:
    for path, base in (
        ("/v1/completions", {"prompt": "hi", "max_tokens": 1}),
        ("/v1/chat/completions", CHAT),
        ("/v1/messages", CHAT),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 1}),
        ("/api/chat", {"model": "tiny", "stream": False, **CHAT, "options": {"num_predict": 1}}),
    ):
        for field, values in (NUMBERS | LISTS).items():
            for value in values:
                answer = call(server, path, {**base, field: value})
                assert answer.status == 200 or refused(answer), (path, field, str(value)[:80], answer)


def test_20_empty_and_odd_prompts(server: Running) -> None:
    for text in TEXTS:
        for path, body in (
            ("/v1/completions", {"prompt": text, "max_tokens": 1}),
            ("/v1/embeddings", {"input": text}),
            ("/generate", {"text": text, "sampling_params": {"max_new_tokens": 1}}),
            ("/v1/chat/completions", {"messages": text, "max_tokens": 1}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": 1}),
            ("/v1/messages", {"messages": [{"role": "user", "content": text}], "max_tokens": 1}),
            ("/v1/responses", {"input": text, "max_output_tokens": 1}),
            (
                "/api/generate",
                {"model": "tiny", "prompt": text, "stream": False, "options": {"num_predict": 1}},
            ),
            ("/api/embed", {"model": "tiny", "input": text}),
        ):
            answer = call(server, path, body)
            assert answer.status == 200 or refused(answer), (path, text, answer)


@pytest.mark.parametrize("path", sorted({r.path for r in ROUTES if r.body is not None and "{" not in r.path}))
def test_20_every_field_of_every_body_with_the_wrong_type(server: Running, path: str) -> None:
    body = next(route.body for route in ROUTES if route.path == path and route.body is not None)
    for field in body.__struct_encode_fields__:
        for value in (None, True, -1, 2**63, 1e308, "x", "\x00", [], [[]], [None], {}, {"x": {}}, [{}] * 3):
            answer = call(server, path, {field: value, "max_tokens": 1})
            assert answer.status == 200 or refused(answer), (field, value, answer)


def memory() -> int:
    """Resident bytes of this process, with the server in it."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
