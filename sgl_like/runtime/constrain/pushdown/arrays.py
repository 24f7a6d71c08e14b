"""JSON arrays: what an item does to the assertions about an array."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, ClassVar

from sgl_like.runtime.constrain.pushdown.following import Next, ends, next_value, possible, settled
from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, Formula, Leaf
from sgl_like.runtime.constrain.pushdown.frame import Become, Frame, Leave, Result
from sgl_like.runtime.constrain.pushdown.keywords import at
from sgl_like.runtime.constrain.pushdown.leaves import InArray, Running
from sgl_like.runtime.constrain.pushdown.syntax import AFTER, FIRST, End, Members
from sgl_like.runtime.constrain.pushdown.values import Env, Start, running


def array_frames(env: Env, must: Formula, watch: tuple[Formula, ...]) -> tuple[Frame, ...] | None:
    """The frames after ``[``; None if no array is possible."""
    schemas = [
        leaf.part.schema for leaf in running(must, *watch) if isinstance(leaf, InArray) and leaf.part.unique
    ]
    unique = Unique(schemas[0], frozenset()) if schemas else None
    return Array(env, must, watch, unique).with_items(FIRST)


@dataclass(frozen=True, slots=True)
class Unique:
    """Items that must not come again, as canonical JSON, and a schema that says so.

    They must not even where the schema would allow it if something else was true.
    """

    schema: Any
    seen: frozenset[str]

    def others(self, env: Env) -> Formula:
        """What the next item has to be."""
        if not self.seen:
            return TRUE
        seen = sorted(self.seen)
        document = self.schema.document
        pointer = at(self.schema.pointer, "uniqueItems") + "#" + ",".join(seen)
        formula: Formula = document.keep(
            {"enum": [json.loads(each) for each in seen]}, pointer, self.schema.base
        )
        return env.formulas.negate(formula)

    def with_item(self, text: str) -> Unique | None:
        """After an item of this text; None if it is there already."""
        item = json.dumps(_canonical(json.loads(text, parse_float=Decimal)), sort_keys=True)
        return None if item in self.seen else Unique(self.schema, self.seen | {item})


def _canonical(value: Any) -> Any:
    if isinstance(value, Decimal):
        number = float(value)
        return int(value) if value == value.to_integral_value() and abs(number) < 1e300 else number
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if isinstance(value, dict):
        return {key: _canonical(each) for key, each in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class Array(Frame):
    """An array between items. Fields as in `objects.Object`; `unique`: what must not come again."""

    env: Env
    must: Formula
    watch: tuple[Formula, ...]
    unique: Unique | None

    def with_items(self, phase: int) -> tuple[Frame, ...] | None:
        """The array and the punctuation on top of it; None if it can neither end nor go on."""
        close = ends(self.env, self.must)
        if phase == FIRST and not close and not self.leads_on():
            return None
        more = self._next() is not None
        if not close and not more:
            return None
        style = self.env.style
        return self, Members(style, phase, False, close, more, style.spaces)

    def resume(self, result: Result) -> Become | Leave | None:
        """An item begins, or the array ends."""
        if result is End.CLOSE:
            return Leave(tuple(ends(self.env, each) for each in self.watch))
        found = self._next()
        if found is None:
            return None
        value = found.value if self.unique is None else Gate(found.value)
        return Become((InItem(self.env, found, self.unique), value))

    def leads_on(self) -> bool:
        """Whether the array can end, now or later; True if that is not found out, or not now."""
        env, must = self.env, self.must
        if not env.exact or ends(env, must):
            return True
        if isinstance(must, InArray) and must.part.contains is None and self.unique is None:
            part = must.part
            places = range(must.count, min(part.low, part.prefix_length + 1))
            if part.high is None or part.low <= part.high:
                return all(possible(env, part.child(i)) for i in places)
        style = env.style
        return env.leads_on(self, Members(style, FIRST, False, False, True, style.spaces))

    def _next(self) -> Next | None:
        known = self.env.rough if self.env.searching else self.env.keys
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
        other = TRUE if self.unique is None else self.unique.others(env)
        watch = tuple(env.formulas.map(each, advance) for each in self.watch)

        def leads_on(found: Next, result: tuple[bool, ...] | None) -> bool:
            item = InItem(env, found, self.unique)
            if result is None:
                return env.leads_on(item, found.value if self.unique is None else Gate(found.value))
            after = item.after(result)
            return after is not None and after.leads_on()

        item = next_value(env, must, watch, leads_on, other)
        if item is not None and self.unique is not None and not leads_on(item, None):
            return None  # what may come after the item depends on its text
        return item


@dataclass(frozen=True, slots=True)
class InItem(Frame):
    """An array while an item is read."""

    env: Env
    next: Next
    unique: Unique | None

    def resume(self, result: Result) -> Become | None:
        """The item has ended. That it is `unique`, and must not come again, only its reader knows."""
        assert isinstance(result, tuple)
        after = self.after(result)
        if after is None or (self.next.waiting and not after.leads_on()):
            return None
        frames = after.with_items(AFTER)
        return None if frames is None else Become(frames)

    def after(self, result: tuple[bool, ...]) -> Array | None:
        """The array after an item that ended with `result`, which is not among those that must not come again."""
        found = settled(self.env, self.next, result)
        if found is None:
            return None
        must, watch = found
        return Array(self.env, must, watch, self.unique)


@dataclass(frozen=True, slots=True)
class Gate(Frame):
    """Before an item of an array whose items are unique: here a walk over tokens stops, see `unique`."""

    native: ClassVar[bool] = True
    value: Start


def without(array: Array, members: Members, unique: Unique) -> tuple[Frame, ...] | None:
    """An array, and the punctuation above it, when an item has come; None if it is a dead end."""
    exact = replace(array, unique=unique)
    if not exact.leads_on():
        return None
    more = exact._next() is not None
    if members.more and not more and members.phase != AFTER:
        return None
    if not more and not members.close:
        return None
    return exact, replace(members, more=members.more and more)
