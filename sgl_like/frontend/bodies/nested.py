"""Programs in programs: ``s.call(other, x)`` runs the body of another program in the state of this one.

It goes on with the caller's prompt (and so with its KV cache), inside the message that is open, and what it adds is the
caller's. Its variables are its own (see `names`). It adds nothing more when its body has returned, and what it has left
open is closed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sgl_like.frontend.bodies.current import guarding_loop, refuse_blocking
from sgl_like.frontend.bodies.loops import run_on_own_loop
from sgl_like.frontend.bodies.workers import body_workers, lending_place
from sgl_like.frontend.expr import RoleEnd
from sgl_like.frontend.params import SAMPLING_OPTIONS

if TYPE_CHECKING:
    from sgl_like.frontend.calls import Call
    from sgl_like.frontend.function import SglFunction
    from sgl_like.frontend.state import ProgramState

__all__ = ["acall_inside", "call_inside"]


def call_inside(
    caller: ProgramState, program: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ProgramState:
    """Run `program` in the state of `caller`; see `ProgramState.call`."""
    call = _checked_call(program, args, kwargs)
    if not program.is_async:
        return _plain(caller, program, call)
    refuse_blocking(program.name, f"await s.acall({program.name}, ...)")
    return run_on_own_loop(_coroutine(caller, program, call))


async def acall_inside(
    caller: ProgramState, program: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ProgramState:
    """`call_inside` for a coroutine; a plain body runs on a thread of the pool, where it may block."""
    call = _checked_call(program, args, kwargs)
    if program.is_async:
        return await _coroutine(caller, program, call)
    work = partial(contextvars.copy_context().run, _plain, caller, program, call)
    with lending_place():
        return await asyncio.wrap_future(body_workers().submit(work))


def _checked_call(program: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    if not hasattr(program, "arguments"):
        raise TypeError(f"s.call() needs a program (a function under @sgl.function), not {program!r}")
    call = program.arguments.call(args, kwargs)
    for name in call.options:
        if name not in SAMPLING_OPTIONS or name == "seed":
            raise TypeError(
                f"{program.name}(): {name} is an option of the whole run, not of a program called in it"
            )
    return call


def _plain(caller: ProgramState, program: SglFunction[..., Any], call: Call) -> ProgramState:
    with _called(caller, program, call) as state:
        state._return(program.func(state, *call.args, **call.kwargs))
    return state


async def _coroutine(caller: ProgramState, program: SglFunction[..., Any], call: Call) -> ProgramState:
    with _called(caller, program, call) as state, guarding_loop():
        state._return(await program.func(state, *call.args, **call.kwargs))
    return state


@contextmanager
def _called(caller: ProgramState, program: SglFunction[..., Any], call: Call) -> Iterator[ProgramState]:
    """A state for the called program while this block runs."""
    interpreter = caller._interpreter
    names = caller._names.of_call(program.name, call.options)
    before = interpreter.role
    try:
        yield type(caller)(interpreter, names)
    finally:
        if interpreter.role not in (None, before) and interpreter.closed is None:
            interpreter.submit([RoleEnd(str(interpreter.role))], names)
        names.closed = f"{program.name} has ended"
