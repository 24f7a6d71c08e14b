"""A server from its first to its last moment: sockets, engine, signals.

SIGTERM ──> no new connections, /readyz 503, new requests 503
        ──> what runs may end within the grace
        ──> the rest ends with the finish reason "abort"; streams have their last events
        ──> exit 0
a second one ──> exit at once
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
from time import perf_counter
from typing import Any

import uvloop
from aiohttp import web

from sgl_like.errors import ConfigError
from sgl_like.runtime.config import EngineConfig
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.supervised import SupervisedEngine
from sgl_like.runtime.server.http.app import build_app
from sgl_like.runtime.server.http.connection import Guard, GuardedRunner
from sgl_like.runtime.server.observe.logs import start_logging
from sgl_like.runtime.server.server import Server

OPEN_FILES = 65536
BACKLOG = 4096
"""Connections that wait to be accepted."""
ACCEPTS = 16
"""Connections that are accepted in a turn of the event loop. libuv takes one for each socket that listens, which under
load is one every few milliseconds: new connections then wait for seconds while old ones are served at once."""
GARBAGE = (2_000, 10, 5)
"""Thresholds of the garbage collector. Larger ones leave more behind: with 5,000, 10, 10 the front has 50 MB more."""
_SHUTDOWN_SECONDS = 2.0
_LAST_SECONDS = 3.0
_POLL = 0.02


def serve(config: ServerConfig) -> None:
    """Run a server until a signal ends it. When it is ready, a line on standard output says where it is.

    Raises:
        ConfigError: an option cannot be used, or the address cannot be listened on.
        ModelLoadError: the model cannot be loaded.
    """
    config.check_open()
    EngineConfig.from_options(config.engine)
    listening = _listen(config.host, config.port)
    _raise_open_files()
    stop_logging = start_logging(config.log_level, config.log_format)
    try:
        with listening:
            uvloop.run(_serve(config, listening))
    finally:
        stop_logging()


async def _serve(config: ServerConfig, listening: socket.socket) -> None:
    begun = perf_counter()
    engine = SupervisedEngine(config)
    server = Server(config, engine)
    runner = GuardedRunner(build_app(server), Guard(config.limits), shutdown_timeout=_SHUTDOWN_SECONDS)
    stop = _watch_signals(engine)
    await runner.setup()
    sites = [web.SockSite(runner, listening.dup(), backlog=BACKLOG) for _ in range(ACCEPTS)]
    for site in sites:
        await site.start()
    await engine.start()
    try:
        if await _until_ready(engine, stop):
            await asyncio.to_thread(lambda: server.tokenizer)  # so that no request waits for it
            _settle_garbage()
            seconds = perf_counter() - begun
            url = _url(config.host, listening.getsockname()[1])
            print(f"sgl-like: {config.model_name} is ready at {url} ({seconds:.1f} s)", flush=True)
            await stop.wait()
        server.draining = True
        listening.close()  # the sites have copies of it; when the last one is closed, connections are refused
        for site in sites:
            await site.stop()
        await _drain(server, engine, config.grace)
    finally:
        await runner.cleanup()
        await engine.close()


def _settle_garbage() -> None:
    """What is there now stays, so the garbage collector need not look at it again; and it looks less often, as a
    thousand streams are a few hundred thousand objects (server_storm.py streams, 2 cores: 1,380 to 1,820 requests/s).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


async def _until_ready(engine: SupervisedEngine, stop: asyncio.Event) -> bool:
    """Whether the engine is ready; if not, `stop` came first.

    Raises:
        SglError: there never will be one.
    """
    ready = asyncio.create_task(engine.was_ready.wait())
    stopped = asyncio.create_task(stop.wait())
    waits: list[asyncio.Future[Any]] = [ready, stopped, engine.failed]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if engine.failed.done():
            raise engine.failed.result()
        return ready.done() and not stopped.done()
    finally:
        ready.cancel()
        stopped.cancel()


async def _drain(server: Server, engine: SupervisedEngine, grace: float) -> None:
    """Until no call has requests; what takes longer than `grace` is cut."""
    await _wait_for_calls(server, grace)
    server.observer.cut("drain")
    await engine.cut_all()
    await _wait_for_calls(server, _LAST_SECONDS)


async def _wait_for_calls(server: Server, seconds: float) -> None:
    until = perf_counter() + seconds
    calls = server.observer.calls
    while perf_counter() < until and any(call.requests for call in calls.values()):
        await asyncio.sleep(_POLL)


def _watch_signals(engine: SupervisedEngine) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT. The second one ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def receive(number: int) -> None:
        if stop.is_set():
            engine.kill_now()
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, receive, number)
    return stop


def _listen(host: str, port: int) -> socket.socket:
    """A socket that has the address but does not listen yet.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    return listening


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_open_files() -> None:
    """Each connection is an open file; 1,024 of them, a usual soft limit, are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
