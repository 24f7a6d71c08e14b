"""Connections that no client can keep open for nothing.

aiohttp has limits on single headers and on their number, but no deadlines, and logs what clients do wrong. What is
added here, between the socket and aiohttp's parser:

    opened ── header_seconds ──> headers ── body_seconds (`bodies.py`) ──> body ──> answer ── stream_seconds to be read
      ^  at most HALF_OPEN of an address                                                            │
      └──────────────────────── keep_alive_seconds without a request <──────────────────────────────┘

- Of the connections whose headers are not there yet, an address has at most `HALF_OPEN`; beyond, its oldest ones are
  closed. (The newest may well be somebody else's behind the same address, and honest headers come in milliseconds.)
  Those that are younger than `HALF_OPEN_SECONDS` stay: a thousand that are accepted at once have all sent theirs, but
  nobody has had time to read them.
- There are never more connections than file descriptors for them, with some to spare.
- A client that does not read is cut off when what waits for it has not become less for `Limits.stream_seconds`.
- A chunked body whose chunks are mostly framing is refused: a million chunks of a byte cost seconds of parsing.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections import defaultdict
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from sgl_like.runtime.server.http.errors import ApiError, openai_body
from sgl_like.runtime.server.limits import Limits

log = logging.getLogger(__name__)

HALF_OPEN = 1024
HALF_OPEN_SECONDS = 1.0
LINGERING_SECONDS = 2.0
SPARE_FILES = 64
"""File descriptors that connections leave to everything else."""
UNSENT_BYTES = 64 * 1024
"""That the kernel takes for a client beyond what is on its way, so that a client that does not read is noticed."""
FRAMING_BYTES, FRAMING_RATIO = 64 * 1024, 3
"""Bytes of a request may be so many more than those of its body: the first, and the second for each of its bytes."""
_TCP_NOTSENT_LOWAT = 25


class HalfOpen(Protocol):
    """A connection whose headers are not there yet."""

    def give_up(self) -> None:
        """Close at once."""
        ...


class Guard:
    """What all connections of a server share.

    Args:
        limits: deadlines and sizes.
        half_open: connections of an address whose headers are not there yet.
        connections: at most; ``None``: as many as there are file descriptors, but for `SPARE_FILES`.
        clock: in seconds.
    """

    def __init__(
        self,
        limits: Limits,
        half_open: int = HALF_OPEN,
        connections: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.limits = limits
        self.half_open = half_open
        self.max_connections = connections
        self.connections = 0
        self.refused = 0
        self._clock = clock
        self._waiting: defaultdict[str, dict[HalfOpen, float]] = defaultdict(dict)  # and since when

    @property
    def waiting(self) -> int:
        """Connections whose headers are not there yet."""
        return sum(map(len, self._waiting.values()))

    def has_room(self) -> bool:
        """Whether one more connection may stay."""
        most = self.max_connections
        if most is None:
            most = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)
        return self.connections <= most

    def headers_begin(self, address: str, connection: HalfOpen) -> None:
        """A connection waits for its headers."""
        now = self._clock()
        waiting = self._waiting[address]
        waiting[connection] = now
        while len(waiting) > self.half_open:
            oldest = next(iter(waiting))
            if now - waiting[oldest] < HALF_OPEN_SECONDS:
                break
            del waiting[oldest]
            self.refused += 1
            oldest.give_up()

    def headers_end(self, address: str, connection: HalfOpen) -> None:
        """It has them, or is gone."""
        waiting = self._waiting.get(address)
        if waiting is not None:
            waiting.pop(connection, None)
            if not waiting:
                del self._waiting[address]


class GuardedHandler(RequestHandler):
    """One connection."""

    __slots__ = ("_address", "_deadline", "_guard", "_header_bytes", "_raw_bytes", "_slow")

    def __init__(self, manager: web.Server, guard: Guard, **options: Any) -> None:
        super().__init__(manager, **options)
        self._guard = guard
        self._address = ""
        self._deadline: asyncio.TimerHandle | None = None  # while headers are awaited
        self._slow: asyncio.TimerHandle | None = None  # while the client does not read
        self._header_bytes = 0
        self._raw_bytes = 0  # since the last headers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._guard.connections += 1
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if not self._guard.has_room():
            self._guard.refused += 1
            self.give_up()
            return
        self._await_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop to watch."""
        self._have_headers()
        self._stop_watching()
        self._guard.connections -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a client."""
        known = self._request_count
        if self._idle and self._deadline is None:
            self._await_headers()  # the next request on a connection that was kept open
        self._header_bytes += len(data)
        self._raw_bytes += len(data)
        super().data_received(data)
        if self._request_count != known:
            self._have_headers()
            self._raw_bytes = min(self._raw_bytes, len(data))
            self._end_payloads()
        elif self._deadline is not None and self._header_bytes > self._guard.limits.header_bytes:
            self._refuse_headers()
        elif self._raw_bytes > FRAMING_BYTES:
            self._check_framing()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        self._slow = self._loop.call_later(self._guard.limits.stream_seconds, self.give_up)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stop_watching()
        super().resume_writing()

    def give_up(self) -> None:
        """Close at once, whatever is under way."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp cannot parse, in OpenAI's shape, and without a traceback for each in the log."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone, which is nothing to write about
        if status >= 500:
            log.error("a request failed", exc_info=exc)
            error = ApiError(500, "the server failed", type="server_error")
        else:
            error = ApiError(status, "the request is not valid HTTP", code="invalid_http")
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer has begun; there is no place for the error")
        return plain_error(error)

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered, and the last one's body has been read or given up."""
        return self._waiter is not None and not self._waiter.done()

    def _await_headers(self) -> None:
        self._header_bytes = 0
        self._deadline = self._loop.call_later(self._guard.limits.header_seconds, self._headers_late)
        self._guard.headers_begin(self._address, self)

    def _headers_late(self) -> None:
        """Look at the socket once more: if the loop was held up, the headers may be there, unread."""
        self._deadline = self._loop.call_later(0.01, self.give_up)

    def _have_headers(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._guard.headers_end(self._address, self)

    def _stop_watching(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _refuse_headers(self) -> None:
        self._have_headers()
        if self.transport is not None:
            self.transport.write(_TOO_LARGE)
        self.force_close()

    def _end_payloads(self) -> None:
        """After an error of the parser nobody else tells the request whose body is being read."""
        message = self._messages[-1][0] if self._messages else None
        broken = getattr(message, "exc", None)
        if isinstance(broken, HttpProcessingError) and self._current_request is not None:
            self._break_off(self._current_request.content, "it is not valid HTTP")

    def _check_framing(self) -> None:
        request = self._current_request
        if request is None:
            return
        if self._raw_bytes > FRAMING_BYTES + FRAMING_RATIO * request.content.total_raw_bytes:
            self._break_off(request.content, "its chunks are too small")

    def _break_off(self, payload: StreamReader, reason: str) -> None:
        if not payload.is_eof() and payload.exception() is None:
            payload.set_exception(RequestPayloadError(reason))
            payload.feed_eof()  # nobody has to wait for the rest of it
            self._close = True


class GuardedServer(web.Server):
    """Makes a `GuardedHandler` for each connection."""

    def __init__(self, made: web.Server, guard: Guard, **options: Any) -> None:
        super().__init__(
            made.request_handler, request_factory=made.request_factory, handler_cancellation=True, **options
        )
        self.guard = guard

    def __call__(self) -> RequestHandler:
        """For a new connection."""
        return GuardedHandler(self, self.guard, loop=self._loop, **self._kwargs)


class GuardedRunner(web.AppRunner):
    """Runs an application behind a `Guard`.

    Args:
        app: made by `build_app`.
        guard: its limits.
    """

    def __init__(self, app: web.Application, guard: Guard, **options: Any) -> None:
        super().__init__(app, **options)
        self.guard = guard

    async def _make_server(self) -> web.Server:
        limits = self.guard.limits
        return GuardedServer(
            await super()._make_server(),
            self.guard,
            access_log=None,
            keepalive_timeout=limits.keep_alive_seconds,
            lingering_time=LINGERING_SECONDS,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            max_headers=limits.headers,
            auto_decompress=False,
        )


def plain_error(error: ApiError) -> web.Response:
    """An error outside of any route, after which the connection is closed."""
    response = web.Response(
        body=msgspec.json.encode(openai_body(error)), status=error.status, content_type="application/json"
    )
    response.headers["Server"] = "sgl_like"
    response.force_close()
    return response


def _raw_error(error: ApiError, reason: str) -> bytes:
    body = msgspec.json.encode(openai_body(error))
    head = (
        f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: application/json\r\nServer: sgl_like\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


_TOO_LARGE = _raw_error(
    ApiError(431, "the headers are too long", code="headers_too_large"), "Request Header Fields Too Large"
)
