"""Whether this thread or task is tracing a program: a program called in a body is then traced too, and never run.

A context variable, so another thread that calls the same program at the same time runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgl_like.frontend.function import SglFunction
    from sgl_like.frontend.state import ProgramState

__all__ = ["calls_instead"]

calls_instead: ContextVar[
    Callable[[SglFunction[..., Any], tuple[Any, ...], Mapping[str, Any]], ProgramState] | None
] = ContextVar("calls_instead", default=None)
"""What a call of a program does instead of running it."""
