"""Servers for tests: the application on a free port of this machine, with an engine in the test's own process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import uvloop
from aiohttp import web

import sgl_like
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.client import EngineClient
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.http.app import ROUTES, build_app
from sgl_like.runtime.server.http.connection import Guard, GuardedRunner
from sgl_like.runtime.server.http.routes import Route
from sgl_like.runtime.server.server import Server


@cache
def shared_engine() -> sgl_like.Engine:
    """One engine with the embedded model, in float32, for all tests of a process; never shut down."""
    return sgl_like.Engine(dtype="float32", kv_cache_memory=64 * 1024 * 1024)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return as soon as a condition holds, and fail if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true after {seconds:g} s"
        time.sleep(0.005)


@dataclass
class Running:
    """A server that runs on a thread of its own."""

    url: str
    server: Server
    loop: asyncio.AbstractEventLoop
    runner: GuardedRunner


@contextmanager
def running(
    config: ServerConfig | None = None, engine: EngineClient | None = None, routes: Sequence[Route] = ROUTES
) -> Iterator[Running]:
    """A server until the end of the block."""
    server = Server(config or ServerConfig(), engine or LocalEngine(shared_engine()))
    loop = uvloop.new_event_loop()  # as `sgl-like serve` has it
    runner = GuardedRunner(build_app(server, routes), Guard(server.config.limits))

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        url = asyncio.run_coroutine_threadsafe(start(), loop).result()
        yield Running(url, server, loop, runner)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
