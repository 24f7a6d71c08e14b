"""Which program bodies the running code is part of.

Whoever reads a state from within its body must not wait for the body's end. A body is not the same as a thread: many
async ones share a thread, and the tasks that one starts belong to it. So it is a context variable, which tasks and
``asyncio.to_thread`` inherit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["current_body", "in_body_of", "running_body"]

_bodies: ContextVar[tuple[Interpreter, ...]] = ContextVar("sgl_like_bodies", default=())


@contextmanager
def running_body(state: Interpreter) -> Iterator[None]:
    """The code in this block is a body that adds to `state`."""
    token = _bodies.set((*_bodies.get(), state))
    try:
        yield
    finally:
        _bodies.reset(token)


def in_body_of(state: Interpreter) -> bool:
    """Whether this code is part of the body of `state`."""
    return any(body is state for body in _bodies.get())


def current_body() -> Interpreter | None:
    """The state of the innermost body that this code is part of."""
    bodies = _bodies.get()
    return bodies[-1] if bodies else None
