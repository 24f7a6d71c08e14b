"""An engine that works until it breaks: for what clients are told when it does."""

from __future__ import annotations

from dataclasses import replace

from sgl_like.errors import EngineUnavailable, RequestAborted, SglError
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.engine.local import LocalEngine
from tests.support.servers import shared_engine


class HoldingEngine(LocalEngine):
    """The shared engine; after the first output of a request all others wait until `release`."""

    def __init__(self) -> None:
        super().__init__(shared_engine())
        self._held: list[tuple[OutputSink, Output]] = []
        self._released = False

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """See `EngineClient`."""
        seen: list[Output] = []

        def pass_on(output: Output) -> None:
            if seen and not self._released:
                self._held.append((receive, output))
            else:
                receive(output)
            seen.append(output)

        super().submit(replace(request, stream=True), pass_on)

    def release(self) -> None:
        """On the server's event loop."""
        self._released = True
        for receive, output in self._held:
            receive(output)


class BreakingEngine(LocalEngine):
    """The shared engine; every request ends after its first `outputs` outputs.

    Args:
        outputs: that get through.
        finish: how requests end then: ``"error"`` as when the engine has died, ``"abort"`` as when the server stops.
    """

    def __init__(self, outputs: int, finish: str) -> None:
        super().__init__(shared_engine())
        self._outputs, self._finish = outputs, finish
        self.aborted: list[str] = []

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """See `EngineClient`."""
        seen = 0

        def pass_on(output: Output) -> None:
            nonlocal seen
            seen += 1
            if seen <= self._outputs:
                receive(output)
            elif seen == self._outputs + 1:
                receive(replace(output, text="", token_ids=(), output_logprobs=(), **self._end()))
                super(BreakingEngine, self).abort(request.rid)

        super().submit(replace(request, stream=True), pass_on)

    def abort(self, rid: str) -> None:
        """See `EngineClient`."""
        self.aborted.append(rid)
        super().abort(rid)

    def _end(self) -> dict[str, FinishReason | SglError]:
        if self._finish == "abort":
            return {"finish": FinishReason("abort"), "error": RequestAborted("the server stops")}
        return {"finish": FinishReason("error"), "error": EngineUnavailable("the engine has died")}
