"""A trace for people: an indented listing, and a flowchart in Mermaid's language (https://mermaid.js.org)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sgl_like.frontend.expr import Gen, Select
from sgl_like.frontend.inspect.trace import Trace, TraceNode

__all__ = ["Graph"]

_BEGINS, _ENDS = ("role_begin", "begin_scope"), ("role_end", "end_scope")
_LENGTH = 60  # characters of a text that are shown
_UNSAFE = re.compile(
    r"[^\w .,:!?=+\-/'↵…]"
)  # all else means something somewhere in Mermaid, Markdown or HTML


class Graph:
    """What a program does, as a listing (``print`` it) or a flowchart (`mermaid`)."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def __str__(self) -> str:
        given = ", ".join(f"{name}={_short(repr(value))}" for name, value in self.trace.arguments.items())
        return "\n".join([f"{self.trace.program}({given})", *_lines(self.trace)])

    def mermaid(self) -> str:
        """The flowchart. Solid arrows are the order of steps, dotted ones bring a variable's value."""
        return "\n".join(["flowchart TD", *_boxes(self.trace, None), *_arrows(self.trace)]) + "\n"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """For notebooks that draw Mermaid."""
        return {"text/plain": str(self), "text/vnd.mermaid": self.mermaid()}


def _lines(trace: Trace) -> Iterator[str]:
    depth, base = 1, 0 if trace.begins is None or trace.begins.kind == "call" else _nesting(trace.begins)
    for step in trace.nodes:
        nested = _nesting(step) - base  # in programs that run in this state
        if step.kind in _ENDS:
            depth = max(depth - 1, 1)
        elif step.kind != "read":
            yield "  " * (depth + nested) + _described(step)
            for child in _children(trace, step):
                indent = "  " * (depth + nested + 1)
                yield f"{indent}{_title(trace, step, child)}:"
                yield from (indent + line for line in _lines(child))
        depth += step.kind in _BEGINS
    if trace.ret_value is not None:
        yield f"  returns {_short(repr(trace.ret_value))}"


def _nesting(step: TraceNode) -> int:
    return step.program.count(" > ")


def _children(trace: Trace, step: TraceNode) -> list[Trace]:
    """The forks that a step made, or the program that it called."""
    return [child for child in trace.child_states if child.begins is step]


def _title(trace: Trace, step: TraceNode, child: Trace) -> str:
    return f"fork {_children(trace, step).index(child)}" if step.kind == "fork" else child.program


def _described(step: TraceNode) -> str:
    if step.kind == "text":
        return _short(repr(step.text))
    if step.kind == "role_begin":
        return step.label.removesuffix("_begin()")
    if isinstance(step.node, Gen):
        given = [repr(step.node.name)] if step.node.name is not None else []
        given += [
            f"{name.replace('_new_', '_')}={_short(repr(value))}" for name, value in step.node.params.items()
        ]
        return f"gen({', '.join(given)})"
    if isinstance(step.node, Select):
        given = [repr(step.node.name)] if step.node.name is not None else []
        return f"select({', '.join([*given, _short(repr(list(step.node.choices)))])})"
    return step.label


def _short(text: str) -> str:
    return text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…"


# -- Mermaid ------------------------------------------------------------------------------------------------------

_SHAPES = {"text": '["', "gen": '(["', "select": '{{"', "fork": '[/"', "join": '[\\"', "call": '[["'}
_CLOSING = {'["': '"]', '(["': '"])', '{{"': '"}}', '[/"': '"\\]', '[\\"': '"/]', '[["': '"]]'}


def _boxes(trace: Trace, role: str | None) -> Iterator[str]:
    """The steps as boxes that say in which message they are; those of a fork within a box of its own."""
    for step in trace.nodes:
        if step.kind in ("role_begin", "role_end"):
            role = getattr(step.node, "role", None) if step.kind == "role_begin" else None
        elif _is_drawn(step):
            opening = _SHAPES.get(step.kind, '["')
            label = f"{role}: {_described(step)}" if role else _described(step)
            yield f"  n{step.number}{opening}{_escaped(label)}{_CLOSING[opening]}"
            for number, child in enumerate(_children(trace, step)):
                if not any(map(_is_drawn, child.nodes)):
                    continue
                yield f'  subgraph s{step.number}x{number}["{_escaped(_title(trace, step, child))}"]'
                yield from ("  " + line for line in _boxes(child, role if step.kind == "fork" else None))
                yield "  end"


def _arrows(trace: Trace) -> Iterator[str]:
    for step in trace.walk():
        if not _is_drawn(step):
            continue
        before = {source.number for source in map(_drawn, step.sources[:1]) if source is not None}
        others = {source.number for source in map(_drawn, step.sources[1:]) if source is not None} - before
        if step.kind == "join":
            before, others = others or before, set()
        yield from (f"  n{number} --> n{step.number}" for number in sorted(before))
        yield from (f"  n{number} -.-> n{step.number}" for number in sorted(others))


def _is_drawn(step: TraceNode) -> bool:
    return step.kind not in ("read", *_BEGINS, *_ENDS)


def _drawn(step: TraceNode | None) -> TraceNode | None:
    """The step itself, or the last one before it that has a box."""
    while step is not None and not _is_drawn(step):
        step = step.sources[0] if step.sources else None
    return step


def _escaped(text: str) -> str:
    """Text that Mermaid shows as it is: what could mean something is written as an entity (``#34;`` for a quote)."""
    return _UNSAFE.sub(lambda match: f"#{ord(match[0])};" if match[0].isprintable() else " ", text)
