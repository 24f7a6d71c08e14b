"""`ProgramStateGroup`: the forks of a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from sgl_like.errors import ProgramError
from sgl_like.frontend.bodies.workers import Workers
from sgl_like.frontend.expr import Expr
from sgl_like.frontend.operations.fork import Gathered, Join
from sgl_like.frontend.variables import UnknownVariableError, Variable

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter
    from sgl_like.frontend.state import ProgramState

__all__ = ["ProgramStateGroup"]

Addend = str | Expr
T = TypeVar("T")
MAP_THREADS = 64
"""Most threads of one `ProgramStateGroup.map`."""


class ProgramStateGroup:
    """Forks of one state, in order. What is added to the group is added to each."""

    def __init__(self, states: Sequence[ProgramState], parent: ProgramState) -> None:
        self._states = list(states)
        self._parent = parent
        self._at_fork = dict(parent._names.variables)

    def __len__(self) -> int:
        return len(self._states)

    @overload
    def __getitem__(self, key: int) -> ProgramState: ...

    @overload
    def __getitem__(self, key: slice) -> list[ProgramState]: ...

    @overload
    def __getitem__(self, key: str | None) -> list[Any]: ...

    def __getitem__(self, key: int | slice | str | None) -> Any:
        """A fork by its number; by a name, the values of that variable in all forks, blocking until they are there.

        Raises:
            IndexError: there is no such fork.
            ProgramError, UnknownVariableError: as for ``fork[name]``, from the first fork that has none.
        """
        if isinstance(key, (int, slice)):
            return self._states[key]
        return [state[key] for state in self._states]

    def __setitem__(self, index: int, state: ProgramState) -> None:
        """Only what ``forks[i] += ...`` does: put back the state that is there."""
        if state is not self._states[index]:
            raise TypeError("a fork cannot be replaced by another state; add to it: forks[i] += ...")

    def __iter__(self) -> Iterator[ProgramState]:
        return iter(self._states)

    def __iadd__(self, other: Addend | Callable[[int], Addend] | Sequence[Addend]) -> ProgramStateGroup:
        """Add to each fork: the same to all, ``other(i)`` to the i-th, or the i-th of a list.

        Raises:
            ValueError: the list is not as long as the group.
            TypeError, ProgramError: as for ``s += ...``.
        """
        for state, addend in zip(self._states, self._addends(other), strict=True):
            state += addend
        return self

    def _addends(self, other: Addend | Callable[[int], Addend] | Sequence[Addend]) -> list[Addend]:
        if isinstance(other, (str, Expr)):
            return [other] * len(self)
        if callable(other):
            return [other(index) for index in range(len(self))]
        if isinstance(other, (list, tuple)):
            if len(other) != len(self):
                raise ValueError(f"{len(other)} expressions for {len(self)} forks")
            return list(other)
        raise TypeError(
            f"a string, an expression, a function or a list is needed, not {type(other).__name__}; to run a program in"
            " each fork, write forks += lambda i: program(...)"
        )

    def join(self, mode: str = "gather_variable", on_error: Literal["raise", "return"] = "raise") -> None:
        """End the forks. Does not block: the parent waits for them before it does what is added to it next.

        Args:
            mode: ``"gather_variable"``: each name that forks have given a value becomes a list in the parent, one
                value per fork, ``None`` where a fork has none. ``"concate_and_append"``: the texts that the forks
                have written are put after the parent's, in order.
            on_error: if a fork has failed, ``"raise"``: the parent fails with an error that names it. ``"return"``: it
                counts as a fork without values (``None`` in its place in the lists) and text; see `errors`.

        Raises:
            ValueError: there is no such mode.
            ProgramError: the forks were joined before, or the program has ended.
        """
        if mode not in ("gather_variable", "concate_and_append"):
            raise ValueError(f'mode must be "gather_variable" or "concate_and_append", not {mode!r}')
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", not {on_error!r}')
        self._check_open()
        append = mode == "concate_and_append"
        self._end(
            gathered=[] if append else self._gathered(),
            append=self._children if append else [],
            required=self._children if on_error == "raise" else [],
        )

    def keep(self, fork: ProgramState | int) -> None:
        """End the forks, and go on in the parent as if one of them had never been a fork: with its text and variables.

        Does not block. What the others have written is gone, and their failures do not matter.

        Raises:
            ValueError: it is none of these forks.
            IndexError: there is no fork of that number.
            ProgramError: as for `join`. If that fork has failed, or has begun or ended a message since, that becomes
                the parent's error.
        """
        kept = self._states[fork] if isinstance(fork, int) else fork
        if not any(state is kept for state in self._states):
            raise ValueError("keep() needs one of these forks")
        self._check_open()
        child = kept._interpreter
        own = [variable for variable in child.variables.values() if not self._inherited(variable)]
        for state in self._states:
            if state is not kept:
                state.cancel()
        copied = [(Variable(variable.name), variable) for variable in own]
        self._end(append=[child], copied=copied, required=[child])

    def errors(self) -> list[ProgramError | None]:
        """What has failed in each fork, or ``None``. Blocks until they have nothing left to do."""
        return [state.error() for state in self._states]

    def map(self, function: Callable[..., T], *iterables: Iterable[Any]) -> list[T]:
        """Call ``function(fork, *items)`` for each fork, with one item of each iterable; the results, in order.

        The calls run side by side on threads, so each may add to its fork and wait for what it reads.

        Raises:
            ValueError: an iterable has not as many items as there are forks.
            Exception: the first, in order, that a call has raised, when all have ended.
        """
        columns = [list(iterable) for iterable in iterables]
        for number, column in enumerate(columns):
            if len(column) != len(self):
                raise ValueError(f"iterable {number} has {len(column)} items for {len(self)} forks")
        workers = Workers(min(len(self), MAP_THREADS), "sgl-map")
        futures: list[Future[T]] = [
            workers.submit(partial(function, state, *(column[i] for column in columns)))
            for i, state in enumerate(self._states)
        ]
        workers.close()
        failures = [future.exception() for future in futures]
        for failure in failures:
            if failure is not None:
                raise failure
        return [future.result() for future in futures]

    def best(self, key: str | Callable[[ProgramState], Any]) -> ProgramState:
        """The fork with the greatest value; the first of equals. Blocks until they are known.

        Forks that have failed before they had a value are left out.

        Args:
            key: a variable, which is taken for a number if it is text, or a function of the fork.

        Raises:
            ProgramError: all forks have failed; the first failure is chained.
            UnknownVariableError: there is no such variable.
            ValueError: a value is text, but no number.
        """
        scored: list[tuple[Any, ProgramState]] = []
        failures: list[ProgramError] = []
        for state in self._states:
            try:
                scored.append((key(state) if callable(key) else _number(key, state[key]), state))
            except UnknownVariableError:
                raise
            except ProgramError as error:
                failures.append(error)
        if not scored:
            program = self._parent._interpreter.context.program
            raise ProgramError(
                f"{program}: all {len(self)} forks have failed", program=program
            ) from failures[0]
        return max(scored, key=lambda pair: pair[0])[1]

    def _check_open(self) -> None:
        closed = self._children[0].closed
        if closed is not None:
            program = self._parent._interpreter.context.program
            raise ProgramError(f"forks cannot be joined: {closed}", program=program)

    @property
    def _children(self) -> list[Interpreter]:
        return [state._interpreter for state in self._states]

    def _end(self, **join: Any) -> None:
        """Queue a `Join` in the parent, and let nothing be added to the forks any more."""
        self._parent._interpreter.enqueue(Join(self._children, **join), self._parent._names)
        for child in self._children:
            child.close("the fork has been joined", end_role=False)

    def _gathered(self) -> list[Gathered]:
        """For every name with a variable of some fork's own: that of each fork."""
        own = [
            {
                name: variable
                for name, variable in state._interpreter.variables.items()
                if not self._inherited(variable)
            }
            for state in self._states
        ]
        names = dict.fromkeys(name for variables in own for name in variables)
        return [(Variable(name), [variables.get(name) for variables in own]) for name in names]

    def _inherited(self, variable: Variable) -> bool:
        return self._at_fork.get(variable.name) is variable


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"best({name!r}): {value!r} is not a number; give a function of the fork") from None
