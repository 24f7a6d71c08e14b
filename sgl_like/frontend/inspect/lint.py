"""Lint: what is wrong, or most likely not meant, in a program, found without a model.

A trace shows what a program does with the arguments given; its source shows what it would do with others. Each rule is
a function that yields findings; there is no state between them. Where the trace cannot go on, the rules look at the
steps up to there.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ProgramError, SglError, TraceError
from sgl_like.frontend.inspect.findings import Finding
from sgl_like.frontend.inspect.lint_requests import REQUEST_RULES
from sgl_like.frontend.inspect.lint_source import SOURCE_RULES, Source
from sgl_like.frontend.inspect.lint_steps import STEP_RULES
from sgl_like.frontend.inspect.run import Traced, traced

if TYPE_CHECKING:
    from sgl_like.frontend.function import SglFunction

__all__ = ["lint"]

_OWN = str(Path(__file__).parents[2])


def lint(function: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Finding]:
    """See `SglFunction.lint`."""
    run = traced(function, args, kwargs, lenient=True)
    findings = [finding for rule in (*STEP_RULES, *REQUEST_RULES) for finding in rule(run)]
    if (source := Source.of(function.func)) is not None:
        findings += [finding for rule in SOURCE_RULES for finding in rule(source)]
    seen = {(finding.file, finding.line) for finding in findings if finding.level == "error"}
    findings += [finding for finding in _failures(run) if (finding.file, finding.line) not in seen]
    return sorted(dict.fromkeys(findings), key=lambda finding: (finding.line or 0, finding.rule))


def _failures(run: Traced) -> Iterator[Finding]:
    """What ended the trace before its end."""
    error: BaseException | None = run.failure
    if error is None:
        return
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OWN)
    ]
    if error.__cause__ is not None and not own:
        error = error.__cause__
    place = (own[-1].lineno, own[-1].filename) if own else (None, None)
    if isinstance(error, TraceError):
        yield Finding("not-traced", "info", f"nothing after this was looked at: {error}", *place)
    elif isinstance(error, ProgramError):
        yield Finding("role" if "message" in str(error) else "fails", "error", str(error), *place)
    elif isinstance(error, SglError):
        yield Finding("fails", "error", str(error), *place)
    else:
        yield Finding("fails", "error", f"{type(error).__name__}: {error}", *place)
