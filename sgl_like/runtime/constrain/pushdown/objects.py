"""JSON objects: what a key or a value does to the assertions about an object, and which keys may come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sgl_like.runtime.constrain.pushdown.following import Next, ends, next_value, settled
from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, And, Formula, Leaf
from sgl_like.runtime.constrain.pushdown.frame import Become, Frame, Leave, Result
from sgl_like.runtime.constrain.pushdown.leaves import InObject, Running, Watch
from sgl_like.runtime.constrain.pushdown.shapes import Named, Shape, shape_of
from sgl_like.runtime.constrain.pushdown.syntax import AFTER, FIRST, Colon, End, Members
from sgl_like.runtime.constrain.pushdown.texts import Texts
from sgl_like.runtime.constrain.pushdown.values import Env, start


def object_frames(env: Env, must: Formula, watch: tuple[Formula, ...]) -> tuple[Frame, ...] | None:
    """The frames after ``{``; None if no object is possible."""
    first = shape_of(env, must, watch)
    return Object(env, must, watch, 0, 0, first).with_members(FIRST)


@dataclass(frozen=True, slots=True)
class Object(Frame):
    """An object between members.

    Args:
        env: shared things.
        must: what has to become true of the object.
        watch: formulas whose verdicts are the result.
        used: in any order, the `Shape.bits` in `first` of names with a meaning of their own that have come.
        place: in schema order, how many of the names in order are behind.
        first: the shape that the object began with: which names have a meaning of their own, and their order.
    """

    env: Env
    must: Formula
    watch: tuple[Formula, ...]
    used: int
    place: int
    first: Shape

    def __hash__(self) -> int:
        return hash((self.must, self.used, self.place))

    def with_members(self, phase: int) -> tuple[Frame, ...] | None:
        """The object and the punctuation on top of it; None if the object can neither end nor go on."""
        close = ends(self.env, self.must)
        if phase == FIRST and not close and not self.leads_on():
            return None
        more = self.keys() is not None
        if not close and not more:
            return None
        style = self.env.style
        return self, Members(style, phase, True, close, more, style.spaces)

    def resume(self, result: Result) -> Become | Leave | None:
        """A key begins, or the object ends."""
        if result is End.CLOSE:
            return Leave(tuple(ends(self.env, each) for each in self.watch))
        keys = self.keys()
        return None if keys is None else Become((InKey(self), keys))

    def shape(self) -> Shape:
        """The shape of the assertions that are left."""
        return shape_of(self.env, self.must, self.watch)

    def leads_on(self) -> bool:
        """Whether the object can end, now or later; True if that is not found out, or not now."""
        env, must = self.env, self.must
        if not env.exact or ends(env, must):
            return True
        plain = self._plain()
        if plain is not None:
            shape = self.shape()
            return all(
                shape.is_possible(name, shape.flags(name)) for leaf in plain for name in leaf.missing()
            )
        found = self._noted()
        if found is None:
            style = env.style
            members = Members(style, FIRST, True, False, True, style.spaces)
            found = env.leads_on(
                self, members, alive=lambda other: isinstance(other, Object) and bool(other._noted())
            )
            self.note(found)
        return found

    def note(self, leads_on: bool) -> None:
        """Remember whether it can end."""
        if self._noted() is None:
            self.first.reached.setdefault(self.must, []).append((self.used, self.place, leads_on))

    def _noted(self) -> bool | None:
        """Whether it can end, if that is known: where fewer names are left there is less that can come."""
        for used, place, found in self.first.reached.get(self.must, ()):
            if found and not self.used & ~used and self.place <= place:
                return True
            if not found and not used & ~self.used and place <= self.place:
                return False
        return None

    def keys(self) -> Frame | None:
        """The frame of the next key, after its quote; None if there can be none."""
        known = self.env.rough if self.env.searching else self.env.keys
        found: Frame | Literal[False] | None = known.get(self, False)
        if found is False:
            found = known[self] = self._keys()
        return found

    def _plain(self) -> list[InObject] | None:
        """The assertions, if all of them have to be true, and each name is a matter of its own."""
        return None if self.watch else _plain(self.must)

    def _keys(self) -> Frame | None:
        env, shape, first = self.env, self.shape(), self.first
        env.pool.start_work()
        plain = self._plain() is not None
        names, barred = first.names, False
        if env.style.any_order:
            bits = first.before[-1] & ~self.used
        else:
            needed = self._needed()
            barred = needed is not None  # then nothing may come before it
            bits = first.before[-1 if needed is None else needed + 1] & ~first.before[self.place]
            names = names[::-1]
        if plain and shape is first and not env.searching:
            bits = shape.possible_names(bits)
        elif not env.searching:  # a search sees which of them lead on
            asked = [name for name in names if bits & first.bits[name]]
            if plain:
                allowed = [name for name in asked if shape.is_possible(name, shape.flags(name))]
            else:
                allowed = [name for name in asked if self.after(name, shape.flags(name), shape) is not None]
            bits = sum(first.bits[name] for name in allowed)
        other = None if barred else self._others(shape, plain)
        if not bits and (other is None or not first.names):
            return other
        return Texts(first.table, 0, len(first.names), 0, bits, other)

    def _others(self, shape: Shape, plain: bool) -> Frame | None:
        """The frame of keys that have no meaning of their own."""
        if plain and shape.plain_other is not None:
            return shape.plain_other[0]
        wanted = shape.combinations()
        if not self.env.searching or len(wanted) == 1:
            wanted = [
                flags
                for flags in wanted
                if self.after(None, dict(zip(shape.watch, flags, strict=True)), shape) is not None
            ]
        found = shape.other(frozenset(wanted)) if wanted else None
        if plain and not self.env.searching:
            shape.plain_other = (found,)
        return found

    def _needed(self) -> int | None:
        """In schema order, the place of the next name without which the object cannot end, as far as is plain."""
        parts = self.must.parts if isinstance(self.must, And) else (self.must,)
        required = [leaf.part.required for leaf in parts if isinstance(leaf, InObject)]
        names = self.first.names
        wanted = (i for i in range(self.place, len(names)) if any(names[i] in each for each in required))
        return next(wanted, None)

    def after(self, name: str | None, flags: dict[Watch, bool], shape: Shape) -> InValue | None:
        """The frame after a key of a known name, or of another with these flags; None if it leads nowhere."""
        env = self.env
        plain = self._plain()
        if plain is not None:
            child = shape.child(name, flags)
            if not shape.is_possible(name, flags):
                return None
            changed = [leaf for leaf in plain if name in leaf.part.tracked]
            must = env.formulas.all_of([leaf.with_key(env, name) for leaf in plain]) if changed else self.must
            return InValue(env, Next(must, (), (), start(env, child)), *self._past(name), self.first)

        used, place = self._past(name)

        def gone(name: str) -> bool:
            first = self.first
            return first.bits[name] & used > 0 if env.style.any_order else first.places[name] < place

        def decide(leaf: Leaf) -> Formula:
            return leaf.decide(env, gone) if isinstance(leaf, Running) else leaf

        def advance(leaf: Leaf) -> Formula:
            assert isinstance(leaf, Running)
            return env.formulas.map(leaf.key(env, name, flags), decide)

        must = env.formulas.map(self.must, advance)
        if must is FALSE:
            return None
        watch = tuple(env.formulas.map(each, advance) for each in self.watch)

        def leads_on(found: Next, result: tuple[bool, ...] | None) -> bool:
            made = InValue(env, found, used, place, self.first)
            if result is None:
                return env.leads_on(made, found.value, alive=self._unlocks)
            after = made.after(result)
            return after is not None and (self._unlocks(after) or after.leads_on())

        found = next_value(env, must, watch, leads_on)
        return None if found is None else InValue(env, found, used, place, self.first)

    def _unlocks(self, other: Frame) -> bool:
        """Whether it is known that another object can end, given that this one can."""
        if not isinstance(other, Object):
            return False
        # If what came changes nothing, what would have ended the object still does.
        return (other.must is self.must and self.env.style.any_order) or bool(other._noted())

    def _past(self, name: str | None) -> tuple[int, int]:
        """`used` and `place` after a key."""
        if self.env.style.any_order:
            return (self.used if name is None else self.used | self.first.bits[name]), 0
        first = self.first
        return self.used, len(first.names) if name is None else first.places[name] + 1


@dataclass(frozen=True, slots=True)
class InKey(Frame):
    """An object while a key is read."""

    object: Object

    def resume(self, result: Result) -> Become | None:
        """The key has ended."""
        owner = self.object
        shape = owner.shape()
        if isinstance(result, Named):
            after = owner.after(result.name, shape.flags(result.name), shape)
        else:
            assert isinstance(result, tuple)
            after = owner.after(None, dict(zip(shape.watch, result, strict=True)), shape)
        if after is None:
            return None
        style = owner.env.style
        return Become((after, after.next.value, Colon(style, style.spaces)))


@dataclass(frozen=True, slots=True)
class InValue(Frame):
    """An object while a value is read."""

    env: Env
    next: Next
    used: int
    place: int
    first: Shape

    def __hash__(self) -> int:
        return hash((self.next.must, self.next.value, self.used, self.place))

    def resume(self, result: Result) -> Become | None:
        """The value has ended."""
        assert isinstance(result, tuple)
        after = self.after(result)
        if after is None or (self.next.waiting and not after.leads_on()):
            return None
        frames = after.with_members(AFTER)
        return None if frames is None else Become(frames)

    def after(self, result: tuple[bool, ...]) -> Object | None:
        """The object after a value that ended with `result`."""
        found = settled(self.env, self.next, result)
        if found is None:
            return None
        must, watch = found
        return Object(self.env, must, watch, self.used, self.place, self.first)


def _plain(must: Formula) -> list[InObject] | None:
    """The assertions, if all of them have to be true, and each name is a matter of its own."""
    found: list[InObject] = []
    if must is TRUE:
        return found
    for leaf in must.parts if isinstance(must, And) else (must,):
        if not isinstance(leaf, InObject):
            return None
        part = leaf.part
        if part.high is not None or part.dependent or leaf.count < part.low:
            return None
        found.append(leaf)
    return found
