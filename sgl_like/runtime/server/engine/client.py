"""What the front process may ask of an engine, wherever that runs."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from sgl_like.runtime.protocol import GenerateRequest, OutputSink
from sgl_like.runtime.server.engine.wire import EngineInfo, Question

EngineState = Literal["starting", "ready", "unresponsive", "stopped"]
"""``starting`` also after a crash, until the next one is ready."""


class EngineClient(Protocol):
    """An engine as the server sees it. Everything happens on the server's event loop."""

    @property
    def state(self) -> EngineState:
        """Whether it takes requests."""
        ...

    @property
    def info(self) -> EngineInfo | None:
        """About the model; kept from the last engine while the next one starts. ``None`` before the first is ready."""
        ...

    @property
    def restarts(self) -> int:
        """How many engines have died or been given up."""
        ...

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """Start a request. `receive` is called on the event loop, the last time with a terminal output.

        Whatever happens to the engine, the terminal output comes.

        Raises:
            EngineUnavailable: no engine is ready.
        """
        ...

    def abort(self, rid: str) -> None:
        """End a request early; its terminal output still comes. Ids that are not in flight are ignored."""
        ...

    async def ask(self, what: Question, **arguments: Any) -> Any:
        """See `Question`.

        Raises:
            EngineUnavailable: no engine is ready, or it died meanwhile.
        """
        ...

    async def start(self) -> None:
        """Begin to start the engine; returns at once."""
        ...

    async def close(self) -> None:
        """End the engine; requests in flight get a terminal output."""
        ...
