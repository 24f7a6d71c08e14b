"""Clients that see what is on the wire: one request with the standard library, and bytes over a socket."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.servers import Running

PATIENCE = 60.0
"""Seconds after which a read fails: a limit for what would otherwise hang."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def address(server: Running) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(server.url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def call(
    server: Running,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    key: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own; `body` is sent as JSON unless it is bytes."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    with closing(http.client.HTTPConnection(*address(server), timeout=PATIENCE)) as connection:
        connection.request(method or ("GET" if data is None else "POST"), path, data, sent | (headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def connect(server: Running) -> socket.socket:
    """An open connection."""
    return socket.create_connection(address(server), timeout=PATIENCE)


def exchange(server: Running, data: bytes) -> bytes:
    """Send bytes, and read until the server closes; a reset is an end, too."""
    with connect(server) as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the end."""
    found = bytearray()
    with suppress(ConnectionError):
        while data := sock.recv(65536):
            found += data
    return bytes(found)


def status_of(answer: bytes) -> int:
    """Of the first answer in `answer`."""
    assert answer.startswith(b"HTTP/1."), answer[:100]
    return int(answer.split(b" ", 2)[1])
