"""A server that answers as it is told, and writes down what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Seen:
    """A request that came, and its connection."""

    server: Fake
    body: dict[str, Any]
    headers: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: int
    number: int

    def chunk(self, value: object) -> None:
        data = value if isinstance(value, bytes) else b"data: " + orjson.dumps(value) + b"\n\n"
        if not self.writer.is_closing():  # the client may have left
            self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def text(self, tokens: int, finish: bool = True) -> None:
        """A stream of so many tokens; with its end, or not."""
        self.writer.write(HEAD)
        for at in range(tokens):
            last = finish and at == tokens - 1
            self.chunk({"choices": [{"index": 0, "text": "x", "finish_reason": "length" if last else None}]})
            await asyncio.sleep(0)
        if finish:
            usage = {
                "prompt_tokens": 10,
                "completion_tokens": tokens,
                "prompt_tokens_details": {"cached_tokens": 4},
            }
            self.chunk({"choices": [], "usage": usage})
            self.chunk(b"data: [DONE]\n\n")
            self.writer.write(b"0\r\n\r\n")

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await asyncio.wait_for(self.reader.read(1), 30):
                pass
        except ConnectionError:
            pass


Behaviour = Callable[[Seen], Awaitable[None]]


@dataclass
class Fake:
    """What the server has seen."""

    url: str = ""
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    now: int = 0
    most: int = 0
    ended: int = 0


@asynccontextmanager
async def fake(behave: Behaviour) -> AsyncIterator[Fake]:
    """A server whose every request is answered by `behave`. It keeps connections as long as that leaves them open."""
    state = Fake()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        connection, state.connections = state.connections, state.connections + 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                content = orjson.loads(await reader.readexactly(length))
                seen = Seen(state, content, head, reader, writer, connection, len(state.requests))
                state.requests.append(seen)
                state.now += 1
                state.most = max(state.most, state.now)
                try:
                    await behave(seen)
                finally:
                    state.now -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            state.ended += 1
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
