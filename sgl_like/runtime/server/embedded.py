"""A server within a process that has an engine anyway, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading

from aiohttp import web

from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.http.app import build_app
from sgl_like.runtime.server.http.connection import Guard, GuardedRunner
from sgl_like.runtime.server.server import Server


class EmbeddedServer:
    """Serves an engine on a free port of this machine, to this machine, until it is closed.

    Args:
        engine: goes on when the server is closed.
    """

    def __init__(self, engine: Engine) -> None:
        template = engine.config.chat_template
        options = {} if template is None else {"chat_template": template}
        server = Server(ServerConfig(model=engine.model_path, engine=options), LocalEngine(engine))
        self._runner = GuardedRunner(build_app(server), Guard(server.config.limits))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sgl-server", daemon=True)
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def close(self) -> None:
        """Close the connections and the port."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"
