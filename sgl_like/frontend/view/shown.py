"""`view`: states or saved traces, to be shown in a terminal, in a notebook, or as a page in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sgl_like.frontend.view.build import trace_of
from sgl_like.frontend.view.format import Trace, read_trace

if TYPE_CHECKING:
    from sgl_like.frontend.state import ProgramState

__all__ = ["View", "view"]


class View:
    """What `view` gives. A notebook shows it as it stands when it is displayed, without waiting."""

    def __init__(self, sources: Iterable[ProgramState | Trace]) -> None:
        self._sources = list(sources)

    def traces(self, wait: bool = True) -> list[Trace]:
        """The traces, by default when everything is done."""
        return [each if isinstance(each, Trace) else _trace(each, wait) for each in self._sources]

    def show(self, *, probabilities: bool = False, wait: bool = True) -> None:
        """Print it: prompt, cached, sampled and forced tokens told apart, forks side by side, errors, usage.

        Args:
            probabilities: also a table of each gen's tokens (with ``return_logprob``), and of the likeliest ones
                at their place (with ``top_logprobs_num``).
            wait: until everything added is done. Without, what there is so far.
        """
        from rich.console import Console

        from sgl_like.frontend.view.terminal import show

        show(self.traces(wait), Console(file=sys.stdout), probabilities)

    def save(self, path: str | Path, *, wait: bool = True) -> None:
        """Write one page of HTML that needs nothing else.

        Raises:
            OSError: it cannot be written.
        """
        from sgl_like.frontend.view.html import page

        Path(path).write_text(page(self.traces(wait)), encoding="utf-8")

    def _repr_html_(self) -> str:
        from sgl_like.frontend.view.html import fragment

        return fragment(self.traces(wait=False), f"sgl{uuid4().hex[:8]}-")


def view(what: ProgramState | Mapping[str, Any] | str | Path | Iterable[Any]) -> View:
    """See what runs did: ``sgl.view(states).save("runs.html")``.

    Args:
        what: a state, what its ``trace()`` gave, a file with that, or several of these.

    Raises:
        DataError: a file holds no trace.
        TypeError: it is something else.
    """
    from sgl_like.frontend.state import ProgramState

    if isinstance(what, ProgramState):
        return View([what])
    if isinstance(what, Mapping):
        return View([Trace.from_json(dict(what))])
    if isinstance(what, str | Path):
        return View([read_trace(what)])
    if not isinstance(what, Iterable):
        raise TypeError(f"a state, a trace or a file of one is needed, not {type(what).__name__}")
    return View([source for each in what for source in view(each)._sources])


def _trace(state: ProgramState, wait: bool) -> Trace:
    if wait:
        state._reader.settle()
        state._interpreter.wait()  # for the forks
    return trace_of(state._interpreter)
