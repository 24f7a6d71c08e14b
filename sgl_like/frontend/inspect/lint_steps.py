"""Rules about the steps of a program: variables, messages, prompts, choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sgl_like.frontend.expr import Gen, Select
from sgl_like.frontend.inspect.findings import Finding, Level
from sgl_like.frontend.inspect.run import Traced
from sgl_like.frontend.inspect.trace import Trace, TraceNode

__all__ = ["STEP_RULES", "found_at"]


def found_at(step: TraceNode, rule: str, level: Level, message: str) -> Finding:
    """A finding where a step is."""
    return Finding(rule, level, message, step.line, step.file)


def unknown_variables(run: Traced) -> Iterator[Finding]:
    """Variables that are read, but that nothing has given a value."""
    for step in run.tracer.missing:
        known = ", ".join(repr(name) for name in step.state.variables) or "none"
        yield found_at(
            step,
            "unknown-variable",
            "error",
            f"no variable {step.name!r} was generated before it is read; there are: {known}",
        )


def unread_variables(run: Traced) -> Iterator[Finding]:
    """Variables that are generated, but that the body does not read."""
    read = {step.name for step in run.trace.walk() if step.kind == "read"}
    for step in _once(step for step in _generated(run) if step.name is not None and step.name not in read):
        yield found_at(step, "unread-variable", "info", f"the program does not read {step.name!r} itself")


def duplicate_names(run: Traced) -> Iterator[Finding]:
    """Two gens, in different lines, that give one name to values of which the first is never read."""
    for state in _states(run.trace):
        last: dict[str, TraceNode] = {}
        for step in state.nodes:
            if step.name is None:
                continue
            if step.kind == "read":
                last.pop(step.name, None)
            elif isinstance(step.node, (Gen, Select)):
                before = last.get(step.name)
                if before is not None and before.line != step.line:
                    lost = f"its value of line {before.line} was not read and is lost"
                    message = f"{step.name!r} is generated again; {lost}"
                    yield found_at(step, "duplicate-name", "warning", message)
                last[step.name] = step


def empty_prompts(run: Traced) -> Iterator[Finding]:
    """Gens before which there is nothing."""
    for step in _generated(run):
        if step.prompt == "" and not step.prompt_ids:
            yield found_at(
                step, "empty-prompt", "error", f"there is nothing before {step.label}; a run fails here"
            )


def blank_before_gen(run: Traced) -> Iterator[Finding]:
    """Gens after text that ends with a blank."""
    for step in _once(_generated(run)):
        before = step.sources[0] if step.sources else None
        if (
            isinstance(step.node, Gen)
            and before is not None
            and before.kind == "text"
            and before.text.endswith(" ")
        ):
            message = (
                f"the text before {step.label} ends with a blank, which most vocabularies have at the beginning of a"
                " word's token: the model has to go on in a way it has rarely seen. Leave the blank out"
            )
            yield found_at(step, "blank-before-gen", "warning", message)


def messages(run: Traced) -> Iterator[Finding]:
    """Messages that are used in a way that models are not trained for."""
    for state in _states(run.trace):
        for step, message in _mistakes(state, cut=run.failure is not None):
            yield found_at(step, "role", "warning", message)
    if any(step.kind == "role_begin" for step in run.trace.nodes):
        for step in _outside(run.trace):
            message = f"{step.label} is outside of all messages, in a program that uses messages"
            yield found_at(step, "role", "warning", message)


def _mistakes(state: Trace, cut: bool) -> Iterator[tuple[TraceNode, str]]:
    """Args: the steps of one state; whether the trace may have ended within its last message."""
    role, before = "", ""
    for at, step in enumerate(state.nodes):
        if step.kind == "role_begin":
            role, rest = _role(step), state.nodes[at + 1 :]
            if role == "system" and before:
                yield (
                    step,
                    f"a system message comes after the {before} message; most chat templates want it first",
                )
            if role == before and role in ("user", "assistant"):
                yield step, f"two {role} messages follow one another; many chat templates refuse that"
            if rest and rest[0].kind == "role_end" and not (cut and len(rest) == 1):
                yield step, f"the {role} message is empty"
        elif step.kind == "role_end":
            role, before = "", role
        elif isinstance(step.node, (Gen, Select)) and role in ("user", "system"):
            yield step, f"{step.label} is in a {role} message: the model speaks for somebody else"


def _outside(state: Trace) -> Iterator[TraceNode]:
    role = ""
    for step in state.nodes:
        if step.kind in ("role_begin", "role_end"):
            role = _role(step) if step.kind == "role_begin" else ""
        elif step.kind in ("text", "gen", "select") and not role and step.text.strip():
            yield step


def _role(step: TraceNode) -> str:
    return str(getattr(step.node, "role", ""))


def choices(run: Traced) -> Iterator[Finding]:
    """Choices that hide others."""
    for step in _once(_generated(run)):
        if not isinstance(step.node, Select):
            continue
        options = step.node.choices
        if len(options) == 1:
            yield found_at(step, "choices", "warning", f"{step.label} has only one choice")
        for option in options:
            longer = next((other for other in options if other != option and other.startswith(option)), None)
            if longer is not None:
                message = (
                    f"{option!r} is the beginning of {longer!r}: its score is that of all texts that begin like it."
                    " Give the choices an end, e.g. a full stop or a line break"
                )
                yield found_at(step, "choices", "warning", message)
            twin = next((other for other in options if other != option and other.strip() == option), None)
            if twin is not None and longer is None:
                yield found_at(step, "choices", "warning", f"{option!r} and {twin!r} differ in blanks only")


def unread_forks(run: Traced) -> Iterator[Finding]:
    """Forks that generate something which nobody ever takes."""
    for state in _states(run.trace):
        for step in state.nodes:
            if step.kind != "fork":
                continue
            children = [child for child in state.child_states if child.begins is step]
            joined = any(
                child.nodes and child.last_node in after.sources
                for after in state.nodes
                for child in children
            )
            read = any(node.kind == "read" for child in children for node in child.walk())
            if any(child.nodes for child in children) and not joined and not read:
                yield found_at(step, "unread-fork", "warning", "the forks are neither joined nor read")


def _states(trace: Trace) -> Iterator[Trace]:
    yield trace
    for child in trace.child_states:
        yield from _states(child)


def _generated(run: Traced) -> Iterator[TraceNode]:
    return (step for step in run.trace.walk() if isinstance(step.node, (Gen, Select)))


def _once(steps: Iterator[TraceNode]) -> list[TraceNode]:
    """One step for each place in the source: a loop is looked at once."""
    places: dict[Any, TraceNode] = {}
    for step in steps:
        places.setdefault((step.file, step.line, step.label), step)
    return list(places.values())


STEP_RULES: tuple[Callable[[Traced], Iterator[Finding]], ...] = (
    unknown_variables, unread_variables, duplicate_names, empty_prompts, blank_before_gen, messages, choices,
    unread_forks,
)  # fmt: skip
