"""The value of one gen, select, join or assignment: filled in once, read by any number of threads.

Every execution has a `Variable` of its own, so two gens with one name never mix: a reader gets the one that was
the newest when it asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ProgramError

if TYPE_CHECKING:
    from sgl_like.frontend.outputs.output_types import OutputType

__all__ = ["UnknownVariableError", "Variable"]


class UnknownVariableError(ProgramError, KeyError):
    """A program has no variable of that name. Also a KeyError, as SGLang's programs expect."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class Variable:
    """A value that is there, will be there, or never comes because of `error`.

    All changes happen inside the `Watch.changing` of the state it belongs to.
    """

    def __init__(self, name: str | None, output_type: OutputType | None = None) -> None:
        self.name = name
        self.output_type = output_type  # of a gen's
        self.streams: list[list[str]] = [[]]  # text as it arrived, of each output of a gen
        self.events: list[tuple[str, dict[str, Any]]] = []  # of a gen that streams: its text with meta data
        self.value: Any = None
        self.meta: Mapping[str, Any] | None = None
        self.error: ProgramError | None = None
        self.done = False
        self.open = False  # the program has begun it (`var_scope`), and not yet ended it

    @property
    def chunks(self) -> list[str]:
        """Text as it arrived, of the first output."""
        return self.streams[0]

    @classmethod
    def of(cls, name: str | None, value: Any) -> Variable:
        """A variable that has its value."""
        variable = cls(name)
        variable.finish(value)
        return variable

    def finish(self, value: Any, meta: Mapping[str, Any] | None = None) -> None:
        """The value is known. Does nothing if the variable has failed."""
        if not self.done:
            if self.streams == [[]]:
                self.chunks.append(str(value))
            self.value = value
            self.meta = meta
            self.done = True

    def fail(self, error: ProgramError) -> None:
        """The value will never be known. Does nothing if it is."""
        if not self.done:
            self.error = error
            self.done = True
