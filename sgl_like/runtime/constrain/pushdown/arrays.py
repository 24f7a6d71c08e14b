"""JSON arrays: what an item does to the assertions about an array."""

from __future__ import annotations

from dataclasses import dataclass

from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, Formula, Leaf
from sgl_like.runtime.constrain.pushdown.frame import Become, Frame, Leave, Result
from sgl_like.runtime.constrain.pushdown.leaves import Running
from sgl_like.runtime.constrain.pushdown.syntax import AFTER, FIRST, End, Members
from sgl_like.runtime.constrain.pushdown.values import Env, Next, next_value, settler


def array_frames(env: Env, must: Formula, watch: tuple[Formula, ...]) -> tuple[Frame, ...] | None:
    """The frames after ``[``; None if no array is possible."""
    return Array(env, must, watch).with_items(FIRST)


@dataclass(frozen=True, slots=True)
class Array(Frame):
    """An array between items. Fields as in `objects.Object`."""

    env: Env
    must: Formula
    watch: tuple[Formula, ...]

    def with_items(self, phase: int) -> tuple[Frame, ...] | None:
        """This and the punctuation on top of it; None if the array can neither end nor go on."""
        close, more = self._ends(self.must), self._next() is not None
        if not close and not more:
            return None
        style = self.env.style
        return self, Members(style, phase, False, close, more, style.spaces)

    def resume(self, result: Result) -> Become | Leave | None:
        """An item begins, or the array ends."""
        if result is End.CLOSE:
            return Leave(tuple(self._ends(each) for each in self.watch))
        found = self._next()
        assert found is not None
        return Become((InItem(self.env, found), found.value))

    def _next(self) -> Next | None:
        known = self.env.keys
        if self not in known:
            known[self] = self._find_next()
        found: Next | None = known[self]
        return found

    def _find_next(self) -> Next | None:
        env = self.env

        def advance(leaf: Leaf) -> Formula:
            assert isinstance(leaf, Running)
            return leaf.item(env)

        must = env.formulas.map(self.must, advance)
        if must is FALSE:
            return None
        return next_value(env, must, tuple(env.formulas.map(each, advance) for each in self.watch))

    def _ends(self, formula: Formula) -> bool:
        def end(leaf: Leaf) -> Formula:
            assert isinstance(leaf, Running)
            return TRUE if leaf.ends() else FALSE

        return self.env.formulas.map(formula, end) is TRUE


@dataclass(frozen=True, slots=True)
class InItem(Frame):
    """An array while an item is read."""

    env: Env
    next: Next

    def resume(self, result: Result) -> Become | None:
        """The item has ended."""
        assert isinstance(result, tuple)
        env, found = self.env, self.next
        change = settler(env, found.waiting, result)
        must = env.formulas.map(found.must, change)
        if must is FALSE:
            return None
        frames = Array(env, must, tuple(env.formulas.map(each, change) for each in found.watch)).with_items(AFTER)
        return None if frames is None else Become(frames)
