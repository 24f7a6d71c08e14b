"""An engine that says what a test tells it to, for what no model can be made to say or to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sgl_like.errors import RequestAborted, SglError
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink, Usage
from sgl_like.runtime.server.engine.client import EngineState
from sgl_like.runtime.server.engine.local import info_of
from sgl_like.runtime.server.engine.wire import EngineInfo, Question
from tests.support.servers import shared_engine


class ScriptedEngine:
    """An `EngineClient` whose requests all say the same.

    Args:
        pieces: of the text; an error among them ends the request with it, ``None`` waits for `abort` or `go_on`.
        finish: the finish reason's type.
        matched: what ended the output.
    """

    restarts = 0

    def __init__(
        self,
        pieces: Sequence[str | SglError | None],
        finish: Any = "stop",
        matched: int | str | None = None,
        info: EngineInfo | None = None,
    ) -> None:
        self.info: EngineInfo | None = info or info_of(shared_engine())
        self.state: EngineState = "ready"
        self.requests: list[GenerateRequest] = []
        self.aborted: list[str] = []
        self._pieces = pieces
        self._finish = FinishReason(finish, matched)
        self._waiting: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """See `EngineClient`."""
        self.requests.append(request)
        self._waiting[request.rid] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._run(request, receive))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, request: GenerateRequest, receive: OutputSink) -> None:
        said = 0
        for piece in self._pieces:
            await asyncio.sleep(0)
            if piece is None:
                await self._waiting[request.rid].wait()
            usage = Usage(len(request.input_ids), said)
            error = RequestAborted("the request was aborted") if request.rid in self.aborted else piece
            if isinstance(error, SglError):
                kind: Any = "abort" if isinstance(error, RequestAborted) else "error"
                receive(Output(request.rid, finish=FinishReason(kind), error=error, usage=usage))
                return
            if piece is not None:
                said += 1
                receive(Output(request.rid, piece, (said,), usage=Usage(len(request.input_ids), said)))
        receive(Output(request.rid, finish=self._finish, usage=Usage(len(request.input_ids), said)))

    def abort(self, rid: str) -> None:
        """See `EngineClient`."""
        self.aborted.append(rid)
        self._waiting[rid].set()

    async def ask(self, what: Question, **arguments: Any) -> Any:
        """See `EngineClient`."""
        raise AssertionError(f"nobody should ask for {what}")

    async def start(self) -> None:
        """It runs already."""

    async def close(self) -> None:
        """See `EngineClient`."""
        self.state = "stopped"
