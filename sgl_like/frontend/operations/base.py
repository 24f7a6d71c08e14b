"""What an operation is: one execution of a node by one state."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sgl_like.errors import ProgramError
from sgl_like.frontend.bodies.executor import Timer
from sgl_like.frontend.variables import Variable

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Operation"]

_numbers = itertools.count(1)


class Operation(ABC):
    """One step in the queue of an `Interpreter`.

    Args:
        label: what errors call it.
        variables: what it will give a value; the interpreter fails them if it fails or drops the operation.
    """

    is_model_call = False  # a gen or select, which hooks are told of

    def __init__(self, label: str, *variables: Variable) -> None:
        self.label = label
        self.variables = variables
        self.number = next(_numbers)  # within the process
        self.timeout: float | None = None  # seconds that it may be in flight
        self.timer: Timer | None = None
        self.program: str | None = None  # which has added it; see `Names.program`

    @abstractmethod
    def start(self, at: Interpreter) -> bool:
        """Do it, on the executor's thread. True: done. False: it will call ``at.finish(self)`` there later.

        Whatever it raises, now or in a callback given to ``at.guarded``, becomes the error of the state.
        """

    @property
    def variable_name(self) -> str | None:
        """The name of its first variable, which is the one that it is about."""
        return self.variables[0].name if self.variables else None

    def stop_timer(self) -> None:
        """It is not in flight any more."""
        if self.timer is not None:
            self.timer.cancel()

    def cancel(self, error: ProgramError) -> None:
        """Stop what is in flight, from any thread: the state has failed with `error`."""
        return

    def drop(self, error: ProgramError) -> None:
        """Take note that it will never be started: the state has failed with `error`."""
        return
