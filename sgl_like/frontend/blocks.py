"""The blocks of a program: ``with s.user():``, ``with s.var_scope("x"):``, ``with s.copy() as t:``.

Each is ended whatever happens in it, so that a program that catches an error can go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sgl_like.frontend.expr import RoleBegin, RoleEnd
from sgl_like.frontend.operations.scope import BeginScope, EndScope
from sgl_like.frontend.variables import Variable

if TYPE_CHECKING:
    from sgl_like.frontend.state import ProgramState

__all__ = ["copy_block", "role_block", "var_block"]


@contextmanager
def role_block(state: ProgramState, role: str) -> Iterator[ProgramState]:
    """A message of `role`."""
    interpreter = state._interpreter
    interpreter.submit([RoleBegin(role)], state._names)
    try:
        yield state
    finally:
        if interpreter.role == role:  # unless the program has ended it by sgl.user_end()
            interpreter.submit([RoleEnd(role)], state._names)


@contextmanager
def var_block(state: ProgramState, name: str) -> Iterator[ProgramState]:
    """A variable for all text that is added; see `ProgramState.var_scope`."""
    variable = Variable(name)
    state._interpreter.enqueue(BeginScope(variable), state._names)
    try:
        yield state
    finally:
        state._interpreter.enqueue(EndScope(variable), state._names)


@contextmanager
def copy_block(state: ProgramState) -> Iterator[ProgramState]:
    """A fork of one, joined at the end."""
    group = state.fork(1)
    try:
        yield group[0]
    except BaseException as error:
        group[0]._interpreter.cancel(error)
        raise
    group.join()
