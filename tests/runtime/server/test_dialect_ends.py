"""How streams of all dialects end when something goes wrong, and that what nobody reads any more is aborted."""

from __future__ import annotations

import gc
import http.client
import json
import time
from contextlib import ExitStack, closing
from typing import Any

import msgspec
import pytest

from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.http import streaming
from sgl_like.runtime.server.http.app import ROUTES
from sgl_like.runtime.server.ollama.bodies import ChatAnswer
from tests.support.breaking_engine import BreakingEngine, HoldingEngine
from tests.support.dialects import json_lines, sse_events
from tests.support.http_clients import address, call
from tests.support.servers import running

TEXT = "play some jazz music please"
MESSAGES = [{"role": "user", "content": TEXT}]
SAMPLING = {"temperature": 0, "max_tokens": 200}
JSON = {"Content-Type": "application/json"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, **SAMPLING},
    "/v1/responses": {"model": "tiny", "input": TEXT, "temperature": 0, "max_output_tokens": 200},
    "/api/chat": {"model": "tiny", "messages": MESSAGES, "options": {"temperature": 0}},
    "/api/generate": {"model": "tiny", "prompt": TEXT, "options": {"temperature": 0}},
}


def last_of(path: str, outputs: int, finish: str) -> Any:
    """The last event or line of a stream that breaks after some outputs."""
    with running(engine=BreakingEngine(outputs, finish)) as server:
        answer = call(server, path, BODIES[path] | {"stream": True})
        return json_lines(answer)[-1] if path.startswith("/api") else sse_events(answer)[-1][1]


def test_the_engine_dies_while_it_is_streamed() -> None:
    event = last_of("/v1/messages", 2, "error")
    assert event["type"] == "error" and event["error"]["type"] == "overloaded_error"
    event = last_of("/v1/responses", 2, "error")
    assert event["type"] == "response.failed" and event["response"]["status"] == "failed"
    assert event["response"]["error"]["code"] == "server_error"
    assert event["response"]["output"][0]["content"][0]["text"]
    for path in ("/api/chat", "/api/generate"):
        assert set(last_of(path, 2, "error")) == {"error"}


def test_the_server_stops_while_it_is_streamed() -> None:
    event = last_of("/v1/messages", 2, "abort")
    assert event["type"] == "message_stop"
    event = last_of("/v1/responses", 2, "abort")
    assert event["type"] == "response.incomplete" and event["response"]["status"] == "cancelled"
    for path in ("/api/chat", "/api/generate"):
        line = last_of(path, 2, "abort")
        assert line["done"] is True and line["done_reason"] == "abort"


def test_silence_is_filled_in_the_dialects_own_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.01)
    pings = {"/v1/messages": b'event: ping\ndata: {"type":"ping"}\n\n', "/v1/responses": b": ping\n\n"}
    engine = HoldingEngine()
    found: dict[str, bytes] = {}
    with running(engine=engine) as server, ExitStack() as stack:
        streams = {}
        for path, body in BODIES.items():
            connection = stack.enter_context(
                closing(http.client.HTTPConnection(*address(server), timeout=60))
            )
            connection.request("POST", path, json.dumps(body | {"stream": True}), JSON)
            streams[path] = connection.getresponse()
            found[path] = b""
        for path, ping in pings.items():  # the lines of the others had as much time for theirs
            while found[path].count(ping) < 4:
                found[path] += streams[path].read1()
        server.loop.call_soon_threadsafe(engine.release)
        for path, stream in streams.items():
            found[path] += stream.read()
    for path in ("/api/chat", "/api/generate"):
        assert [json.loads(line)["done"] for line in found[path].splitlines()][-1] is True
    for path, last in (("/v1/messages", b"message_stop"), ("/v1/responses", b"response.completed")):
        assert last in found[path]
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]  # no ping after the end


@pytest.mark.parametrize("path", BODIES)
def test_the_engine_dies_before_anything_is_there(path: str) -> None:
    with running(engine=BreakingEngine(0, "error")) as server:
        for stream in (True, False):
            answer = call(server, path, BODIES[path] | {"stream": stream})
            assert answer.status == 503 and "error" in answer.json


@pytest.mark.parametrize("path", BODIES)
def test_whole_answers_that_break_are_errors_or_what_there_is(path: str) -> None:
    with running(engine=BreakingEngine(2, "error")) as server:
        answer = call(server, path, BODIES[path] | {"stream": False})
        assert answer.status == 503 and "error" in answer.json
    with running(engine=BreakingEngine(2, "abort")) as server:
        answer = call(server, path, BODIES[path] | {"stream": False})
        assert answer.status == 200
        found = answer.json
        reason = {
            "/v1/messages": lambda: found["stop_reason"] == "pause_turn" and found["content"][0]["text"],
            "/v1/responses": lambda: found["status"] == "cancelled" and found["output"],
            "/api/chat": lambda: found["done_reason"] == "abort" and found["message"]["content"],
            "/api/generate": lambda: found["done_reason"] == "abort" and found["response"],
        }
        assert reason[path]()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
def test_what_nobody_reads_is_aborted(path: str, stream: bool) -> None:
    engine = BreakingEngine(10**6, "error")
    with running(engine=engine) as server:
        body = BODIES[path] | {"stream": stream, "format": None}
        with closing(http.client.HTTPConnection(*address(server), timeout=60)) as connection:
            connection.request("POST", path, json.dumps(body), JSON)
            if stream:
                assert connection.getresponse().read(10)
        until = time.monotonic() + 60
        while not engine.aborted and time.monotonic() < until:
            time.sleep(0.01)
        assert engine.aborted
        assert not server.server.responses.running
        assert call(server, path, BODIES[path] | {"stream": False}).status == 200


def test_answers_are_as_described() -> None:
    described = {route.path: route.response for route in ROUTES if route.method == "POST"}
    bodies = BODIES | {
        "/v1/messages/count_tokens": BODIES["/v1/messages"],
        "/v1/responses/input_tokens": BODIES["/v1/responses"],
        "/v1/embeddings": {"input": "x"},
        "/api/embed": {"model": "tiny", "input": "x"},
        "/api/embeddings": {"model": "tiny", "prompt": "x"},
    }
    with running() as server:
        for path, body in bodies.items():
            answer = call(server, path, body | {"stream": False}).json
            read = msgspec.convert(answer, described[path])
            assert answer.keys() <= {field.encode_name for field in msgspec.structs.fields(read)}
        lines = json_lines(call(server, "/api/chat", BODIES["/api/chat"]))
        assert [msgspec.convert(line, ChatAnswer).done for line in lines[-2:]] == [False, True]


def test_other_models_are_refused_unless_any_will_do() -> None:
    bodies = BODIES | {"/v1/embeddings": {"input": "x"}, "/v1/messages/count_tokens": BODIES["/v1/messages"]}
    for any_model, status in ((False, 404), (True, 200)):
        with running(ServerConfig(any_model=any_model)) as server:
            for path, body in bodies.items():
                assert call(server, path, body | {"model": "gpt-x", "stream": False}).status == status
