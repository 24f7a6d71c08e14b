"""The names of variables in a program that is called by another.

    def outer(s):                       names of outer       names of inner
        s += sgl.gen("a")               a
        s.call(inner)                   inner.b    ------->  b
            s += sgl.gen("b")

A called program has names of its own, as a function has local variables: it neither sees nor overwrites those of its
caller. The caller finds them with the program's name before them (the newest, if it is called again), so that they
come out of forks and of a run like all others; the state that ``s.call`` returns keeps those of that very call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sgl_like.frontend.expr import Gen, Node
from sgl_like.frontend.variables import Variable

__all__ = ["Names"]


class Names:
    """The variables of one program, by name.

    Args:
        program: its name; within another program, all names from the outermost on, ``"outer > inner"``.
        variables: those that are there already.
        caller: where its variables are found as well, and under what name.
        defaults: sampling parameters of its gens.
    """

    def __init__(
        self,
        program: str,
        variables: Mapping[str | None, Variable] | None = None,
        caller: tuple[Names, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.program = program
        self.variables = dict(variables or {})
        self.closed: str | None = None  # why the program can add nothing more
        self._caller = caller
        self._defaults = dict(defaults or {})

    def of_call(self, program: str, defaults: Mapping[str, Any]) -> Names:
        """Names for a program that this one calls."""
        inherited = {**self._defaults, **defaults}
        return Names(f"{self.program} > {program}", None, (self, program), inherited)

    def of_fork(self) -> Names:
        """Names for a fork, which begins with the same variables."""
        return Names(self.program, self.variables, None, self._defaults)

    def define(self, variable: Variable) -> None:
        """From now on its name is that of `variable`."""
        name: str | None = variable.name
        names = self
        names.variables[name] = variable
        while names._caller is not None and name is not None:
            names, program = names._caller
            name = f"{program}.{name}"
            names.variables[name] = variable

    def with_defaults(self, nodes: Sequence[Node]) -> Sequence[Node]:
        """Nodes whose gens know the defaults of this program."""
        if not self._defaults:
            return nodes
        return [
            replace(node, params={**self._defaults, **node.params}) if isinstance(node, Gen) else node
            for node in nodes
        ]
