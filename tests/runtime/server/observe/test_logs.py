"""One line for each call, with what operators need and nothing that is a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from aiohttp import web

from sgl_like.errors import EngineUnavailable
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.http.app import ROUTES
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.observe import logs
from sgl_like.runtime.server.observe.logs import dropped_lines, start_logging
from tests.support.servers import Running, running, shared_engine, wait_until

SECRET = "walrus-" + "k" * 20
ADMIN = "admin-" + "z" * 20
PROMPT = "play the gigantic turquoise"


@contextmanager
def logged(level: str = "info", format: Literal["text", "json"] = "json") -> Iterator[io.StringIO]:
    """What the server logs in the block is there after it."""
    stream = io.StringIO()
    stop = start_logging(level, format, stream)
    try:
        yield stream
    finally:
        assert stop() == 0


def call(
    server: Running, body: Any, key: str | None = SECRET, path: str = "/v1/completions", **more: str
) -> Any:
    headers = {"Content-Type": "application/json", **more}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, data, headers)) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
    finally:
        wait_until(lambda: not server.server.observer.calls and not server.server.observer.open)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def fail(call: Call) -> web.StreamResponse:
    raise RuntimeError("on purpose")


CONFIG = ServerConfig(api_keys=(SECRET,), admin_key=ADMIN)


def test_a_line_has_what_a_call_was_and_how_it_ended() -> None:
    with logged() as stream, running(CONFIG) as server:
        call(server, {"prompt": PROMPT, "max_tokens": 5, "temperature": 0, "stream": True})
    (line,) = [line for line in lines(stream) if line["message"] == "call"]
    assert line["level"] == "info" and line["time"].endswith("Z")
    assert len(line["request_id"]) == 32
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/completions", 200)
    assert line["tenant"] == "key1" and line["requests"] == 1
    assert line["completion_tokens"] == 5 and line["prompt_tokens"] > 3 and line["cached_tokens"] >= 0
    assert line["finish"] == ["length"]
    assert 0 < line["ttft"] <= line["duration"]
    assert "cause" not in line and "error" not in line


def test_lines_of_refused_calls_say_why() -> None:
    with logged() as stream, running(CONFIG) as server:
        call(server, {"prompt": PROMPT}, key=None)
        call(server, {"prompt": PROMPT, "max_tokens": -3})
        call(server, {"prompt": [2**40]})
    refused = lines(stream)
    assert [line["status"] for line in refused] == [401, 400, 400]
    assert all(line["error"] for line in refused)


class Dying(LocalEngine):
    """Dies when it is told to, after the first token."""

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        asyncio.get_running_loop().call_soon(receive, Output(request.rid, "a", (70,)))
        gone = EngineUnavailable("the engine has stopped")
        self.die = lambda: receive(Output(request.rid, finish=FinishReason("error"), error=gone))


def test_a_stream_that_broke_is_a_warning_although_its_status_is_200() -> None:
    engine = Dying(shared_engine())
    with logged() as stream, running(engine=engine) as server:
        body = json.dumps({"prompt": [65, 66, 67], "stream": True}).encode()
        with urllib.request.urlopen(urllib.request.Request(server.url + "/v1/completions", body)) as answer:
            answer.readline()
            server.loop.call_soon_threadsafe(engine.die)
            answer.read()
        wait_until(lambda: not server.server.observer.calls)
    (line,) = lines(stream)
    assert (line["level"], line["status"], line["cause"], line["finish"]) == (
        "warning",
        200,
        "engine",
        ["error"],
    )
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 1)


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_logs_have_neither_prompts_nor_outputs_nor_keys(format: Literal["text", "json"], level: str) -> None:
    routes = (*ROUTES, Route("POST", "/fail", fail, "Fails"))
    with logged(level, format) as stream, running(CONFIG, routes=routes) as server:
        outputs = []
        for stream_it in (False, True):
            body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "stream": stream_it}
            outputs.append(call(server, body))
        call(server, {"prompt": PROMPT, "max_tokens": "many", "stop": ["gigantic"] * 99})
        call(server, {"prompt": PROMPT}, key="wrong-" + SECRET)
        call(server, {"prompt": PROMPT}, path="/v1/nothing/turquoise")
        call(server, {"prompt": PROMPT}, path="/fail")
        call(server, None, ADMIN, "/debug/requests")
    written = stream.getvalue()
    text = json.loads(outputs[0])["choices"][0]["text"]
    assert text.strip()
    assert len(written.splitlines()) >= 7
    for secret in (SECRET, ADMIN, PROMPT, "turquoise", "gigantic", text.strip(), "Bearer"):
        assert secret not in written, secret


def test_an_error_that_nobody_foresaw_is_logged_with_its_traceback_and_the_request_id() -> None:
    routes = (*ROUTES, Route("POST", "/fail", fail, "Fails"))
    with logged() as stream, running(routes=routes) as server:
        call(server, {}, path="/fail", **{"x-request-id": "mine-7"})
    failed, line = lines(stream)
    assert failed["request_id"] == line["request_id"] == "mine-7"
    assert failed["level"] == line["level"] == "error"
    assert "RuntimeError: on purpose" in failed["traceback"] and line["status"] == 500


def test_probes_are_only_logged_when_asked_for() -> None:
    for level, count in (("info", 0), ("debug", 2)):
        with logged(level) as stream, running() as server:
            call(server, None, path="/livez")
            call(server, None, path="/metrics")
        assert len(lines(stream)) == count


def test_text_lines_can_be_read_by_machines_too() -> None:
    with logged(format="text") as stream:
        log = logging.getLogger("sgl_like.test")
        log.warning("now", extra={"fields": {"a": 1, "b": "two words", "c": ["x", "y"], "d": 'say "hi"\n'}})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith('Z WARNING sgl_like.test now a=1 b="two words" c=x,y d="say \\"hi\\"\\n"')


class Stuck(io.StringIO):
    """A pipe that nobody reads, until somebody does."""

    def __init__(self) -> None:
        super().__init__()
        self.read_at_last = threading.Event()

    def write(self, text: str) -> int:
        self.read_at_last.wait(30)
        return super().write(text)


def test_a_reader_that_does_not_read_costs_lines_but_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAITING_LINES", 10)
    stream = Stuck()
    stop = start_logging(stream=stream)
    log = logging.getLogger("sgl_like.test")
    for i in range(50):
        log.info("line %d", i)
    counted = dropped_lines()
    stream.read_at_last.set()
    dropped = stop()
    assert dropped == counted
    assert 38 <= dropped <= 40
    assert len(stream.getvalue().splitlines()) == 50 - dropped
