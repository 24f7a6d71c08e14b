"""What the engine's process asks of the engine that it holds: the real one, or the stub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sgl_like.runtime.engine.activity import Activity
from sgl_like.runtime.protocol import GenerateRequest, OutputSink
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.engine.wire import EngineInfo, Question


class HostedEngine(Protocol):
    """An engine within its process. Its methods may be called from any thread."""

    @property
    def activity(self) -> Activity:
        """What its thread does."""
        ...

    def info(self) -> EngineInfo:
        """What the front needs to know."""
        ...

    def warm_up(self) -> None:
        """Run whatever is slow the first time."""
        ...

    def prepare(self, params: SamplingParams) -> None:
        """Compile the constraint of some parameters, and find the mask of its first token; may take long.

        Raises:
            ConstraintError: it cannot be compiled.
        """
        ...

    def submit(self, request: GenerateRequest, on_output: OutputSink) -> None:
        """Start a request; `on_output` is called on the engine's thread.

        Raises:
            SglError: it cannot be run; it gets no output then.
        """
        ...

    def abort(self, rid: str) -> None:
        """End a request early."""
        ...

    def answer(self, what: Question, arguments: Mapping[str, Any]) -> Any:
        """Answer a question; waits for the step to end."""
        ...

    def shutdown(self) -> None:
        """End all requests, and keep what is to be kept."""
        ...
