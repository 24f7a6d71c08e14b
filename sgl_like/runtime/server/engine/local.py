"""An engine in the server's own process: for tests, and for whoever wants no second process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from sgl_like.errors import EngineUnavailable, RequestError
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.engine.client import EngineState
from sgl_like.runtime.server.engine.hosted import HostedEngine
from sgl_like.runtime.server.engine.wire import EngineInfo, Question


class LocalEngine:
    """An `EngineClient` over an engine of this process.

    Args:
        engine: is not shut down at the end; whoever made it does that.
    """

    restarts = 0

    def __init__(self, engine: HostedEngine) -> None:
        self._engine = engine
        self.info: EngineInfo | None = engine.info()
        self.state: EngineState = "ready"

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """See `EngineClient`."""
        if self.state != "ready":
            raise EngineUnavailable("the engine is stopped")
        loop = asyncio.get_running_loop()

        def deliver(output: Output) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(receive, output)

        try:
            self._engine.submit(request, deliver)
        except RequestError as error:
            finish = FinishReason("error", message=str(error))
            loop.call_soon(receive, Output(request.rid, finish=finish, error=error))

    def abort(self, rid: str) -> None:
        """See `EngineClient`."""
        self._engine.abort(rid)

    async def ask(self, what: Question, **arguments: Any) -> Any:
        """See `EngineClient`."""
        return await asyncio.to_thread(self._engine.answer, what, arguments)

    async def start(self) -> None:
        """It runs already."""

    async def close(self) -> None:
        """See `EngineClient`; the engine itself goes on."""
        self.state = "stopped"
