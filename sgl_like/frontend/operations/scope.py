"""``var_scope``: a variable for all the text that a state gets between two moments of its program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.variables import Variable

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["BeginScope", "EndScope"]


class BeginScope(Operation):
    """From here on the state's text is the variable's, too."""

    def __init__(self, variable: Variable) -> None:
        super().__init__(f"var_scope({variable.name!r})", variable)
        self._variable = variable
        variable.open = True

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        at.scopes.append(self._variable)
        return True


class EndScope(Operation):
    """The variable has its value."""

    def __init__(self, variable: Variable) -> None:
        super().__init__(f"end of var_scope({variable.name!r})", variable)
        self._variable = variable
        variable.open = False

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        at.scopes.remove(self._variable)
        at.give(self._variable, "".join(self._variable.chunks))
        return True
