from __future__ import annotations

import json
import random
import socket
import threading
from contextlib import ExitStack, suppress
from typing import Any

import msgspec
import pytest
from aiohttp import web

from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.http import connection as module
from sgl_like.runtime.server.http.connection import Guard
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.limits import Limits
from tests.support.http_clients import call, connect, exchange, read_all, status_of
from tests.support.servers import Running, running

GOOD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
BODY = b'{"prompt": "hi", "max_tokens": 1}'


@pytest.fixture(scope="module")
def server() -> Any:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def hasty() -> Any:
    """Deadlines of a fraction of a second."""
    with running(
        ServerConfig(limits=Limits(header_seconds=0.2, body_seconds=0.3, keep_alive_seconds=0.5))
    ) as started:
        yield started


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    head = [b"POST /v1/completions HTTP/" + version, b"Host: localhost", b"Connection: close", *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def error_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize("start", [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: local"])
def test_a_connection_without_its_headers_is_closed(hasty: Running, start: bytes) -> None:
    assert exchange(hasty, start) == b""
    assert status_of(exchange(hasty, GOOD)) == 200


class HalfOpen:
    """A connection that only knows whether it was closed."""

    closed = False

    def give_up(self) -> None:
        self.closed = True


def test_of_those_without_headers_the_oldest_are_closed_but_not_a_burst() -> None:
    now = 0.0
    guard = Guard(Limits(), half_open=10, clock=lambda: now)
    burst = [HalfOpen() for _ in range(50)]
    for connection in burst:
        guard.headers_begin("here", connection)
    assert (guard.waiting, guard.refused) == (50, 0)
    for connection in burst[:5]:
        guard.headers_end("here", connection)
    now = 2.0
    guard.headers_begin("there", HalfOpen())
    assert guard.refused == 0
    guard.headers_begin("here", late := HalfOpen())
    assert [connection.closed for connection in burst] == [False] * 5 + [True] * 36 + [False] * 9
    assert (guard.waiting, guard.refused, late.closed) == (11, 36, False)


def test_so_is_one_that_was_kept_open_for_a_second_request(hasty: Running) -> None:
    with connect(hasty) as sock:
        sock.sendall(GOOD.replace(b"Connection: close\r\n", b"") + b"GET /li")
        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_does_not_come_is_an_error(hasty: Running) -> None:
    answer = exchange(hasty, post(BODY[:5], length(BODY)))
    assert (status_of(answer), error_of(answer)["code"]) == (408, "body_timeout")


def test_a_body_that_comes_in_pieces_is_read(server: Running) -> None:
    with connect(server) as sock:
        sock.sendall(post(b"", CHUNKED))
        for byte in BODY:
            sock.sendall(b"1\r\n%c\r\n" % byte)
        sock.sendall(b"0\r\n\r\n")
        assert status_of(read_all(sock)) == 200


def test_headers_are_limited_in_size_and_number(server: Running) -> None:
    for header in (
        b"x: " + b"a" * 9000,
        b"a" * 9000 + b": x",
        b"\r\n".join(b"x-%d: y" % i for i in range(70)),
        b"\r\n".join(b"x-%d: %s" % (i, b"y" * 1000) for i in range(20)),
    ):
        answer = exchange(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
        assert status_of(answer) in (400, 431)
        assert error_of(answer)["code"] in ("invalid_http", "headers_too_large")


def test_headers_that_never_end_are_cut_off(server: Running) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(1_000_000):
                sock.sendall(b"x: " + b"y" * 500 + b"\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nnonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the start of TLS
        b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /\x00livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        post(BODY, length(BODY), CHUNKED),
        post(BODY, length(BODY), b"Content-Length: 3"),
        post(BODY, b"Content-Length: -1"),
        post(BODY, b"Content-Length: 1e3"),
        post(BODY, b"Content-Length: 99999999999999999999999"),
        post(chunks(BODY), b"Transfer-Encoding: gzip, chunked, identity"),
        post(b"zz\r\n" + BODY, CHUNKED),
        post(b"ffffffffffffffffff\r\n" + BODY, CHUNKED),
        post(chunks(BODY).replace(b"\r\n0", b"\r\n0\r\n" + b"x: y\r\n" * 10_000, 1), CHUNKED),
    ],
)
def test_what_is_not_http_is_an_error_and_ends_the_connection(server: Running, data: bytes) -> None:
    answer = exchange(server, data)
    assert status_of(answer) == 400
    assert error_of(answer)["code"] in ("invalid_http", "invalid_body")
    assert answer.count(b"HTTP/1.") == 1, "nothing after it may count as a request"


def test_old_http_is_answered_and_the_connection_closed(server: Running) -> None:
    answer = exchange(server, b"GET /livez HTTP/1.0\r\n\r\n")
    assert status_of(answer) == 200
    assert status_of(exchange(server, post(BODY, length(BODY), version=b"1.0"))) == 200
    stream = BODY.replace(b"}", b', "stream": true}')
    assert exchange(server, post(stream, length(stream), version=b"1.0")).endswith(b"data: [DONE]\n\n")


def test_who_expects_to_be_asked_is_asked(server: Running) -> None:
    with connect(server) as sock:
        sock.sendall(post(b"", length(BODY), b"Expect: 100-continue"))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(BODY)
        assert status_of(read_all(sock)) == 200


@pytest.mark.parametrize("body", [b"1 " * 5_000_000, b"9" * 20_000_000])
def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(server: Running, body: bytes) -> None:
    for data in (
        post(body, length(body)),
        post(chunks(*[body[i : i + 65536] for i in range(0, len(body), 65536)]), CHUNKED),
    ):
        with connect(server) as sock:
            sender = _Sender(sock, data)
            answer = read_all(sock)
            sender.join()
        assert not answer or status_of(answer) == 413


def test_a_declared_length_is_refused_before_the_body_comes(server: Running) -> None:
    with connect(server) as sock:
        sock.sendall(post(b"", b"Content-Length: 100000000"))
        answer = read_all(sock)
    assert (status_of(answer), error_of(answer)["code"]) == (413, "body_too_large")


def test_a_million_chunks_of_a_byte_are_cut_off() -> None:
    class Anything(msgspec.Struct):
        pass

    read: list[tuple[str | None, int]] = []

    async def watch(call: Call) -> web.StreamResponse:
        try:
            await call.body(Anything)
        except ApiError as error:
            read.append((error.code, call.http.content.total_bytes))
        return web.Response()

    with running(routes=(Route("POST", "/v1/completions", watch, "Watches", body=Anything),)) as server:
        with connect(server) as sock:
            sender = _Sender(sock, post(b"1\r\nx\r\n" * 1_000_000 + b"0\r\n\r\n", CHUNKED))
            read_all(sock)
            sender.join()
        assert [code for code, _ in read] == ["invalid_body"]
        assert read[0][1] < 100_000, "bytes of the body that were parsed"


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"nonsense"])
def test_compressed_bodies_are_refused_unread(server: Running, encoding: bytes) -> None:
    answer = exchange(server, post(b"\x1f\x8b" * 1000, length(b"x" * 2000), b"Content-Encoding: " + encoding))
    assert (status_of(answer), error_of(answer)["code"]) == (415, "unsupported_encoding")


def test_who_opens_many_connections_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALF_OPEN_SECONDS", 0.0)
    limits = Limits(header_seconds=600, keep_alive_seconds=600)
    with running(ServerConfig(limits=limits)) as patient, ExitStack() as stack:
        patient.runner.guard.half_open = 20
        socks = [stack.enter_context(connect(patient)) for _ in range(30)]
        for sock in socks[:10]:
            assert read_all(sock) == b""
        assert call(patient, "/livez").status == 200
        socks[-1].sendall(GOOD)
        assert status_of(read_all(socks[-1])) == 200


def test_connections_that_are_used_do_not_count(server: Running) -> None:
    with ExitStack() as stack:
        socks = []
        for _ in range(300):
            socks.append(stack.enter_context(connect(server)))
            assert ask(socks[-1])
        assert all(ask(sock) for sock in socks)


def ask(sock: socket.socket) -> bool:
    """Whether a connection answers, and stays open."""
    sock.sendall(GOOD.replace(b"Connection: close\r\n", b""))
    return sock.recv(4096).startswith(b"HTTP/1.1 200")


PIECES = (
    b"\r\n", b"\r", b"\n", b"\x00", b"\xff", b":", b" ", b"\t", b"?", b"#", b"//", b"%00", b"%ff", b"HTTP/1.0",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n", b"Host: [\r\n",
    b"X-Request-Id: \xe9\r\n", b"Authorization: Bearer \xff\r\n", b"Origin: http://[\r\n", b"Content-Type: ;;=\r\n",
    b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Cookie: =\r\n", b"Range: bytes=x\r\n",
)  # fmt: skip


def test_whatever_becomes_of_a_request_the_server_does_not_fail(hasty: Running) -> None:
    rng = random.Random(5)
    whole = [
        GOOD,
        post(BODY, length(BODY)),
        post(chunks(BODY), CHUNKED),
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    for _ in range(150):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 4)):
            place = rng.choice([rng.randrange(len(data)), data.index(b"\n") + 1 if b"\n" in data else 0])
            data[place : place + rng.choice([0, 0, 1, 8])] = rng.choice(PIECES)
        answer = exchange(hasty, bytes(data))
        assert answer == b"" or status_of(answer) < 500, bytes(data)
    assert status_of(exchange(hasty, GOOD)) == 200


class _Sender:
    """Sends on a thread, since the server may stop to read."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        def send() -> None:
            with suppress(OSError):
                sock.sendall(data)

        self._thread = threading.Thread(target=send)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
