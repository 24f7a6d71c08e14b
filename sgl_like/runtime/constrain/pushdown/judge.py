"""Whether frames can end at all: what keeps masks from leading where nothing valid can follow.

Formulas that contain alternatives or negations may become unsatisfiable without becoming FALSE. What is about to be
allowed is then tried: a search, as for a completion, with a small budget. While a search runs, frames do not ask for
others: they allow what they did not find impossible at once, and the search goes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sgl_like.errors import ConstraintTooComplex
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.objects import Object
from sgl_like.runtime.constrain.pushdown.search import Finder, Search, Spent
from sgl_like.runtime.constrain.pushdown.ways import NEVER

__all__ = ["SearchJudge"]

_BUDGET = 300  # nodes of a search
_REMEMBERED = 20_000  # frames whose ways are kept


class SearchJudge:
    """Asks by searching. The caller holds a lock.

    Attributes:
        busy: whether a search is running.
    """

    def __init__(self) -> None:
        self.busy = False
        self._finder = Finder(None)

    def forget(self) -> None:
        """Drop what can be worked out again."""
        self._finder = Finder(None)

    def can_end(self, frames: tuple[Frame, ...], alive: Callable[[Frame], bool] | None) -> bool | None:
        """See `values.Judge.can_end`."""
        if self._finder.size > _REMEMBERED:
            self.forget()
        self._finder.left = _BUDGET
        with self.resting():
            try:
                search = Search(self._finder, frames, alive=alive)
                if isinstance(search.get(0, NEVER - 1), int):
                    return False
            except (Spent, RecursionError, ConstraintTooComplex):
                return None
        for frame in search.passed():
            if isinstance(frame, Object):
                frame.note(True)
        return True

    @contextmanager
    def apart(self) -> Iterator[None]:
        """See `values.Judge.apart`."""
        before = self.busy, self._finder
        self.busy, self._finder = False, Finder(None)
        try:
            yield
        finally:
            self.busy, self._finder = before

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While another search runs."""
        before, self.busy = self.busy, True
        try:
            yield
        finally:
            self.busy = before
