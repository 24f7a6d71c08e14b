"""A proxy between a client and a server that counts connections, and breaks them off in the middle of an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Runs on a thread of its own while `proxied` has it.

    Attributes:
        url: its address.
        connections: how many there were.
        cuts: after so many bytes from the server a connection breaks off; then the next number counts.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._to = parts.hostname, parts.port
        self.url = ""
        self.connections = 0
        self.cuts: list[int] = []

    async def start(self) -> asyncio.Server:
        """Listen."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection(*self._to)
        pumps = [
            asyncio.create_task(self._pump(reader, back, False)),
            asyncio.create_task(self._pump(there, writer, True)),
        ]
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for each in (writer, back):
            each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                broken = False
                if cut and self.cuts:
                    data = data[: self.cuts[0]]
                    self.cuts[0] -= len(data)
                    broken = self.cuts[0] == 0
                writer.write(data)
                await writer.drain()
                if broken:
                    del self.cuts[0]
                    return


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy in front of the server at `target`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Proxy(target)
    server = asyncio.run_coroutine_threadsafe(proxy.start(), loop).result()

    async def close() -> None:
        server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
