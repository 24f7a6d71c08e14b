"""CPU time of the server's front process for a request and for a chunk, with an engine that costs next to nothing.

    python examples/bench/front_cost.py [--requests 2000] [--at-once 64]

The server runs in a process of its own, under uvloop; the client is raw sockets in this one. What a request costs is
measured with answers of 1 and of 33 chunks; the difference is what 32 chunks cost, each with its own write.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
from typing import Any

CHAT = {"messages": [{"role": "user", "content": "play some jazz, please"}]}
BODIES = {"/v1/completions": {"prompt": "play some jazz, please"}, "/v1/chat/completions": CHAT}


def serve(pieces: int, pipe: Any) -> None:
    """The server, until the pipe says enough; then its CPU seconds are sent."""
    from pathlib import Path

    import uvloop
    from aiohttp import web

    from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink, Usage
    from sgl_like.runtime.server.config import ServerConfig
    from sgl_like.runtime.server.engine.wire import EngineInfo
    from sgl_like.runtime.server.http.app import build_app
    from sgl_like.runtime.server.http.connection import Guard, GuardedRunner
    from sgl_like.runtime.server.limits import Limits
    from sgl_like.runtime.server.server import Server

    folder = Path(__file__).parents[2] / "sgl_like" / "assets" / "tiny"

    class Instant:
        """An engine that says the same piece in each turn of the loop."""

        restarts = 0
        state = "ready"
        info = EngineInfo(str(folder), 4096, 1024, 1 << 20, 1024, 0)

        def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
            """See `EngineClient`."""
            loop, usage = asyncio.get_running_loop(), Usage(8, 16)
            piece = Output(request.rid, " token", (7,), usage=usage)
            last = Output(request.rid, " token", (7,), FinishReason("length"), usage=usage)

            def say(left: int) -> None:
                receive(piece if left else last)
                if left:
                    loop.call_soon(loop.call_soon, say, left - 1)  # the writer has its turn in between

            loop.call_soon(say, pieces - 1)

        def abort(self, rid: str) -> None:
            """See `EngineClient`."""

    async def run() -> None:
        server = Server(ServerConfig(limits=Limits(queue_requests=100_000)), Instant())  # type: ignore[arg-type]
        runner = GuardedRunner(build_app(server), Guard(server.config.limits))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(None, pipe.recv)
            used = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(used.ru_utime + used.ru_stime)

    uvloop.run(run())


async def load(port: int, path: str, stream: bool, requests: int, at_once: int) -> None:
    """Send requests over connections that are kept."""
    body = json.dumps({"model": "tiny", "max_tokens": 64, "stream": stream, **BODIES[path]}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    message, end = head.encode() + body, b"0\r\n\r\n" if stream else b"}"

    async def one(count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        for _ in range(count):
            writer.write(message)
            if stream:
                await reader.readuntil(end)
            else:
                answer = await reader.readuntil(b"\r\n\r\n")
                size = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
        writer.close()

    await asyncio.gather(*(one(requests // at_once) for _ in range(at_once)))


def measure(path: str, stream: bool, pieces: int, requests: int, at_once: int) -> float:
    """Microseconds of the front process for a request."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(pieces, theirs), daemon=True)
    process.start()
    port = ours.recv()
    asyncio.run(load(port, path, stream, 4 * at_once, at_once))
    ours.send(None)
    before = ours.recv()
    asyncio.run(load(port, path, stream, requests, at_once))
    ours.send(None)
    used = ours.recv() - before
    process.kill()
    return float(used) / (requests // at_once * at_once) * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=64)
    options = parser.parse_args()
    print(f"{'path':24} {'whole us':>9} {'1 chunk us':>11} {'us / chunk':>11}")
    for path in BODIES:
        whole, one, many = (
            measure(path, stream, pieces, options.requests, options.at_once)
            for stream, pieces in ((False, 1), (True, 1), (True, 33))
        )
        print(f"{path:24} {whole:9.0f} {one:11.0f} {(many - one) / 32:11.1f}")


if __name__ == "__main__":
    main()
