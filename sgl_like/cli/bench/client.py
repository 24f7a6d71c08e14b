"""HTTP connections that are kept, and what happens on one of them."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from sgl_like.cli.bench.responses import ProtocolError, ResponseReader
from sgl_like.errors import DataError

Clock = Callable[[], float]


class Exchange(ABC):
    """One request and what comes of it. `end` or `fail` is called once, unless somebody leaves before.

    Args:
        request: as it is sent.
    """

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.connection: Connection | None = None
        self.left = False

    def leave(self) -> None:
        """Close its connection at once; nothing more is heard."""
        self.left = True
        if self.connection is not None:
            self.connection.leave()

    @abstractmethod
    def receive(self, response: ResponseReader, body: bytes, now: float) -> bool:
        """Take bytes of the response's body. ``False``: leave."""

    @abstractmethod
    def end(self, response: ResponseReader, now: float) -> None:
        """The response is whole."""

    @abstractmethod
    def fail(self, kind: str, now: float) -> None:
        """The response will not be whole."""


class Connection(asyncio.Protocol):
    """A connection; at most one exchange at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._response = ResponseReader()
        self._exchange: Exchange | None = None
        self._fresh = True  # no exchange has ended on it
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclasses

    def start(self, exchange: Exchange) -> None:
        """Send a request."""
        assert self._transport is not None
        self._exchange, exchange.connection = exchange, self
        self._response.begin()
        self._transport.write(exchange.request)

    def leave(self) -> None:
        """Close at once, whatever is under way."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = self._client.clock()
        exchange, response = self._exchange, self._response
        if exchange is None:
            self.leave()
            return
        try:
            body = response.feed(data)
        except ProtocolError:
            self.leave()
            exchange.fail("protocol", now)
            return
        if body and not exchange.receive(response, body, now):
            exchange.leave()
        elif response.done:
            self._exchange = exchange.connection = None
            self._fresh = False
            if response.keep_alive:
                self._client.keep(self)
            else:
                self.leave()
            exchange.end(response, now)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self._client.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.connection = None
        if self._response.ends_at_close and error is None:
            exchange.end(self._response, self._client.clock())
        elif self._response.untouched and not self._fresh:
            # The server closed a connection that it thought idle, while the request was on its way.
            self._client.send(exchange)
        else:
            exchange.fail("broken" if self._response.status else "no_response", self._client.clock())


class Client:
    """Connections to one server.

    Args:
        url: of the server; only scheme, host and port count.
        clock: seconds.

    Raises:
        DataError: the URL is none.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(f"{url!r} is no http:// or https:// address")
        self.clock = clock
        self.connections = 0  # that were made
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: dict[Connection, None] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, exchange: Exchange) -> None:
        """Start an exchange, on a connection that is idle or a new one."""
        if self._idle:
            self._idle.popitem()[0].start(exchange)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(exchange))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def keep(self, connection: Connection) -> None:
        """An exchange has ended, and its connection may take another one."""
        self._idle[connection] = None

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._idle.pop(connection, None)

    def close(self) -> None:
        """End the connections that are idle or being made."""
        for task in self._connecting:
            task.cancel()
        while self._idle:
            self._idle.popitem()[0].leave()

    async def _connect(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                partial(Connection, self), self.host, self.port, ssl=self._ssl
            )
        except OSError as error:
            if not exchange.left:
                refused = isinstance(error, ConnectionRefusedError)
                exchange.fail("refused" if refused else "connect", self.clock())
            return
        self.connections += 1
        if exchange.left:
            connection.leave()
        else:
            connection.start(exchange)
