"""Tracing: the body runs once, on a real state that answers every gen and select itself.

The state, its roles, scopes, forks and joins are those of a run; only the operations of gens and selects are others
(`Answer`), which put a given value or a marker (see `unknown`) where the model's text would be. So every prompt in
a trace is what a run would send. Nothing is global: a state knows what traces it, and other programs that the
body calls find out through a context variable, which belongs to this thread or task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeVar

from sgl_like.errors import TraceError
from sgl_like.frontend.bodies.names import Names
from sgl_like.frontend.expr import Gen, Node, Select, Text
from sgl_like.frontend.forks import ProgramStateGroup
from sgl_like.frontend.inspect.answers import Answer
from sgl_like.frontend.inspect.places import user_line
from sgl_like.frontend.inspect.trace import Trace, TraceNode, kind_of
from sgl_like.frontend.inspect.unknown import Unknown, Unknowns
from sgl_like.frontend.interpreter import Interpreter
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.fork import Join
from sgl_like.frontend.outputs.separation import reasoning_name
from sgl_like.frontend.run_context import RunContext
from sgl_like.frontend.state import ProgramState
from sgl_like.frontend.variables import UnknownVariableError

__all__ = ["TraceContext", "TraceInterpreter", "TraceState", "Tracer"]

T = TypeVar("T")


class Tracer:
    """What all states of one trace share.

    Args:
        program: name of the program.
        values: what gens and selects of these names shall have given.
        lenient: a variable that does not exist is unknown, and no error.
    """

    def __init__(self, program: str, values: Mapping[str | None, Any], lenient: bool) -> None:
        self.program = program
        self.unknowns = Unknowns(program)
        self.lenient = lenient
        self.missing: list[TraceNode] = []  # reads of variables that do not exist
        self.marked: dict[int, str] = {}  # after the end: number of a step -> its prompt, with markers
        self._values = dict(values)
        self._steps: list[TraceNode] = []
        self._given: dict[int, TraceNode] = {}  # number of an unknown value -> the step that gave it

    def step(
        self, state: Trace, program: str, kind: str, label: str, text: str = "", **details: Any
    ) -> TraceNode:
        """A new step at the end of `state`, taken by `program`, which adds `text` to the prompt."""
        shown = self.unknowns.shown(text)
        step = TraceNode(len(self._steps), kind, label, state, program, text=shown, **details)
        place = user_line()
        if place is not None:
            step.file, step.line = place
        before = state.last_node if state.nodes else state.begins
        inside = self.unknowns.all_in(text)
        step.uses = list(dict.fromkeys(unknown._what for unknown in inside))
        given = (self._given.get(unknown._root._number) for unknown in inside)
        step.sources = list(dict.fromkeys(source for source in (before, *given) if source is not None))
        state.nodes.append(step)
        self._steps.append(step)
        return step

    def answer(self, state: Trace, program: str, node: Gen | Select) -> Answer:
        """The operation for a gen or select, noted as a step."""
        name = qualified(program, node.name)
        step = self.step(state, program, kind_of(node), node.label, node=node, name=name)
        state.variables[name] = step
        count = node.params.get("n") if isinstance(node, Gen) else None
        value, thoughts = self._value_of(name, node, count), None
        if isinstance(node, Gen) and node.make_splitter is not None:
            name = reasoning_name(name)
            state.variables[name], thoughts = step, self._value_of(name, node, count)
        for unknown in value if isinstance(value, list) else [value, thoughts]:
            if isinstance(unknown, Unknown):
                self._given[unknown._root._number] = step
        step.text = self.unknowns.shown(
            str(value[0] if isinstance(value, (list, tuple)) and value else value)
        )
        return Answer(node, step, value, thoughts)

    def finish(self) -> None:
        """The trace is over: from now on its unknown values are shown by name, where text shows them."""
        self.unknowns.in_use = False
        for step in self._steps:
            if step.prompt is not None:
                self.marked[step.number] = step.prompt
                step.prompt = self.unknowns.shown(step.prompt)

    def _value_of(self, name: str | None, node: Gen | Select, count: Any) -> Any:
        """The value that `name` gets this time; from an iterator, its next."""
        if name not in self._values:
            unknown = self.unknowns.variable(name)
            return [unknown[i] for i in range(count)] if isinstance(count, int) and count > 1 else unknown
        value = self._values[name]
        if not isinstance(value, Iterator):
            return value
        try:
            return next(value)
        except StopIteration:
            raise TraceError(
                f"{self.program}: values[{name!r}] has come to its end, but {node.label} comes once more",
                program=self.program,
                variable=name,
            ) from None


def qualified(program: str, name: str | None) -> str | None:
    """What the outermost program calls a variable of `program`; see `Names`."""
    return None if name is None else ".".join([*program.split(" > ")[1:], name])


@dataclass(frozen=True, slots=True)
class TraceContext(RunContext):
    """The context of a run, and what traces it."""

    _: KW_ONLY
    tracer: Tracer
    trace: Trace  # of the first state


class TraceInterpreter(Interpreter):
    """An interpreter that notes what is added to it."""

    context: TraceContext

    def __init__(
        self, context: TraceContext, parent: TraceInterpreter | None = None, number: int = 0
    ) -> None:
        super().__init__(context, parent, number)
        self.trace = context.trace
        self._program = context.program  # whose nodes are being submitted
        if parent is not None:
            self.trace = Trace(context.program, context.trace.arguments, begins=parent.trace.last_node)
            self.trace.variables.update(parent.trace.variables)
            parent.trace.child_states.append(self.trace)

    def submit(self, nodes: Sequence[Node], names: Names | None = None) -> None:
        """See `Interpreter.submit`."""
        self._program = (names or self.names).program
        super().submit(nodes, names)

    def fork(self, size: int, names: Names | None = None) -> list[Interpreter]:
        """See `Interpreter.fork`."""
        self.add_step((names or self.names).program, "fork", f"fork({size})")
        return super().fork(size, names)

    def enqueue(self, operation: Operation, names: Names | None = None) -> None:
        """See `Interpreter.enqueue`."""
        program = (names or self.names).program
        step = self.add_step(program, kind_of(operation), operation.label)
        if isinstance(operation, Join):
            children = [child.trace for child in operation.children if isinstance(child, TraceInterpreter)]
            step.sources.extend(child.last_node for child in children if child.nodes)
        for variable in operation.variables:
            self.trace.variables[qualified(program, variable.name)] = step
        super().enqueue(operation, names)

    def add_step(self, program: str, kind: str, label: str, text: str = "", **details: Any) -> TraceNode:
        """A step of this state."""
        return self.context.tracer.step(self.trace, program, kind, label, text, **details)

    def _operations(self, nodes: Sequence[Node]) -> list[Operation]:
        return [operation for node in nodes for operation in self._traced(node)]

    def _traced(self, node: Node) -> list[Operation]:
        tracer, program = self.context.tracer, self._program
        if isinstance(node, (Gen, Select)):
            return [tracer.answer(self.trace, program, node)]
        if isinstance(node, Text):
            self.add_step(program, "text", repr(tracer.unknowns.shown(node.text)), node.text, node=node)
        else:
            self.add_step(program, kind_of(node), node.label, node=node, name=getattr(node, "name", None))
        return super()._operations([node])


class TraceGroup(ProgramStateGroup):
    """Forks that are traced one after the other."""

    def map(self, function: Callable[..., T], *iterables: Iterable[Any]) -> list[T]:
        """See `ProgramStateGroup.map`."""
        rows = zip(self, *iterables, strict=True)
        return [function(*row) for row in rows]


class TraceState(ProgramState):
    """A state whose unknown values can be read: what is read is an `Unknown`."""

    _interpreter: TraceInterpreter

    def __init__(self, interpreter: TraceInterpreter, names: Names | None = None) -> None:
        super().__init__(interpreter, names)
        if names is not None and names is not interpreter.names:
            caller, _, called = names.program.rpartition(" > ")
            interpreter.add_step(caller, "call", f"call {called}()")

    def fork(self, size: int = 1, position_ids_offset: Any = None) -> ProgramStateGroup:
        """See `ProgramState.fork`."""
        return TraceGroup(list(super().fork(size)), self)

    def __getitem__(self, name: str | None) -> Any:
        """See `ProgramState.__getitem__`."""
        step = self._note(f"s[{name!r}]", name)
        try:
            value = super().__getitem__(name)
            return self._tracer.unknowns.text(f"{name}", value) if isinstance(value, str) else value
        except UnknownVariableError:
            if not self._tracer.lenient:
                raise
            self._tracer.missing.append(step)
            return self._tracer.unknowns.variable(name)

    def get_meta_info(self, name: str | None) -> Any:
        """See `ProgramState.get_meta_info`."""
        value = self[name]
        return value.meta_info if isinstance(value, Unknown) else super().get_meta_info(name)

    def text(self) -> Any:
        """See `ProgramState.text`."""
        self._note("s.text()", None)
        return self._tracer.unknowns.text("text()", super().text())

    def messages(self) -> list[dict[str, Any]]:
        """See `ProgramState.messages`."""
        self._note("s.messages()", None)
        unknowns = self._tracer.unknowns
        return [
            {
                key: unknowns.text(key, value) if isinstance(value, str) else value
                for key, value in message.items()
            }
            for message in super().messages()
        ]

    async def aget(self, name: str | None) -> Any:
        """See `ProgramState.aget`; nothing is waited for long here."""
        return self[name]

    async def aget_meta_info(self, name: str | None) -> Any:
        """See `ProgramState.aget_meta_info`."""
        return self.get_meta_info(name)

    async def atext(self) -> Any:
        """See `ProgramState.atext`."""
        return self.text()

    async def amessages(self) -> list[dict[str, Any]]:
        """See `ProgramState.amessages`."""
        return self.messages()

    @property
    def _tracer(self) -> Tracer:
        return self._interpreter.context.tracer

    def _note(self, label: str, name: str | None) -> TraceNode:
        trace, program = self._interpreter.trace, self._names.program
        step = self._interpreter.add_step(program, "read", label, name=qualified(program, name))
        given = trace.variables.get(step.name)
        if given is not None and given not in step.sources:
            step.sources.append(given)
        return step
