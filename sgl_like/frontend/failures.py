"""The error of a state: one `ProgramError` that says where the program was, chained to what went wrong."""

from __future__ import annotations

from sgl_like.errors import ProgramError
from sgl_like.frontend.operations.base import Operation

__all__ = ["failure"]

_TAIL = 200  # characters of the prompt that an error knows
_SHOWN = 60  # of these, in its message


def failure(cause: BaseException, program: str, operation: Operation | None, tail: str) -> ProgramError:
    """The error of a state in which `cause` happened.

    Args:
        cause: what was raised.
        program: that runs.
        operation: that was running, if the cause is one of its.
        tail: the end of the prompt.
    """
    tail = tail[-_TAIL:]
    told = isinstance(cause, ProgramError)  # e.g. a fork's, which has said where its own prompt ended
    what = str(cause) if told else f"{type(cause).__name__}: {cause}"
    where = f"{program}, {operation.label}" if operation else program
    ending = f" (prompt ends with {tail[-_SHOWN:]!r})" if operation and tail and not told else ""
    error = ProgramError(
        f"{where}: {what}{ending}",
        program=program,
        node=operation.label if operation else None,
        variable=next((variable.name for variable in operation.variables), None) if operation else None,
        prompt_tail=tail,
    )
    error.__cause__ = cause
    return error
