"""Reading HTTP/1.1 responses as their bytes come in, without a copy or an object that a load generator can do without.

It shares its cores with the server that it measures: aiohttp's client takes about half a millisecond for a request.
"""

from __future__ import annotations

from enum import Enum, auto

MAX_HEAD = 64 * 1024
"""Bytes of the longest head, or line, that is read."""


class ProtocolError(Exception):
    """What came is no HTTP/1.1 response."""


class _State(Enum):
    HEAD = auto()
    LENGTH = auto()  # a body of known length
    UNTIL_CLOSE = auto()
    SIZE = auto()  # the line before a chunk
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ResponseReader:
    """Reads one response after another from a connection."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Expect the next response."""
        self.status = 0  # 0 until the head is there
        self.headers: dict[bytes, bytes] = {}  # names in lower case
        self.keep_alive = True
        self._state = _State.HEAD
        self._rest = b""
        self._left = 0

    @property
    def done(self) -> bool:
        """Whether the response is whole."""
        return self._state is _State.DONE

    @property
    def untouched(self) -> bool:
        """Whether nothing of the response has come."""
        return self._state is _State.HEAD and not self._rest

    @property
    def ends_at_close(self) -> bool:
        """Whether the end of the connection is the end of the response."""
        return self._state is _State.UNTIL_CLOSE

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the connection; gives those of the body among them.

        Raises:
            ProtocolError: they are not HTTP.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        elif self._state is _State.SIZE and (only := _only_chunk(data)):
            return only
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            state = self._state
            if state is _State.CHUNK or state is _State.LENGTH:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _State.CHUNK_END if state is _State.CHUNK else _State.DONE
            elif state is _State.UNTIL_CLOSE:
                pieces.append(data[at:])
                at = len(data)
            elif state is _State.DONE:
                raise ProtocolError("bytes after the end of a response")
            else:
                end = data.find(b"\r\n\r\n" if state is _State.HEAD else b"\r\n", at)
                if end < 0:
                    if len(data) - at > MAX_HEAD:
                        raise ProtocolError("a line without an end")
                    self._rest = data[at:]
                    break
                at = self._line(data, at, end)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _line(self, data: bytes, at: int, end: int) -> int:
        """Read the head, or a line between chunks; gives where the rest begins."""
        if self._state is _State.HEAD:
            self._head(data[at:end])
            return end + 4
        if self._state is _State.SIZE:
            digits = data[at:end].partition(b";")[0].strip()
            try:
                self._left = int(digits, 16)
            except ValueError:
                raise ProtocolError(f"{digits[:20]!r} is no size of a chunk") from None
            self._state = _State.CHUNK if self._left else _State.TRAILERS
        elif self._state is _State.CHUNK_END:
            if end != at:
                raise ProtocolError("a chunk is longer than it says")
            self._state = _State.SIZE
        elif end == at:
            self._state = _State.DONE
        return end + 2

    def _head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        parts = first.split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise ProtocolError(f"{first[:40]!r} is no status line")
        status = int(parts[1])
        if 100 <= status < 200:
            return  # an interim response; the next head follows
        self.status = status
        self.headers = headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)
        }
        connection = headers.get(b"connection", b"").lower()
        self.keep_alive = connection != b"close" and (parts[0] != b"HTTP/1.0" or connection == b"keep-alive")
        if headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            self._state = _State.SIZE
        elif b"content-length" in headers or status in (204, 304):
            try:
                self._left = int(headers.get(b"content-length", b"0"))
            except ValueError:
                raise ProtocolError("Content-Length is no number") from None
            self._state = _State.LENGTH if self._left > 0 else _State.DONE
        else:
            self._state = _State.UNTIL_CLOSE
            self.keep_alive = False


def _only_chunk(data: bytes) -> bytes:
    """The content of a chunk, if these bytes are one and nothing else, as those of streams mostly are."""
    end = data.find(b"\r\n")
    try:
        whole = int(data[:end], 16) == len(data) - end - 4 > 0
    except ValueError:
        return b""
    return data[end + 2 : -2] if whole and data.endswith(b"\r\n") else b""
