"""Frames on a socket: a length in 4 bytes, most significant first, and then so many bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from sgl_like.runtime.server.engine.wire import MAX_FRAME

_HEAD = 4


class Frames(asyncio.Protocol):
    """Both directions of one connection, on an event loop.

    Args:
        receive: gets every frame that comes, as bytes.
        lost: called once, when the other side is gone or has broken the rules.
    """

    def __init__(self, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(
        cls, sock: socket.socket, receive: Callable[[bytes], None], lost: Callable[[], None]
    ) -> Frames:
        """Over a socket that is connected already; it belongs to the result then."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, frames = await loop.create_unix_connection(lambda: cls(receive, lost), sock=sock)
        return frames

    def send(self, frame: bytes) -> None:
        """Send a frame; if the connection is gone, nothing happens.

        Raises:
            ValueError: it is longer than `MAX_FRAME`.
        """
        if len(frame) > MAX_FRAME:
            raise ValueError(f"a frame of {len(frame)} bytes; the limit is {MAX_FRAME}")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines((len(frame).to_bytes(_HEAD, "big"), frame))

    @property
    def unsent(self) -> int:
        """Bytes that the other side has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """End the connection after what was sent; `lost` is called."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no such class

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD:
            length = int.from_bytes(buffer[at : at + _HEAD], "big")
            if length > MAX_FRAME:
                assert self._transport is not None
                self._transport.abort()
                break
            if len(buffer) - at < _HEAD + length:
                break
            frame = bytes(buffer[at + _HEAD : at + _HEAD + length])
            at += _HEAD + length
            self._receive(frame)
        del buffer[:at]

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._lost()
