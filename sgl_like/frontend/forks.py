"""`ProgramStateGroup`: the forks of a state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sgl_like.errors import ProgramError
from sgl_like.frontend.expr import Expr
from sgl_like.frontend.operations.fork import Join
from sgl_like.frontend.variables import Variable

if TYPE_CHECKING:
    from sgl_like.frontend.state import ProgramState

__all__ = ["ProgramStateGroup"]

Addend = str | Expr


class ProgramStateGroup:
    """Forks of one state, in order. What is added to the group is added to each."""

    def __init__(self, states: Sequence[ProgramState], parent: ProgramState) -> None:
        self._states = list(states)
        self._parent = parent
        self._at_fork = dict(parent._interpreter.variables)

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: int) -> ProgramState:
        return self._states[index]

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
            f"a string, an expression, a function or a list is needed, not {type(other).__name__}"
        )

    def join(self, mode: str = "gather_variable") -> None:
        """End the forks. Does not block: the parent waits for them before it does what is added to it next.

        Args:
            mode: ``"gather_variable"``: each name that forks have given a value becomes a list in the parent, one
                value per fork, ``None`` where a fork has none. ``"concate_and_append"``: the texts that the forks
                have written are put after the parent's, in order.

        If a fork has failed, the parent fails with an error that names it.

        Raises:
            ValueError: there is no such mode.
            ProgramError: the forks were joined before, or the program has ended.
        """
        if mode not in ("gather_variable", "concate_and_append"):
            raise ValueError(f'mode must be "gather_variable" or "concate_and_append", not {mode!r}')
        append = mode == "concate_and_append"
        parent, children = self._parent._interpreter, [state._interpreter for state in self._states]
        if children[0].closed is not None:
            raise ProgramError(
                f"forks cannot be joined: {children[0].closed}", program=parent.context.program
            )
        parent.enqueue(Join(children, [] if append else self._gathered(), append))
        for child in children:
            child.close("the fork has been joined", end_role=False)

    def _gathered(self) -> list[tuple[Variable, list[Variable | None]]]:
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
