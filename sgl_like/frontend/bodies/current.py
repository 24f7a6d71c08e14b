"""Which program bodies the running code is part of.

Whoever reads a state from within its body must not wait for the body's end. A body is not the same as a thread: many
async ones share a thread, and the tasks that one starts belong to it. So it is a context variable, which tasks and
``asyncio.to_thread`` inherit. Another one holds the event loop that an async body must not block.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from sgl_like.errors import ProgramError
from sgl_like.frontend.bodies.loops import running_loop

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["current_body", "guarding_loop", "in_body_of", "refuse_blocking", "running_body"]

_bodies: ContextVar[tuple[Interpreter, ...]] = ContextVar("sgl_like_bodies", default=())
_guarded: ContextVar[AbstractEventLoop | None] = ContextVar("sgl_like_guarded_loop", default=None)


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


@contextmanager
def guarding_loop() -> Iterator[None]:
    """The code in this block, and tasks that it starts, must not block the event loop that runs it."""
    token = _guarded.set(running_loop())
    try:
        yield
    finally:
        _guarded.reset(token)


def refuse_blocking(program: str, instead: str, loop: AbstractEventLoop | None = None) -> None:
    """To be called where this code is about to block.

    Args:
        program: what errors name.
        instead: what could be written instead.
        loop: one more event loop that must not be blocked.

    Raises:
        ProgramError: it would block an event loop that must not be.
    """
    running = running_loop()
    if running is not None and (running is loop or running is _guarded.get()):
        raise ProgramError(f"{program}: this would block the event loop; {instead}", program=program)
