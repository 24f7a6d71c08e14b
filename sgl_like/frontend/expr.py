"""The nodes a program is made of: plain values, built by `api`, put together with ``+``, run by a state.

A node knows nothing of any run, so one expression may be added to many states and to every fork.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sgl_like.frontend.choices import ChoicesSamplingMethod
from sgl_like.frontend.outputs.output_types import OutputType
from sgl_like.frontend.outputs.validation import Check
from sgl_like.frontend.placeholders import placeholder_for, split_placeholders
from sgl_like.frontend.tools.tools import ToolUse
from sgl_like.runtime.reasoning import Splitter

__all__ = ["Expr", "ExprList", "Gen", "Node", "RoleBegin", "RoleEnd", "Select", "Text", "flatten"]


class Expr:
    """Anything that can be added to a state, besides a plain string."""

    def _nodes(self) -> tuple[Node, ...]:
        """The nodes that this stands for, in order."""
        raise NotImplementedError

    def __add__(self, other: Expr | str) -> ExprList:
        if not isinstance(other, (Expr, str)):
            return NotImplemented
        return ExprList((*flatten(self), *flatten(other)))

    def __radd__(self, other: str) -> ExprList:
        if not isinstance(other, str):
            return NotImplemented
        return ExprList((*flatten(other), *flatten(self)))

    def __str__(self) -> str:
        raise TypeError(
            f"{self!r} cannot become a string (its text is not known yet);"
            ' add it: s += "..." + sgl.gen("name"), or s += f"...{sgl.gen(\'name\')}"'
        )

    def __format__(self, spec: str) -> str:
        """In an f-string it stands for itself, to be found when the string is added to a state."""
        if spec:
            raise TypeError(f"{self!r} takes no format, but {spec!r} was given; its text is not known yet")
        return placeholder_for(self)


class Node(Expr):
    """One step. `label` says which, in errors."""

    @property
    def label(self) -> str:
        """Short description such as ``gen('person')``."""
        raise NotImplementedError

    def _nodes(self) -> tuple[Node, ...]:
        return (self,)

    def __repr__(self) -> str:
        return self.label


@dataclass(frozen=True, repr=False)
class ExprList(Expr):
    """Nodes, one after the other."""

    nodes: tuple[Node, ...]

    def _nodes(self) -> tuple[Node, ...]:
        return self.nodes

    @property
    def expr_list(self) -> list[Node]:
        """The nodes; SGLang's name for them."""
        return list(self.nodes)

    def __repr__(self) -> str:
        return " + ".join(node.label for node in self.nodes)


@dataclass(frozen=True, repr=False)
class Text(Node):
    """Text that is given."""

    text: str

    @property
    def label(self) -> str:
        """What errors call it."""
        return repr(self.text if len(self.text) <= 40 else self.text[:37] + "...")


@dataclass(frozen=True, repr=False)
class Gen(Node):
    """Text that the model writes.

    Args:
        name: of its variable.
        params: what was given to ``gen``, under the engine's names.
        output_type: how the text is read as a value.
        check: what it has to pass.
        tools: functions that the model may call meanwhile.
        timeout: seconds that it may take.
        make_splitter: what makes a splitter from the end of the prompt, where reasoning is separated.
    """

    name: str | None
    params: Mapping[str, Any] = field(default_factory=dict)
    output_type: OutputType | None = None
    check: Check | None = None
    tools: ToolUse | None = None
    timeout: float | None = None
    make_splitter: Callable[[str], Splitter] | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"gen({self.name!r})" if self.name is not None else "gen()"


@dataclass(frozen=True, repr=False)
class Select(Node):
    """One of some texts: by `method` at `temperature` 0, else drawn."""

    name: str | None
    choices: tuple[str, ...]
    method: ChoicesSamplingMethod
    temperature: float = 0.0
    seed: int | None = None
    timeout: float | None = None  # seconds that it may take

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"select({self.name!r})" if self.name is not None else "select()"


@dataclass(frozen=True, repr=False)
class RoleBegin(Node):
    """A message of `role` begins."""

    role: str

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"{self.role}_begin()"


@dataclass(frozen=True, repr=False)
class RoleEnd(Node):
    """The open message, of `role`, ends."""

    role: str

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"{self.role}_end()"


def flatten(expr: Expr | str) -> tuple[Node, ...]:
    """The nodes of an expression, in order.

    Raises:
        TypeError: it is neither a string nor an expression.
    """
    if isinstance(expr, str):
        parts = split_placeholders(expr)
        return tuple(node for part in parts for node in _part(part))
    if isinstance(expr, Expr):
        return expr._nodes()
    raise TypeError(
        f"a string or an expression such as sgl.gen(...) is needed, not {type(expr).__name__}: {expr!r}"
    )


def _part(part: str | Expr) -> tuple[Node, ...]:
    if isinstance(part, str):
        return (Text(part),) if part else ()
    return part._nodes()
