from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from aiohttp import web

from sgl_like.errors import SamplingParamsError
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.sse import PING, EventStream
from sgl_like.runtime.server.limits import Limits
from tests.support.held_engine import HeldEngine
from tests.support.http_clients import call, connect, read_all, status_of
from tests.support.servers import Running, running, wait_until

STREAM = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
END = b"\r\n0\r\n\r\n"
WHOLE = b"GET /whole HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def stream(call: Call) -> web.StreamResponse:
    request = GenerateRequest([1], SamplingParams(), stream=True)
    async with call.generate([request]) as generation:
        await generation.first(0.05)
        events = EventStream(call.http, ping_seconds=0.05)
        await events.open()
        async for parts in generation:
            for _, output in parts:
                if output.error is not None:
                    raise output.error
                await events.send({"text": output.text})
        return await events.close()


async def whole(call: Call) -> web.StreamResponse:
    async with call.generate([GenerateRequest([1], SamplingParams())]) as generation:
        await generation.all()
    return web.Response(text="done")


ROUTES = (
    Route("GET", "/stream", stream, "Streams", streams=True),
    Route("GET", "/whole", whole, "Does not"),
)
LIMITS = Limits(stream_seconds=0.3, stream_bytes=100_000)


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def server(engine: HeldEngine) -> Iterator[Running]:
    with running(ServerConfig(limits=LIMITS), engine, ROUTES) as started:
        yield started
        wait_until(lambda: server_is_idle(started, engine))


def server_is_idle(server: Running, engine: HeldEngine) -> bool:
    admission = server.server.admission
    return not engine.held and admission.sequences == admission.tokens == 0


def on_loop(server: Running, function: Any, *arguments: Any) -> Any:
    async def run() -> Any:
        return function(*arguments)

    return asyncio.run_coroutine_threadsafe(run(), server.loop).result()


def the_request(engine: HeldEngine) -> str:
    wait_until(lambda: bool(engine.held))
    return next(iter(engine.held))


def read_until(sock: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        data = sock.recv(4096)
        assert data, found
        found += data
    return found


def test_headers_come_soon_and_pings_while_nothing_else_does(server: Running, engine: HeldEngine) -> None:
    with connect(server) as sock:
        sock.sendall(STREAM)
        rid = the_request(engine)
        answer = read_until(sock, PING)
        assert status_of(answer) == 200 and b"text/event-stream" in answer
        on_loop(server, engine.say, rid, "so")
        read_until(sock, b'"so"')
        read_until(sock, PING)
        on_loop(server, engine.finish, rid)
        read_until(sock, END)


def test_a_request_that_is_refused_at_once_is_no_stream(server: Running, engine: HeldEngine) -> None:
    def refuse(request: GenerateRequest, receive: Any) -> None:
        raise SamplingParamsError("temperature must be at least 0")

    engine.submit = refuse  # type: ignore[method-assign]
    answer = call(server, "/stream")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
    assert server.server.admission.sequences == 0


def test_an_error_after_the_first_second_is_an_event(server: Running, engine: HeldEngine) -> None:
    with connect(server) as sock:
        sock.sendall(STREAM)
        rid = the_request(engine)
        read_until(sock, PING)
        on_loop(server, engine.abort, rid)
        answer = read_until(sock, END)
    data = next(line for line in answer.split(b"\n") if line.startswith(b"data: "))
    assert json.loads(data.removeprefix(b"data: "))["error"]["code"] == "request_aborted"
    assert b"HTTP/1.1" not in answer, "a second answer within the first"


@pytest.mark.parametrize("data", [STREAM, WHOLE])
def test_when_the_client_goes_away_so_does_its_request_and_nobody_writes_about_it(
    server: Running, engine: HeldEngine, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for linger in (False, True):
            with connect(server) as sock:
                if linger:  # a reset instead of an end
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(data)
                rid = the_request(engine)
                if data == STREAM:
                    on_loop(server, engine.say, rid, "so")
                    read_until(sock, b'"so"')
            wait_until(lambda rid=rid: rid in engine.aborted)
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_client_that_does_not_read_is_cut_off(server: Running, engine: HeldEngine) -> None:
    with connect(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(STREAM)
        rid = the_request(engine)

        def say() -> None:
            if rid in engine.held:
                engine.say(rid, "x" * 5000)

        def cut() -> bool:
            on_loop(server, say)
            return rid in engine.aborted

        wait_until(cut)
        assert len(read_all(sock)) < 8 * 1024 * 1024


def test_what_waits_for_such_a_client_is_bounded(engine: HeldEngine) -> None:
    with running(
        ServerConfig(limits=Limits(stream_seconds=600, stream_bytes=100_000)), engine, ROUTES
    ) as server:
        with connect(server) as sock:
            sock.sendall(STREAM)
            rid = the_request(engine)

            def say_much() -> None:
                for _ in range(1000):  # within one step of the loop, so nothing of it is sent meanwhile
                    if rid in engine.held:
                        engine.say(rid, "x" * 1000)

            on_loop(server, say_much)
            assert engine.aborted == [rid]
            assert END not in read_all(sock), "it may not look complete"
        wait_until(lambda: server_is_idle(server, engine))


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    async def large(call: Call) -> web.StreamResponse:
        return web.Response(body=b"x" * 50_000_000)

    with (
        running(
            ServerConfig(limits=LIMITS), HeldEngine(), (Route("GET", "/large", large, "Much"),)
        ) as server,
        connect(server) as sock,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(10)
        wait_until(lambda: on_loop(server, server.runner.guard.connections.__int__) == 0)


def test_a_server_whose_queue_is_full_is_not_ready() -> None:
    engine = HeldEngine(str(files("sgl_like") / "assets" / "tiny"))
    with running(ServerConfig(limits=Limits(queue_requests=0)), engine) as server, connect(server) as sock:
        assert call(server, "/readyz").status == 200
        body = b'{"prompt": [1], "n": 8}'
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        sock.sendall(body)
        wait_until(lambda: len(engine.held) == 8)
        answer = call(server, "/readyz")
        assert (answer.status, answer.json["status"]) == (503, "overloaded")
        assert call(server, "/livez").status == 200
        refused = call(server, "/v1/completions", {"prompt": [1]})
        assert (refused.status, refused.json["error"]["code"]) == (503, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
