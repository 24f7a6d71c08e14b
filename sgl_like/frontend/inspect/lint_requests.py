"""Rules about what a gen asks for: its parameters, and whether its constraint can be met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sgl_like.errors import RequestError
from sgl_like.frontend.backend.constraints import ConstraintCheck
from sgl_like.frontend.expr import Gen
from sgl_like.frontend.inspect.findings import Finding
from sgl_like.frontend.inspect.lint_steps import found_at
from sgl_like.frontend.inspect.run import Traced
from sgl_like.frontend.inspect.trace import TraceNode
from sgl_like.frontend.params import request_params

__all__ = ["REQUEST_RULES"]


def requests(run: Traced) -> Iterator[Finding]:
    """Parameters that are refused, and constraints that cannot be met."""
    check = ConstraintCheck(run.backend.token_bytes())
    looked_at: set[tuple[str | None, int | None, str]] = set()
    for step in run.trace.walk():
        place = (step.file, step.line, step.label)
        if isinstance(step.node, Gen) and place not in looked_at:
            looked_at.add(place)
            try:
                yield from _request(run, step, check)
            except RequestError as error:
                yield found_at(step, "parameters", "error", f"{step.label}: {error}")


def _request(run: Traced, step: TraceNode, check: ConstraintCheck) -> Iterator[Finding]:
    assert isinstance(step.node, Gen), "only gens are asked"
    own = {name: value for name, value in step.node.params.items() if not run.tracer.unknowns.are_in(value)}
    params = request_params(run.state._interpreter.context.defaults, own, run.backend.original)
    shortest = check.shortest(params)
    if shortest is None:
        return
    limit = params["max_new_tokens"]
    if shortest.length > limit:
        text = shortest.text if len(shortest.text) <= 60 else shortest.text[:59] + "…"
        message = (
            f"{step.label}: a shortest output, {text!r}, takes {shortest.length} {check.unit},"
            f" but max_tokens={limit}"
        )
        if check.unit == "tokens":
            yield found_at(step, "budget", "error", f"{message}: the constraint cannot be met")
        else:
            yield found_at(step, "budget", "warning", f"{message}; lint(backend=...) counts its tokens")
    yield from _stops(step, params, own, check)


def _stops(
    step: TraceNode, params: Mapping[str, Any], own: Mapping[str, Any], check: ConstraintCheck
) -> Iterator[Finding]:
    """Stop strings that a regex never has, or always."""
    stops, regex = own.get("stop", ()), params.get("regex")
    for stop in [stops] if isinstance(stops, str) else stops:
        if not stop or "regex" not in own:
            continue
        how = check.contains(str(regex), stop)
        if how == "never":
            yield found_at(
                step, "stop", "warning", f"{step.label}: the regex never allows the stop string {stop!r}"
            )
        elif how == "always":
            message = (
                f"{step.label}: every output of the regex contains the stop string {stop!r}, and is cut there"
            )
            yield found_at(step, "stop", "warning", message)


REQUEST_RULES: tuple[Callable[[Traced], Iterator[Finding]], ...] = (requests,)
