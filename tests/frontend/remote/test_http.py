"""Retries, timeouts, errors: what a server may do wrong, and what is said of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

import sgl_like as sgl
from tests.support.remote_server import Asked, FakeServer, Reply

GOOD = Reply({"choices": [{"text": " upon", "finish_reason": "stop"}]})


@sgl.function
def plain(s: Any) -> None:
    s += "Once" + sgl.gen("x")


class Clock:
    """Stands in for sleeping: remembers how long was asked for."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def run(server: FakeServer, clock: Clock | None = None, **options: Any) -> Any:
    backend = sgl.OpenAICompatible(
        server.url, "m", "key-1", dialect="compatible", sleep=clock or Clock(), jitter=lambda: 1.0, **options
    )
    try:
        state = plain.run(backend=backend)
        state.sync() if hasattr(state, "sync") else state.error()
        return state
    finally:
        backend.shutdown()


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 529])
def test_a_server_that_is_busy_is_asked_again_with_growing_pauses(status: int) -> None:
    clock = Clock()
    with FakeServer([Reply({}, status), Reply({}, status), Reply({}, status), GOOD]) as server:
        assert run(server, clock)["x"] == " upon"
    assert clock.slept == [0.5, 1.0, 2.0] and len(server.asked) == 4


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:30 GMT"}, 7.0),
        ({"Retry-After": "soon"}, 0.5),
    ],
)
def test_the_server_says_how_long_to_wait(headers: dict[str, str], pause: float) -> None:
    clock = Clock()
    with FakeServer([Reply({}, 429, headers), GOOD]) as server:
        assert run(server, clock)["x"] == " upon"
    assert clock.slept == [pause]


def test_connections_are_kept() -> None:
    with FakeServer([GOOD] * 5) as server, sgl.OpenAICompatible(server.url, "m", dialect="vllm") as backend:
        for _ in range(5):
            assert plain.run(backend=backend)["x"] == " upon"
        assert len({asked.connection for asked in server.asked}) == 1


def test_nobody_waits_for_hours() -> None:
    with FakeServer([Reply({"error": {"message": "quota"}}, 429, {"Retry-After": "3600"})]) as server:
        error = run(server).error()
    assert isinstance(error.__cause__, sgl.RemoteRateLimitError) and "quota" in str(error)


def test_tries_are_bounded() -> None:
    with FakeServer(lambda asked: Reply({"detail": "still loading"}, 503)) as server:
        error = run(server, max_retries=2).error()
    assert len(server.asked) == 3
    assert type(error.__cause__) is sgl.RemoteError and "503 Service Unavailable: still loading" in str(error)


def test_a_server_that_is_not_there_is_tried_again_too() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    clock = Clock()
    backend = sgl.OpenAICompatible(url, "m", dialect="vllm", max_retries=2, sleep=clock)
    error = plain.run(backend=backend).error()
    assert isinstance(error.__cause__, sgl.RemoteConnectionError) and f"{url}/v1/completions" in str(error)
    assert len(clock.slept) == 2


KINDS: list[tuple[int, type[Exception]]] = [
    (400, sgl.RemoteRequestError),
    (401, sgl.RemoteAuthenticationError),
    (403, sgl.RemoteAuthenticationError),
    (404, sgl.RemoteRequestError),
    (422, sgl.RemoteRequestError),
    (500, sgl.RemoteError),
]
BODIES: list[Any] = [
    {"error": {"message": "what is wrong", "type": "x", "code": None}},
    {"error": "what is wrong"},
    {"object": "error", "message": "what is wrong", "code": 400},
    {"detail": "what is wrong"},
    {"detail": [{"loc": ["body"], "msg": "what is wrong"}]},
    "what is wrong",
]


@pytest.mark.parametrize(("status", "kind"), KINDS)
def test_errors_by_status(status: int, kind: type[Exception]) -> None:
    with FakeServer([Reply(BODIES[0], status, {"x-request-id": "r-7"})]) as server:
        cause = run(server).error().__cause__
    assert type(cause) is kind and isinstance(cause, sgl.RemoteError)
    assert (cause.status, cause.request_id, cause.url) == (status, "r-7", f"{server.url}/v1/completions")
    assert "what is wrong" in str(cause) and "r-7" in str(cause)


@pytest.mark.parametrize("body", BODIES)
def test_the_message_is_found_wherever_it_is(body: Any) -> None:
    with FakeServer([Reply(body, 400)]) as server:
        assert "what is wrong" in str(run(server).error())


def test_keys_are_shown_nowhere() -> None:
    def script(asked: Asked) -> Reply:
        return Reply({"error": {"message": f"bad key {asked.headers['Authorization']} s3cret"}}, 401)

    with FakeServer(script) as server:
        url = server.url.replace("http://", "http://me:s3cret@") + "/"
        backend = sgl.OpenAICompatible(
            url, "m", "key-1", dialect="vllm", headers={"Authorization": "Bearer key-1"}
        )
        error = plain.run(backend=backend).error()
        for text in (repr(backend), str(error), repr(error.__cause__), error.__cause__.url):
            assert "key-1" not in text and "s3cret" not in text and "me:" not in text


def test_a_silent_server_runs_into_the_timeout() -> None:
    with FakeServer([Reply(hangs=True)]) as server:
        error = run(server, timeout=0.02).error()
        assert isinstance(error.__cause__, sgl.RemoteTimeoutError)
        assert len(server.asked) == 1  # it may be at work: it is not asked again


@pytest.mark.parametrize(
    "reply", [Reply("no object"), Reply(chunks=[b"<html>"]), Reply({"error": {"message": "no"}})]
)
def test_answers_that_are_none(reply: Reply) -> None:
    with FakeServer([reply]) as server:
        assert isinstance(run(server).error().__cause__, sgl.RemoteError)


def test_an_answer_that_is_cut_off_is_asked_for_again() -> None:
    with FakeServer([Reply(breaks=True), Reply(chunks=[b'{"choi'], breaks=True), GOOD]) as server:
        assert run(server)["x"] == " upon"


def test_the_content_filter_is_an_error() -> None:
    with FakeServer([Reply({"choices": [{"text": "a", "finish_reason": "content_filter"}]})]) as server:
        assert "ended the output: content_filter" in str(run(server).error())


def test_shutdown_ends_what_is_in_flight_and_later_requests() -> None:
    with FakeServer([Reply(hangs=True)]) as server:
        backend = sgl.OpenAICompatible(server.url, "m", dialect="vllm")
        state = plain.run(backend=backend, stream=True)
        assert server.hanging.wait(20)
        backend.shutdown()
        backend.shutdown()
        assert "shut down" in str(state.error())
        assert "shut down" in str(plain.run(backend=backend).error())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sgl.OpenAICompatible("localhost:8000"), "base_url must be like http://localhost:8000"),
        (lambda: sgl.OpenAICompatible("http://x", "m", dialect="vlm"), "dialect must be auto or one of"),
        (
            lambda: sgl.OpenAICompatible("http://x", "m", dialect="vllm", timeout=0),
            "timeout must be greater than 0",
        ),
        (lambda: sgl.OpenAICompatible("http://x", "m", dialect="vllm", retries=1), "'retries'"),
        (lambda: sgl.OpenAI("gpt-4o"), "OPENAI_API_KEY"),
        (lambda: sgl.Anthropic("claude-3"), "ANTHROPIC_API_KEY"),
    ],
)
def test_arguments(make: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(sgl.ConfigError, match=message):
        make()


OWNERS = [
    ("vllm", "0.12.0", "vllm"), ("vllm", "0.10.1.post2", "vllm-guided"), ("vllm", "dev", "vllm"),
    ("sglang", None, "sglang"), ("llamacpp", None, "llama.cpp"), ("me", None, "llama-cpp-python"),
    ("library", None, "ollama"), ("tensorrt_llm", None, "tensorrt-llm"), ("MLC-LLM", None, "mlc-llm"),
    ("Triton Inference Server", None, "triton"), ("somebody", None, "compatible"),
]  # fmt: skip


@pytest.mark.parametrize(("owner", "version", "dialect"), OWNERS)
def test_the_engine_is_recognised(owner: str, version: str | None, dialect: str) -> None:
    def script(asked: Asked) -> Reply:
        if asked.path == "/v1/models":
            return Reply({"data": [{"id": "the-model", "owned_by": owner}]})
        return Reply({"version": version}) if asked.path == "/version" else Reply({"detail": "none"}, 404)

    with FakeServer(script) as server, sgl.OpenAICompatible(server.url + "/v1") as backend:
        assert (backend.dialect.name, backend.model_name) == (dialect, "the-model")


def test_tgi_is_recognised_by_its_info() -> None:
    def script(asked: Asked) -> Reply:
        return Reply({"router": "text-generation-router"}) if asked.path == "/info" else Reply({}, 404)

    with FakeServer(script) as server, sgl.OpenAICompatible(server.url, "m") as backend:
        assert backend.dialect.name == "tgi"


def test_the_model_must_be_named_where_there_are_several() -> None:
    models = {"data": [{"id": "a", "owned_by": "vllm"}, {"id": "b", "owned_by": "vllm"}]}
    with FakeServer(lambda asked: Reply(models)) as server, pytest.raises(sgl.ConfigError, match="a, b"):
        sgl.OpenAICompatible(server.url, dialect="vllm")
