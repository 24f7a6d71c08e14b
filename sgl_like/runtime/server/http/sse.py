"""Streams of server-sent events, for clients that may stop reading or go away at any time.

What waits for a client that does not read is bounded twice: in front of the socket by `connection.py`, which ends the
connection, and in front of the handler by `Generation`, which ends the requests. While nothing comes, a comment now and
then tells proxies and clients that the stream lives.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # for nginx
}
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
PING_SECONDS = 15.0
"""Of silence, after which there is a ping."""


class EventStream:
    """Writes events to a client.

    Args:
        http: the request that it answers.
        headers: of the answer, besides those of every stream.
        ping_seconds: of silence, after which there is a ping.
        ping: what is sent then; nothing: streams in another form may have no room for it.
    """

    def __init__(
        self,
        http: web.Request,
        headers: dict[str, str] | None = None,
        ping_seconds: float = PING_SECONDS,
        ping: bytes = PING,
    ) -> None:
        self._http = http
        self._response = web.StreamResponse(headers=_HEADERS | (headers or {}))
        self._loop = asyncio.get_running_loop()
        self._ping_seconds = ping_seconds
        self._ping_data = ping
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Send the headers."""
        self._http[STREAM] = self
        await self._response.prepare(self._http)
        self._last = self._loop.time()
        if self._ping_data:
            self._timer = self._loop.call_later(self._ping_seconds, self._look)

    async def send(self, value: Any, event: str | None = None) -> None:
        """Send an event whose data is `value` as JSON.

        Raises:
            ConnectionResetError: the client is gone.
        """
        name = b"" if event is None else b"event: " + event.encode() + b"\n"
        await self.write(name + b"data: " + msgspec.json.encode(value) + b"\n\n")

    async def write(self, data: bytes) -> None:
        """Send bytes as they are: one or several whole events.

        Raises:
            ConnectionResetError: the client is gone.
        """
        self._last = self._loop.time()
        await self._response.write(data)

    async def close(self) -> web.StreamResponse:
        """End the stream; what a handler returns."""
        self.stop()
        await self._response.write_eof()
        return self._response

    def stop(self) -> None:
        """No more pings."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        silent = self._loop.time() - self._last
        transport = self._http.transport
        if transport is None or transport.is_closing():
            return
        if silent >= self._ping_seconds and not self._http.protocol.writing_paused:
            self._ping = self._loop.create_task(self._send_ping())
            silent = 0.0
        self._timer = self._loop.call_later(self._ping_seconds - silent, self._look)

    async def _send_ping(self) -> None:
        if self._timer is None:  # the stream has ended since
            return
        try:
            await self.write(self._ping_data)
        except ConnectionResetError:
            self.stop()


STREAM = web.RequestKey("stream", EventStream)
"""Where a request has its stream, once it is open."""
