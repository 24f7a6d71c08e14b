"""Short completions: what ends an output.

A best-first search over what may still come, value by value rather than byte by byte. Its nodes are stacks of frames;
a step is a way in which the frame on top ends (see `ways`). The lower bound that leads it to the end counts what is
known to be missing: required members, `minItems`, closing brackets. The inside of a value is a search of its own,
the same wherever the value stands, and goes on only as far as one of those around it could use the outcome.

    stack  Root  InValue  Array          whole search: down this stack, to an accepting `Root`
                            │ item
                          Start ─ ways   inner searches: string, number, literal, object, array

The order of members means nothing, so a required member that is missing is taken at once, and objects with the same
assertions left are one node: members that change nothing are never tried twice. What is found within the first
budget is shortest. Beyond it, the search is repeated greedily, to a depth that grows: then it is only short.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.judge import SearchJudge
from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack
from sgl_like.runtime.constrain.pushdown.search import Finder, Search, Spent
from sgl_like.runtime.constrain.pushdown.ways import NEVER

__all__ = ["Completions", "shortest_completion"]

_EXACT = 4_000  # nodes of searches for a shortest completion
_PER_FRAME = 8  # more of them for each frame of the stack
_DEPTHS = (1, 2, 3, 5, 8, 16, 32, 64)  # how deep containers nest in a greedy search
_REMEMBERED = 20_000  # frames whose ways are kept


def shortest_completion(machine: Machine, stack: Stack, limits: Limits) -> bytes:
    """A short byte string that makes the output complete; see `Completions.of`."""
    return Completions(machine, limits).of(stack)


class Completions:
    """Finds completions, and remembers the ways of frames.

    Args:
        machine: whose stacks are completed; its lock is held meanwhile.
        limits: `max_search` bounds the nodes of a search, `max_step_seconds` all that are made for one completion, for
            which other outputs may have to wait.
        judge: of the constraints; it rests while a search runs.
    """

    def __init__(self, machine: Machine, limits: Limits, judge: SearchJudge | None = None) -> None:
        self._machine = machine
        self._limits = limits
        self._judge = judge or SearchJudge()
        self._finder = Finder(None)

    def of(self, stack: Stack) -> bytes:
        """A byte string that makes the output complete: a shortest one, unless looking for it takes too long.

        Raises:
            ConstraintError: there is none.
            ConstraintTooComplex: none was found within the limits.
        """
        if stack.completion is None:
            texts = {each.depth: each.text for each in stack.items or ()}
            with self._machine.lock:
                try:
                    with self._judge.resting():
                        stack.completion = self._find(self._machine.frames(stack), texts)
                except RecursionError:
                    raise ConstraintTooComplex("the constraint is nested too deeply") from None
        return stack.completion

    def _find(self, frames: tuple[Frame, ...], texts: Mapping[int, bytes]) -> bytes:
        if self._finder.size > _REMEMBERED:
            self._finder = Finder(None)
        try:
            budget = min(_EXACT + _PER_FRAME * len(frames), self._limits.max_search)
            return _whole(self._finder, frames, texts, budget, self._limits.max_step_seconds / 2)
        except Spent:
            pass
        until = monotonic() + self._limits.max_step_seconds / 2
        for depth in _DEPTHS:
            try:
                return _whole(Finder(depth), frames, texts, self._limits.max_search, until - monotonic())
            except Spent:
                raise ConstraintTooComplex("cannot find a completion within the limits") from None
            except ConstraintError:
                if depth == _DEPTHS[-1]:
                    raise ConstraintTooComplex("cannot find a completion within the limits") from None
        raise AssertionError


def _whole(
    finder: Finder, frames: tuple[Frame, ...], texts: Mapping[int, bytes], budget: int, seconds: float
) -> bytes:
    finder.left, finder.until = budget, monotonic() + seconds
    if frames[-1].accepting:
        return b""
    found = Search(finder, frames, texts=texts).get(0, NEVER - 1)
    if isinstance(found, int):
        raise ConstraintError("the output cannot be completed")
    return found.data
