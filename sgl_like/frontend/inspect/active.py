"""Whether this thread or task is tracing a program: a program called in a body is then traced too, and never run.

A context variable, so another thread that calls the same program at the same time runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sgl_like.frontend.function import SglFunction
    from sgl_like.frontend.state import ProgramState

__all__ = ["CallsInstead", "calls_instead"]


class CallsInstead(Protocol):
    """What calls of programs do instead of running them."""

    def call(
        self, called: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> ProgramState:
        """Instead of ``called.run(*args, **kwargs)``."""

    async def acall(
        self, called: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> ProgramState:
        """Instead of ``await called.arun(*args, **kwargs)``."""


calls_instead: ContextVar[CallsInstead | None] = ContextVar("calls_instead", default=None)
