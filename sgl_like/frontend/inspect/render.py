"""The exact prompt of a program, without a model: its text, or the token ids that a backend would be sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sgl_like.errors import TraceError
from sgl_like.frontend.inspect.run import Traced, split_options, traced
from sgl_like.frontend.inspect.trace import TraceNode

if TYPE_CHECKING:
    from sgl_like.frontend.function import SglFunction

__all__ = ["render"]


def render(
    function: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | list[int]:
    """See `SglFunction.render`."""
    own, options = split_options(function, kwargs, {"at", "tokens"})
    run = traced(function, args, own)
    if "at" in options:
        step = _last_of(run, options["at"])
        text, ids = run.tracer.marked[step.number], step.prompt_ids
    else:
        state = run.state._interpreter
        text, ids = "".join(state.chunks), ()
        if options.get("tokens"):
            ids = tuple(state.prompt.encode(state.context.backend))
    if not options.get("tokens"):
        return run.tracer.unknowns.shown(text)
    if not run.backend.ids_are_tokens:
        raise ValueError(
            f"{type(run.backend.original).__name__} is sent text: what its ids are is not known here"
        )
    unknown = run.tracer.unknowns.all_in(text)
    if unknown:
        names = ", ".join(dict.fromkeys(each._what for each in unknown))
        hints = ", ".join(dict.fromkeys(each._hint for each in unknown))
        raise TraceError(
            f"{function.name}: token ids of what is not known ({names}) cannot be told; give it: {hints}",
            program=function.name,
        )
    return list(ids)


def _last_of(run: Traced, name: str | None) -> TraceNode:
    """The last gen or select of that name."""
    steps = [step for step in run.trace.walk() if step.prompt is not None]
    found = next((step for step in reversed(steps) if step.name == name), None)
    if found is None:
        names = ", ".join(repr(known) for known in dict.fromkeys(step.name for step in steps)) or "none"
        raise ValueError(f"{run.trace.program}: no gen or select is named {name!r}; there are: {names}")
    return found
