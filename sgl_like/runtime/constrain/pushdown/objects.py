"""JSON objects: what a key or a value does to the assertions about an object, and which keys may come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import EMPTY, Node
from sgl_like.runtime.constrain.pushdown.expressions import Scalar, edge
from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, And, Formula, Leaf
from sgl_like.runtime.constrain.pushdown.frame import Become, Frame, Leave, Result
from sgl_like.runtime.constrain.pushdown.keywords import at
from sgl_like.runtime.constrain.pushdown.leaves import InObject, ObjectPart, Running, Watch
from sgl_like.runtime.constrain.pushdown.syntax import AFTER, FIRST, Colon, End, Members
from sgl_like.runtime.constrain.pushdown.texts import Texts, TextTable
from sgl_like.runtime.constrain.pushdown.values import (
    Env,
    Next,
    next_value,
    possible,
    running,
    settler,
    start,
)
from sgl_like.runtime.constrain.regex import search_to_expr

_MOST_FLAGS = 5  # patterns and name schemas of which an undeclared key may miss any


@dataclass(frozen=True, slots=True)
class Named:
    """The result of a key that has a meaning of its own."""

    name: str


class Shape:
    """What keys mean to a set of assertions, prepared: `names` in order, and what has to be known of any key."""

    def __init__(self, env: Env, parts: tuple[ObjectPart, ...]) -> None:
        self.env = env
        self.parts = parts
        self.names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        self.places = {name: i for i, name in enumerate(self.names)}
        texts = sorted((_encoded(name), name) for name in self.names)
        self.table = TextTable(tuple(text for text, _ in texts), tuple(Named(name) for _, name in texts))
        self.bits = {name: 1 << i for i, (_, name) in enumerate(texts)}
        watch: dict[Watch, None] = {}
        for part in parts:
            watch.update(dict.fromkeys(part.watch))
            if part.name_watch is not None:
                watch[part.name_watch] = None
        self.watch = tuple(watch)
        self.nodes = tuple(self._node(each) for each in self.watch)
        self._flags: dict[str, dict[Watch, bool]] = {}
        self._children: dict[str, Formula] = {}
        self._possible: dict[str, bool] = {}
        self.plain_other: tuple[Frame | None] | None = None
        self._others: dict[frozenset[tuple[bool, ...]], Frame | None] = {}

    def flags(self, name: str) -> dict[Watch, bool]:
        """What has to be known of a key, for a name."""
        if not self.watch:
            return {}
        found = self._flags.get(name)
        if found is None:
            text = _encoded(name)
            found = self._flags[name] = {
                each: derive.matches(self.env.pool, node, text)
                for each, node in zip(self.watch, self.nodes, strict=True)
            }
        return found

    def child(self, name: str) -> Formula:
        """What the value of a name has to be if all parts are true."""
        found = self._children.get(name)
        if found is None:
            flags = self.flags(name)
            found = self.env.formulas.all_of([part.child(name, flags) for part in self.parts])
            self._children[name] = found
        return found

    def is_possible(self, name: str) -> bool:
        """Whether there may be a value for a name, see `values.possible`."""
        found = self._possible.get(name)
        if found is None:
            found = self._possible[name] = possible(self.env, self.child(name))
        return found

    def combinations(self) -> list[tuple[bool, ...]]:
        """Verdicts that a key without a meaning of its own may bring: all, or of many only those with one true."""
        count = len(self.watch)
        if count <= _MOST_FLAGS:
            return list(product((False, True), repeat=count))
        return [tuple(i == j for i in range(count)) for j in range(-1, count)]

    def other(self, wanted: frozenset[tuple[bool, ...]]) -> Frame | None:
        """The frame, after the quote, of keys that bring one of some verdicts; it reads known names too."""
        if wanted not in self._others:
            pool = self.env.pool
            key = edge(pool, self.env.scalars.plain["string"], 0x22)[1]
            node, exact = key, len(self.watch) <= _MOST_FLAGS
            if len(wanted) < len(self.combinations()) and (exact or (False,) * len(self.watch) not in wanted):
                ways = []
                for flags in sorted(wanted):
                    positive = [each for each, flag in zip(self.nodes, flags, strict=True) if flag]
                    negative = [each for each, flag in zip(self.nodes, flags, strict=True) if not flag]
                    ways.append(derive.conjoin(pool, [key, *positive], negative if exact else ()))
                node = pool.alt(ways)
            self._others[wanted] = None if node is EMPTY else Scalar(pool, node, self.nodes)
        return self._others[wanted]

    def _node(self, watch: Watch) -> Node:
        """Keys, without the opening quote, for which a verdict is true."""
        env, (kind, which) = self.env, watch
        if kind == "names":
            node = env.scalars.of(which.sub("propertyNames"), "string", plain=True)
            return edge(env.pool, node, 0x22)[1]
        try:
            body = search_to_expr(env.pool, which, env.scalars.strings.character)
        except ConstraintTooComplex:
            raise
        except ConstraintError as error:
            part = next(part for part in self.parts if watch in part.watch)
            raise UnsupportedSchemaError(
                "patternProperties",
                at(part.schema.pointer, "patternProperties", which),
                f"cannot be enforced: {error}",
            ) from None
        return env.pool.concat(body, env.pool.literal(b'"'))


def _encoded(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass")[1:]


def object_frames(env: Env, must: Formula, watch: tuple[Formula, ...]) -> tuple[Frame, ...] | None:
    """The frames after ``{``; None if no object is possible."""
    return Object(env, must, watch, frozenset(), 0).with_members(FIRST)


@dataclass(frozen=True, slots=True)
class Object(Frame):
    """An object between members.

    Args:
        env: shared things.
        must: what has to become true of the object.
        watch: formulas whose verdicts are the result.
        used: names with a meaning of their own that have come.
        place: in schema order, how many of the names in order are behind.
    """

    env: Env
    must: Formula
    watch: tuple[Formula, ...]
    used: frozenset[str]
    place: int

    def with_members(self, phase: int) -> tuple[Frame, ...] | None:
        """The object and the punctuation on top of it; None if it can neither end nor go on."""
        close, more = self._ends(self.must), self.keys() is not None
        if not close and not more:
            return None
        style = self.env.style
        return self, Members(style, phase, True, close, more, style.spaces)

    def resume(self, result: Result) -> Become | Leave | None:
        """A key begins, or the object ends."""
        if result is End.CLOSE:
            return Leave(tuple(self._ends(each) for each in self.watch))
        keys = self.keys()
        assert keys is not None
        return Become((InKey(self), keys))

    def _shape(self) -> Shape:
        parts = dict.fromkeys(
            leaf.part for leaf in running(self.must, *self.watch) if isinstance(leaf, InObject)
        )
        key = tuple(parts)
        found: Shape | None = self.env.shapes.get(key)
        if found is None:
            found = self.env.shapes[key] = Shape(self.env, key)
        return found

    def keys(self) -> Frame | None:
        """The frame of the next key, after its quote; None if there can be none."""
        known = self.env.keys
        if self not in known:
            known[self] = self._keys()
        found: Frame | None = known[self]
        return found

    def _plain(self) -> list[InObject] | None:
        """The assertions, if all of them are object keywords that have to be true and do not limit the number."""
        if self.watch:
            return None
        found = []
        for leaf in self.must.parts if isinstance(self.must, And) else (self.must,):
            if not isinstance(leaf, InObject) or leaf.part.high is not None:
                return None
            found.append(leaf)
        return found

    def _keys(self) -> Frame | None:
        env, shape = self.env, self._shape()
        env.pool.start_work()
        plain = self._plain() is not None
        allowed, barred = set(), False
        for name in shape.names if env.style.any_order else shape.names[self.place :]:
            if name in self.used:
                continue
            if not shape.is_possible(name) if plain else self.after(name, shape.flags(name), shape) is None:
                continue
            allowed.add(name)
            if not env.style.any_order and self._needs(name):
                barred = True  # nothing may come before it
                break
        other = None if barred else self._others(shape, plain)
        bits = sum(shape.bits[name] for name in allowed)
        if not bits and (other is None or not shape.names):
            return other
        return Texts(shape.table, 0, len(shape.names), 0, bits, other)

    def _others(self, shape: Shape, plain: bool) -> Frame | None:
        """The frame of keys that have no meaning of their own."""
        if plain and shape.plain_other is not None:
            return shape.plain_other[0]
        wanted = [
            flags
            for flags in shape.combinations()
            if self.after(None, dict(zip(shape.watch, flags, strict=True)), shape) is not None
        ]
        found = shape.other(frozenset(wanted)) if wanted else None
        if plain:
            shape.plain_other = (found,)
        return found

    def _needs(self, name: str) -> bool:
        parts = self.must.parts if isinstance(self.must, And) else (self.must,)
        return any(isinstance(leaf, InObject) and name in leaf.part.required for leaf in parts)

    def after(self, name: str | None, flags: dict[Watch, bool], shape: Shape) -> InValue | None:
        """The frame after a key of a known name, or of another with these flags; None if it leads nowhere."""
        env = self.env
        plain = self._plain() if name is not None else None
        if plain is not None and name is not None:
            child = shape.child(name)
            if not shape.is_possible(name):
                return None
            must = env.formulas.all_of([leaf.with_key(env, name) for leaf in plain])
            return self._in_value(Next(must, (), (), start(env, child)), name, shape)

        def advance(leaf: Leaf) -> Formula:
            assert isinstance(leaf, Running)
            return leaf.key(env, name, flags)

        must = env.formulas.map(self.must, advance)
        if must is FALSE:
            return None
        found = next_value(env, must, tuple(env.formulas.map(each, advance) for each in self.watch))
        return None if found is None else self._in_value(found, name, shape)

    def _in_value(self, found: Next, name: str | None, shape: Shape) -> InValue:
        place = self.place
        if not self.env.style.any_order:
            place = len(shape.names) if name is None else shape.places[name] + 1
        return InValue(self.env, found, self.used if name is None else self.used | {name}, place)

    def _ends(self, formula: Formula) -> bool:
        def end(leaf: Leaf) -> Formula:
            assert isinstance(leaf, Running)
            return TRUE if leaf.ends() else FALSE

        return self.env.formulas.map(formula, end) is TRUE


@dataclass(frozen=True, slots=True)
class InKey(Frame):
    """An object while a key is read."""

    object: Object

    def resume(self, result: Result) -> Become | None:
        """The key has ended."""
        owner = self.object
        shape = owner._shape()
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
    used: frozenset[str]
    place: int

    def resume(self, result: Result) -> Become | None:
        """The value has ended."""
        assert isinstance(result, tuple)
        env, found = self.env, self.next
        change = settler(env, found.waiting, result)
        must = env.formulas.map(found.must, change)
        if must is FALSE:
            return None
        watch = tuple(env.formulas.map(each, change) for each in found.watch)
        frames = Object(env, must, watch, self.used, self.place).with_members(AFTER)
        return None if frames is None else Become(frames)
