"""Streams of server-sent events, for clients that may stop reading or go away at any time."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
DONE = b"data: [DONE]\n\n"


class EventStream:
    """Writes events to a client.

    Args:
        http: the request that it answers.
    """

    def __init__(self, http: web.Request, headers: dict[str, str] | None = None) -> None:
        self._http = http
        self._response = web.StreamResponse(headers=_HEADERS | (headers or {}))

    async def open(self) -> None:
        """Send the headers."""
        await self._response.prepare(self._http)

    async def send(self, value: Any, event: str | None = None) -> None:
        """Send an event whose data is `value` as JSON.

        Raises:
            ConnectionResetError: the client is gone.
        """
        name = b"" if event is None else b"event: " + event.encode() + b"\n"
        await self._response.write(name + b"data: " + msgspec.json.encode(value) + b"\n\n")

    async def write(self, data: bytes) -> None:
        """Send bytes as they are: one or several whole events.

        Raises:
            ConnectionResetError: the client is gone.
        """
        await self._response.write(data)

    async def close(self) -> web.StreamResponse:
        """End the stream; what a handler returns."""
        await self._response.write_eof()
        return self._response
