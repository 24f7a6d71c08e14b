"""An engine in the server's own process: for tests, and for whoever wants no second process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from sgl_like.errors import EngineUnavailable, RequestError
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.engine.client import EngineState
from sgl_like.runtime.server.engine.wire import EngineInfo, Question


def info_of(engine: Engine) -> EngineInfo:
    """What a server needs to know about an engine."""
    info = engine.get_server_info()
    return EngineInfo(
        model_path=engine.model_path,
        vocab_size=engine.tokenizer.vocab_size,
        context_length=info["context_length"],
        kv_slots=info["kv_slots"],
        max_running_requests=info["max_running_requests"],
        pid=os.getpid(),
    )


def answer(engine: Engine, what: Question, arguments: Mapping[str, Any]) -> Any:
    """Answers a question about the engine as a whole. Waits for the engine's step to end."""
    questions: dict[str, Callable[[], Any]] = {
        "stats": engine.get_server_info,
        "flush_cache": engine.flush_cache,
        "check_invariants": engine.check_invariants,
        "tree": engine.tree,
    }
    return questions[what](**arguments)


class LocalEngine:
    """An `EngineClient` over an `Engine` of this process.

    Args:
        engine: is not shut down at the end; whoever made it does that.
    """

    restarts = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.info: EngineInfo | None = info_of(engine)
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
        return await asyncio.to_thread(answer, self._engine, what, arguments)

    async def start(self) -> None:
        """It runs already."""

    async def close(self) -> None:
        """See `EngineClient`; the engine itself goes on."""
        self.state = "stopped"
