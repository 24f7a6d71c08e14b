"""SGLang's and vLLM's endpoints beside generation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

from sgl_like.errors import RequestAborted
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.chat.forms import call_form
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.native import control
from sgl_like.runtime.server.observe.process import package_version
from tests.runtime.server.test_generate import call, generate
from tests.support.servers import Running, running, shared_engine


class Endless(LocalEngine):
    """Gives one token of every output, and the end only when that is aborted."""

    def __init__(self) -> None:
        super().__init__(shared_engine())
        self._open: dict[str, OutputSink] = {}

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """The first token."""
        self._open[request.rid] = receive
        asyncio.get_running_loop().call_soon(receive, Output(request.rid, "b", (70,)))

    def abort(self, rid: str) -> None:
        """The end."""
        receive = self._open.pop(rid, None)
        if receive is not None:
            finish = FinishReason("abort", message="cancelled")
            output = Output(rid, finish=finish, error=RequestAborted("cancelled"))
            asyncio.get_running_loop().call_soon(receive, output)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


def get(server: Running, path: str) -> Any:
    status, text = call(server, None, path, "GET")
    assert status == 200, text
    return json.loads(text)


def begin(server: Running, body: dict[str, Any], key: str = "") -> HTTPResponse:
    """A stream of which the first event was read."""
    parts = urlsplit(server.url)
    connection = HTTPConnection(str(parts.hostname), parts.port)
    headers = {"Connection": "close", "Authorization": f"Bearer {key}"}
    connection.request("POST", "/generate", json.dumps(body | {"stream": True}), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline().startswith(b"data: ")
    return answer


def last_event(answer: HTTPResponse) -> Any:
    *_, last, done, _ = answer.read().decode().split("\n\n")
    assert done == "data: [DONE]"
    return json.loads(last.strip().removeprefix("data: "))


def test_requests_are_ended_by_their_name() -> None:
    with running(engine=Endless()) as server:
        mine = begin(server, {"text": "a", "rid": "mine"})
        other = begin(server, {"text": "b", "rid": "mine too"})
        batch = begin(server, {"text": ["c", "d"], "sampling_params": {"n": 2}, "rid": "batch"})
        assert get(server, "/load") == {"server_load": 6}
        assert json.loads(call(server, {"rid": "mine"}, "/abort_request")[1]) == {"aborted": 1}
        last = last_event(mine)
        assert last["meta_info"]["finish_reason"]["type"] == "abort"
        assert (last["text"], last["output_ids"]) == ("b", [70])
        assert json.loads(call(server, {"rid": "batch_1_0"}, "/abort_request")[1]) == {"aborted": 1}
        assert json.loads(call(server, {"rid": "nobody"}, "/abort_request")[1]) == {"aborted": 0}
        assert get(server, "/load") == {"server_load": 4}
        assert json.loads(call(server, {"abort_all": True}, "/abort_request")[1]) == {"aborted": 4}
        assert last_event(other)["meta_info"]["finish_reason"]["type"] == "abort"
        batch.read()
        assert get(server, "/load") == {"server_load": 0}


def test_only_admins_end_requests_of_others() -> None:
    config = ServerConfig(api_keys=("one", "two"), admin_key="boss")
    with running(config, Endless()) as server:
        streams = {
            key: begin(server, {"text": "a", "rid": "same", "incremental_streaming_output": True}, key)
            for key in ("one", "two", "boss")
        }

        def abort(key: str, **body: Any) -> int:
            status, text = call(server, body, "/abort_request", headers={"Authorization": f"Bearer {key}"})
            assert status == 200, text
            return int(json.loads(text)["aborted"])

        assert abort("one", rid="same") == 1
        assert abort("one", abort_all=True) == 0
        assert last_event(streams["one"])["meta_info"]["finish_reason"]["type"] == "abort"
        assert abort("boss", rid="same") == 2
        assert call(server, {"abort_all": True}, "/abort_request")[0] == 401
        for key in ("two", "boss"):
            assert last_event(streams[key])["meta_info"]["finish_reason"]["type"] == "abort"


@pytest.mark.parametrize("body", [{}, {"rid": "a", "abort_all": True}, {"rid": 3}])
def test_what_abort_request_refuses(server: Running, body: dict[str, Any]) -> None:
    assert call(server, body, "/abort_request")[0] == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_flushing_the_cache(server: Running, method: str) -> None:
    prompt = "Something that is cached when it is asked for again."
    for _ in range(2):
        found = generate(server, text=prompt, sampling_params={"max_new_tokens": 1})
    assert found["meta_info"]["cached_tokens"] > 0
    assert call(server, None, "/flush_cache", method)[0] == 200
    found = generate(server, text=prompt, sampling_params={"max_new_tokens": 1})
    assert found["meta_info"]["cached_tokens"] == 0


def test_flushing_what_is_in_use(server: Running) -> None:
    pin = shared_engine().pin("a prefix that is held")
    status, text = call(server, None, "/flush_cache", "POST")
    assert (status, json.loads(text)["error"]["code"]) == (400, "cache_in_use")
    shared_engine().unpin(pin)
    assert call(server, None, "/flush_cache", "POST")[0] == 200


def test_health_is_a_token_that_was_generated(server: Running) -> None:
    before = shared_engine().stats()["sampled_tokens"]
    assert call(server, None, "/health_generate", "GET")[0] == 200
    assert shared_engine().stats()["sampled_tokens"] == before + 1


class Silent(LocalEngine):
    """Takes requests and says nothing."""

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """Nothing."""


def test_health_of_an_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "HEALTH_SECONDS", 0.05)
    with running(engine=Silent(shared_engine())) as server:
        assert call(server, None, "/health_generate", "GET")[0] == 503


@pytest.mark.parametrize("path", ["/model_info", "/get_model_info"])
def test_the_model(server: Running, path: str) -> None:
    info = get(server, path)
    assert info["model_path"] == info["tokenizer_path"] == shared_engine().model_path
    assert info["is_generation"] is True
    assert {"choices", "resume"} <= set(info["sgl_like"]["features"])


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
def test_options_and_counts(server: Running, path: str) -> None:
    info = get(server, path)
    assert info["dtype"] == "float32" and info["version"] == package_version()
    assert info["kv_slots"] == info["max_total_num_tokens"]
    assert info["internal_states"][0]["last_gen_throughput"] >= 0
    assert not any("key" in name for name in info)


def test_signs_of_life(server: Running) -> None:
    assert get(server, "/version") == {"version": package_version()}
    for method in ("GET", "POST"):
        assert call(server, None, "/ping", method)[0] == 200
    server.server.draining = True
    assert call(server, None, "/ping", "GET")[0] == 503
    server.server.draining = False


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def test_calls_are_found_in_a_text(server: Running) -> None:
    form = call_form(server.server.tokenizer)
    arguments = ['{"city": "Paris"}', '{"city": "</tool_call>", "day": {"a": [1]}}']
    text = "Well." + "".join(f"{form.begin}weather{form.between}{each}{form.end}" for each in arguments)
    body = {"text": text, "tools": TOOLS, "tool_call_parser": "qwen25"}
    status, answer = call(server, body, "/parse_function_call")
    assert (status, json.loads(answer)) == (
        200,
        {
            "normal_text": "Well.",
            "calls": [
                {"tool_index": at, "name": "weather", "parameters": each} for at, each in enumerate(arguments)
            ],
        },
    )
    status, answer = call(server, {"text": "no call", "tools": []}, "/parse_function_call")
    assert json.loads(answer) == {"normal_text": "no call", "calls": []}
    assert call(server, {"text": "x", "tools": [{"function": {}}]}, "/parse_function_call")[0] == 400


def test_reasoning_is_told_from_the_answer(server: Running) -> None:
    for family, text in (
        (None, "<think>Hm.</think>So."),
        ("deepseek-r1", "Hm.</think>\nSo."),
        ("qwen3", "<think>Hm.\n</think>So."),
    ):
        status, answer = call(server, {"text": text, "reasoning_parser": family}, "/separate_reasoning")
        assert (status, json.loads(answer)) == (200, {"reasoning_text": "Hm.", "text": "So."})
    assert call(server, {"text": "x", "reasoning_parser": "nobody"}, "/separate_reasoning")[0] == 400
