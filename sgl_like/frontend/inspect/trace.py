"""What a trace finds: the steps of a program in the order in which it takes them, and how they hang together.

There is one `Trace` for the program's state and one for each fork; a step belongs to the state that takes it. Edges
lead back: from a step to the one before it, from a join to the last steps of the forks, from text to the variables it
contains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sgl_like.frontend.expr import Node

__all__ = ["Trace", "TraceNode"]


@dataclass(eq=False)
class TraceNode:
    """One step of a traced program.

    Args:
        number: of the step, counted over all states of the trace.
        kind: ``"text"``, ``"gen"``, ``"select"``, ``"role_begin"``, ``"role_end"``, ``"fork"``, ``"join"``, ``"read"``
            and so on: the name of the node's class.
        label: short description.
        state: which state takes it.
        program: that takes it; within another program, all names from the outermost on, ``"outer > inner"``.
        node: what was added to the state, where it was that.
        name: of the variable that it gives a value or reads; of a called program ``"program.name"``.
        text: what it adds to the prompt, with ``{{name}}`` for what is not known.
        uses: the unknown values in that text.
        line, file: of the user's code.
        sources: the steps it follows from.
        prompt: for a gen or select, the text before it.
        prompt_ids: for a gen or select, the token ids it would be sent after.
    """

    number: int
    kind: str
    label: str
    state: Trace
    program: str
    node: Node | None = None
    name: str | None = None
    text: str = ""
    uses: list[str] = field(default_factory=list)
    line: int | None = None
    file: str | None = None
    sources: list[TraceNode] = field(default_factory=list)
    prompt: str | None = None
    prompt_ids: tuple[int, ...] = ()

    def print_graph_dfs(self) -> str:
        """The step and everything it follows from, one per line, what comes first above. SGLang's name."""
        order: dict[int, TraceNode] = {}
        stack = [(self, False)]
        while stack:
            step, finished = stack.pop()
            if finished:
                order.setdefault(step.number, step)
            elif step.number not in order:
                stack.append((step, True))
                stack.extend((source, False) for source in reversed(step.sources))
        return "\n".join(map(repr, order.values()))

    def __repr__(self) -> str:
        after = ", ".join(f"%{source.number}" for source in self.sources)
        return f"%{self.number} = {self.label}" + (f"  <- {after}" if after else "")


@dataclass(eq=False)
class Trace:
    """The steps of one state.

    Args:
        program: name of the ``@function``.
        arguments: of the program, as the trace ran it.
        begins: of a fork or a program called in the body, the step that made it.
        nodes: its own steps, in order.
        child_states: its forks, in order.
        variables: for each name, the step that gave it its value last.
        ret_value: what the body returned.
    """

    program: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    begins: TraceNode | None = None
    nodes: list[TraceNode] = field(default_factory=list)
    child_states: list[Trace] = field(default_factory=list)
    variables: dict[str | None, TraceNode] = field(default_factory=dict)
    ret_value: Any = None

    @property
    def last_node(self) -> TraceNode:
        """Its last step.

        Raises:
            IndexError: it takes none.
        """
        return self.nodes[-1]

    def walk(self) -> Iterator[TraceNode]:
        """The steps of this state and of all its forks, in the order in which the program takes them."""
        steps = list(self.nodes)
        for child in self.child_states:
            steps.extend(child.walk())
        return iter(sorted(steps, key=lambda step: step.number))

    def __repr__(self) -> str:
        return f"<trace of {self.program}: {len(list(self.walk()))} steps>"


def kind_of(node: object) -> str:
    """``RoleBegin`` becomes ``role_begin``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(node).__name__).lower()
