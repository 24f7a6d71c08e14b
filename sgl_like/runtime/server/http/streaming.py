"""Answers that are sent while they come into being, in any dialect.

An async generator makes them, piece by piece. What it raises before the first piece is the call's answer, with a status
of its own; after that the status is sent already, and the error becomes the last piece.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from sgl_like.runtime.server.http.errors import ApiError, api_error
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.http.sse import PING, PING_SECONDS, EventStream

log = logging.getLogger(__name__)


async def send_stream(
    call: Call,
    pieces: AsyncGenerator[bytes, None],
    failure: Callable[[ApiError], bytes],
    headers: dict[str, str] | None = None,
    ping: bytes = PING,
) -> web.StreamResponse:
    """Send what a generator makes.

    Args:
        call: whose answer it is.
        pieces: each is sent at once; an empty first one only sends the headers. Closed when the client goes away.
        failure: an error as the last piece.
        headers: besides those of an event stream, or instead of them.
        ping: what tells after some silence that the stream lives; empty: nothing does.

    Raises:
        ConnectionResetError: the client is gone.
    """
    async with aclosing(pieces):
        first = await anext(pieces)
        stream = EventStream(call.http, headers, PING_SECONDS, ping)
        await stream.open()
        try:
            if first:
                await stream.write(first)
            async for piece in pieces:
                await stream.write(piece)
        except (asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception as error:
            answer = api_error(error)
            if answer.status == 500:
                log.exception("call %s failed while it was answered", call.id)
            await stream.write(failure(answer))
        return await stream.close()


def typed_event(value: dict[str, Any]) -> bytes:
    """A server-sent event whose name is its data's ``type``."""
    name: str = value["type"]
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"


def json_line(value: Any) -> bytes:
    """JSON and a line break."""
    return msgspec.json.encode(value) + b"\n"
