"""An HTTP server on loopback that answers by a script, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: Any = None  # the client's end of it


@dataclass
class Reply:
    """What to answer.

    `chunks` are written one by one, each in a packet of its own as far as that can be had; `breaks` cuts the
    connection after them, `hangs` keeps it open and silent.
    """

    json: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Sequence[bytes] | None = None
    breaks: bool = False
    hangs: bool = False


Script = Callable[[Asked], Reply]


def sse(*events: Any, done: bool = True) -> bytes:
    """Server-sent events as engines write them."""
    text = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return (text + ("data: [DONE]\n\n" if done else "")).encode()


def bytewise(data: bytes) -> list[bytes]:
    """Cut at every byte."""
    return [data[at : at + 1] for at in range(len(data))]


class FakeServer:
    """Answers ``script(asked)``; a list of replies is given in order."""

    def __init__(self, script: Script | Sequence[Reply]) -> None:
        self.asked: list[Asked] = []
        self.disconnected = threading.Event()  # a client has gone away before the end of an answer
        self.hanging = threading.Event()  # an answer that hangs has begun
        self._script = script
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-server", daemon=True)
        self._free = asyncio.Event()
        self.url = ""

    def bodies(self) -> list[Any]:
        """The JSON of all requests that had one."""
        return [asked.body for asked in self.asked if asked.body is not None]

    def __enter__(self) -> FakeServer:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._free.set)
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        body = json.loads(text) if text else None
        asked = Asked(request.method, request.path, dict(request.headers), body, peer)
        self.asked.append(asked)
        reply = self._script(asked) if callable(self._script) else self._script[len(self.asked) - 1]
        if reply.chunks is None and not reply.hangs and not reply.breaks:
            return web.json_response(reply.json, status=reply.status, headers=reply.headers)
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        try:
            if reply.chunks is not None:
                await response.prepare(request)
                for chunk in reply.chunks:
                    await response.write(chunk)
                    await asyncio.sleep(0)
            if reply.hangs:
                self.hanging.set()
                await self._free.wait()
        except (asyncio.CancelledError, ConnectionError):
            self.disconnected.set()
            raise
        if reply.breaks:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response
