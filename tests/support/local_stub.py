"""The stub engine in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sgl_like.errors import RequestError
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.config import StubConfig
from sgl_like.runtime.server.engine.client import EngineState
from sgl_like.runtime.server.engine.stub import StubEngine
from sgl_like.runtime.server.engine.wire import EngineInfo, Question


class LocalStub:
    """An `EngineClient` over a `StubEngine`."""

    restarts = 0

    def __init__(self, engine: StubEngine) -> None:
        self._engine = engine
        self.info: EngineInfo | None = engine.info()
        self.state: EngineState = "ready"

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
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
        self._engine.abort(rid)

    async def ask(self, what: Question, **arguments: Any) -> Any:
        return await asyncio.to_thread(self._engine.answer, what, arguments)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.state = "stopped"


@contextmanager
def stub(**config: Any) -> Iterator[LocalStub]:
    """An engine until the end of the block."""
    engine = StubEngine(None, StubConfig(**config))
    try:
        yield LocalStub(engine)
    finally:
        engine.shutdown()
