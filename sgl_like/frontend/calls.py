"""The arguments of a run, sorted: the program's own, and options of the run.

The program's own parameters come first: an argument that it declares is its, even if an option has the same name
(bind the option, or give it in ``gen``). What is left must be a sampling parameter, which then is the default for
every ``gen`` of the run, or one of ``backend``, ``stream``, ``timeout`` and ``hooks``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from sgl_like.errors import ProgramError
from sgl_like.frontend.params import SAMPLING_OPTIONS

__all__ = ["Arguments", "Call", "Row", "positive_seconds"]

Row = Mapping[str, Any] | Sequence[Any]
"""Arguments of one run of a batch: by name, or by position."""

_OPTIONS = SAMPLING_OPTIONS | {"backend", "stream", "timeout", "hooks"}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """Arguments of one run, sorted."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    given: Mapping[str, Any]  # the program's own by parameter, without those that are bound


class Arguments:
    """What one program takes, after its state.

    Args:
        func: the body.
        bound: arguments that are given already; a call may give others in their place.

    Raises:
        TypeError: the body has no first parameter for its state, or no such parameter as is bound.
    """

    def __init__(self, func: Callable[..., Any], bound: Mapping[str, Any]) -> None:
        parameters = list(inspect.signature(func).parameters.values())
        if not parameters or parameters[0].kind not in _POSITIONAL:
            raise TypeError(
                f"{func.__qualname__}: a program needs a first parameter for its state, e.g. def f(s, ...)"
            )
        self.name: str = func.__name__
        self.signature = inspect.Signature(parameters[1:])
        self.bound = dict(bound)
        self.signature.bind_partial(**self.bound)

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Tell the program's arguments from the run's options.

        Raises:
            TypeError: they do not fit the program.
        """
        parameters = self.signature.parameters
        own = {name: value for name, value in kwargs.items() if name in parameters or name not in _OPTIONS}
        options = {name: value for name, value in kwargs.items() if name not in own}
        return self._filled(args, own, options)

    def row(self, number: int, row: Row) -> Call:
        """Arguments from a row of a batch, which are the program's only; options hold for the whole batch.

        Raises:
            ProgramError: it is no row, or does not fit the program; says which row.
        """
        try:
            if isinstance(row, Mapping):
                return self._filled((), row, {})
            if isinstance(row, (tuple, list)):
                return self._filled(tuple(row), {}, {})
            raise TypeError(f"a row must be a dict or a tuple of arguments, not {type(row).__name__}")
        except TypeError as error:
            raise ProgramError(f"row {number}: {error}", program=self.name) from error

    def _filled(self, args: tuple[Any, ...], own: Mapping[str, Any], options: dict[str, Any]) -> Call:
        """Check the program's arguments, and add those that are bound."""
        if not self.bound:
            with suppress(TypeError):  # below it is told what is wrong, first of all names that there are not
                filled = self.signature.bind(*args, **own)
                return Call(filled.args, filled.kwargs, options, filled.arguments)
        try:
            given = self.signature.bind_partial(*args, **own).arguments
            bound = {name: value for name, value in self.bound.items() if name not in {**given, **own}}
            filled = self.signature.bind(*args, **own, **bound)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        return Call(filled.args, filled.kwargs, options, given)


def positive_seconds(timeout: float | None) -> float | None:
    """A timeout, checked.

    Raises:
        ValueError: it is not a positive number.
    """
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (number and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    return timeout
