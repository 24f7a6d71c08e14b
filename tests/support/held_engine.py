"""An engine that says what the test says, when the test says it."""

from __future__ import annotations

from typing import Any

from sgl_like.errors import RequestAborted
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink, Usage
from sgl_like.runtime.server.engine.client import EngineState
from sgl_like.runtime.server.engine.wire import EngineInfo, Question


class HeldEngine:
    """An `EngineClient` without a model. Its methods are for the server's event loop, as those of any.

    Args:
        model_path: whose tokenizer the server uses.
        running: `max_running_requests`.
    """

    restarts = 0

    def __init__(self, model_path: str = "", running: int = 8) -> None:
        self.state: EngineState = "ready"
        self.info: EngineInfo | None = EngineInfo(model_path, 4096, 2048, 100_000, running, pid=0)
        self.held: dict[str, tuple[GenerateRequest, OutputSink]] = {}
        self.aborted: list[str] = []

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        self.held[request.rid] = (request, receive)

    def abort(self, rid: str) -> None:
        if rid in self.held:
            self.aborted.append(rid)
            _, receive = self.held.pop(rid)
            receive(
                Output(rid, finish=FinishReason("abort"), error=RequestAborted("the request was cancelled"))
            )

    def say(self, rid: str, text: str) -> None:
        """A piece of a request's output."""
        self.held[rid][1](Output(rid, text, (1,)))

    def finish(self, rid: str, text: str = "", type: Any = "stop") -> None:
        """The end of a request."""
        request, receive = self.held.pop(rid)
        receive(Output(rid, text, (1,), FinishReason(type), usage=Usage(len(request.input_ids), 1)))

    async def ask(self, what: Question, **arguments: Any) -> Any:
        return {}

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        for rid in [*self.held]:
            self.abort(rid)
