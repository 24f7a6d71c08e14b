"""JSON objects: the frame between keys and values."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from sgl_like.errors import ConstraintError, UnsupportedSchemaError
from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Node
from sgl_like.runtime.constrain.json_keywords import at
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    Formula,
    Leaf,
    leaves,
    required_leaves,
)  # fmt: skip
from sgl_like.runtime.constrain.pushdown.frame import (
    Action,
    Frame,
    Go,
    Pop,
    Push,
    Result,
)
from sgl_like.runtime.constrain.pushdown.keys import Key
from sgl_like.runtime.constrain.pushdown.object_parts import (
    InObject,
    begin_object,
    in_object,
)
from sgl_like.runtime.constrain.pushdown.scalars import edge
from sgl_like.runtime.constrain.pushdown.schema import Own
from sgl_like.runtime.constrain.pushdown.values import SPACES, Env, Spaces, Value, value
from sgl_like.runtime.constrain.regex import search_to_expr

FIRST, KEY, COLON, VALUE, AFTER = range(5)
_MOST_FLAGS = 5  # patterns and name schemas of which an undeclared key may miss any


def start_object(env: Env, must: Formula, watch: tuple[Formula, ...]) -> Frame | None:
    """The frame after ``{``; None if no object is allowed."""

    def begin(leaf: Leaf) -> Formula:
        assert isinstance(leaf, Own)
        return begin_object(env, leaf.schema)

    started = env.formulas.map(must, begin)
    if started is FALSE:
        return None
    if started is TRUE and not watch:
        env = env.free
    return Object(
        env,
        started,
        tuple(env.formulas.map(each, begin) for each in watch),
        FIRST,
        spaces=env.style.spaces,
    )


@dataclass(frozen=True, slots=True)
class Object(Frame):
    """Inside an object, between keys and values.

    Args:
        env: shared things.
        must: what has to become true of the object.
        watch: formulas whose verdicts are the result.
        phase: what comes next.
        used: names with a meaning in some leaf that have been used.
        place: in schema order, how many of the names in order are behind.
        gap: spaces that have to come.
        spaces: whitespace that may come.
        pending: after a key, the frame of its value and whose verdicts it will bring.
        waiting: while the value is read, the leaves that each of its verdicts decides.
    """

    env: Env
    must: Formula
    watch: tuple[Formula, ...]
    phase: int
    used: frozenset[str] = frozenset()
    place: int = 0
    gap: int = 0
    spaces: int = 0
    pending: Value | None = None
    waiting: tuple[tuple[Formula, ...], ...] = ()

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Punctuation and whitespace; a quote starts a key."""
        one = 1 << byte
        if self.gap:
            if byte != 0x20:
                return ALL_BYTES & ~(1 << 0x20), None
            return one, Go(replace(self, gap=self.gap - 1))
        if SPACES >> byte & 1:
            return SPACES, Push(replace(self, spaces=0), Spaces(self.spaces - 1)) if self.spaces else None
        style = self.env.style
        if byte == 0x22 and self.phase in (FIRST, KEY):
            key = self._key()
            if key is None:
                return one, None
            return one, Push(replace(self, spaces=0), key)
        if byte == 0x3A and self.phase == COLON:
            assert self.pending is not None
            return one, Push(replace(self, phase=VALUE, pending=None, spaces=0), self.pending)
        if byte == 0x2C and self.phase == AFTER:
            after = replace(self, phase=KEY, gap=style.comma_gap, spaces=style.spaces)
            return one, Go(after) if after._key() is not None else None
        if byte == 0x7D and self.phase in (FIRST, AFTER):
            if not self._ends(self.must):
                return one, None
            return one, Pop(tuple(self._ends(each) for each in self.watch))
        known = (1 << 0x22) | (1 << 0x3A) | (1 << 0x2C) | (1 << 0x7D) | SPACES
        return ALL_BYTES & ~known | one, None

    def resume(self, result: Result) -> Frame | None:
        """Whitespace, a key or a value has ended."""
        if result is None:
            return self
        assert isinstance(result, tuple)
        if self.phase == VALUE:
            false: set[Formula] = set()
            for verdict, decided in zip(result, self.waiting, strict=True):
                if not verdict:
                    false.update(decided)
            must, watch = self._without(false)
            if must is FALSE:
                return None
            return replace(
                self,
                must=must,
                watch=watch,
                phase=AFTER,
                waiting=(),
                spaces=self.env.style.spaces,
            )
        name, flags = result
        return self._after_key(name, flags)

    def _without(self, false: set[Formula]) -> tuple[Formula, tuple[Formula, ...]]:
        if not false:
            return self.must, self.watch

        def change(leaf: Leaf) -> Formula:
            return FALSE if leaf in false else leaf

        formulas = self.env.formulas
        return formulas.map(self.must, change), tuple(formulas.map(each, change) for each in self.watch)

    # -- keys ----------------------------------------------------------------------------------------------------

    def _leaves(self) -> list[InObject]:
        return [leaf for leaf in leaves([self.must, *self.watch]) if isinstance(leaf, InObject)]

    def _names(self) -> list[str]:
        """Names that mean something to a leaf, in order."""
        return list(dict.fromkeys(name for leaf in self._leaves() for name in leaf.part.names))

    def _after_key(self, name: str | None, flags: tuple[bool, ...]) -> Object | None:
        """The state after a key; None if it leads nowhere. `flags`: one for each of `_key_watch`."""
        env = self.env
        verdicts = dict(zip(self._key_watch(), flags, strict=True))
        children: dict[Leaf, Formula] = {}

        def advance(leaf: Leaf) -> Formula:
            assert isinstance(leaf, InObject)
            part = leaf.part
            names = part.schema.raw.get("propertyNames")
            if names is not None and not verdicts["names", id(part)]:
                return FALSE
            matched = tuple(verdicts["pattern", pattern] for pattern in part.patterns)
            seen = leaf.seen | {name} if name in part.tracked else leaf.seen
            after = in_object(env, part, seen, leaf.count + 1)
            child = part.child(name, matched)
            if after is FALSE or child is FALSE:
                return FALSE
            assert isinstance(after, Leaf)
            old = children.get(after)
            children[after] = child if old is None else env.formulas.all_of([old, child])
            return after

        must = env.formulas.map(self.must, advance)
        if must is FALSE:
            return None
        watch = tuple(env.formulas.map(each, advance) for each in self.watch)
        value, waiting = self._value(must, watch, children)
        if value is None:
            return None
        used = self.used | {name} if name is not None else self.used
        names = self._names() if not env.style.any_order else []
        place = (
            self.place if env.style.any_order else (names.index(name) + 1 if name in names else len(names))
        )
        return Object(
            env, must, watch, COLON, used, place, 0, env.style.spaces, pending=value, waiting=waiting
        )  # fmt: skip

    def _value(
        self, must: Formula, watch: tuple[Formula, ...], children: dict[Leaf, Formula]
    ) -> tuple[Value | None, tuple[tuple[Formula, ...], ...]]:
        """The frame of the value: what it must be, and what is only watched because it decides other leaves."""
        env = self.env
        needed = required_leaves(must)
        parts = [children[leaf] for leaf in needed if leaf in children]
        parts.append(env.formulas.at_most(must, lambda leaf: children.get(leaf, TRUE)))
        child = env.formulas.all_of(parts)
        if child is FALSE:
            return None, ()
        decides: dict[Formula, list[Formula]] = {}
        for leaf, formula in children.items():
            if leaf not in needed and formula is not TRUE:
                decides.setdefault(formula, []).append(leaf)
        style = env.style
        return (
            value(env, child, tuple(decides), style.colon_gap, style.spaces),
            tuple(tuple(each) for each in decides.values()),
        )

    def _key_watch(self) -> list[tuple[str, Any]]:
        """What has to be known of a key: the patterns and name schemas of the leaves."""
        out: dict[tuple[str, Any], None] = {}
        for leaf in self._leaves():
            part = leaf.part
            out.update({("pattern", pattern): None for pattern in part.patterns})
            if "propertyNames" in part.schema.raw:
                out["names", id(part)] = None
        return list(out)

    def _flags(self, name: str) -> tuple[bool, ...]:
        """`_key_watch` of a name."""
        text = json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass")[1:]
        env = self.env
        return tuple(derive.matches(env.pool, self._watch_node(each), text) for each in self._key_watch())

    def _watch_node(self, watch: tuple[str, Any]) -> Node:
        """The expression, without the opening quote, of keys for which the verdict is true."""
        env, (kind, which) = self.env, watch
        found = env.key_nodes.get((kind, which))
        if found is None:
            if kind == "pattern":
                found = _pattern_key(env, which, self._leaves())
            else:
                part = next(leaf.part for leaf in self._leaves() if id(leaf.part) == which)
                node = env.scalars._of(part.schema.sub("propertyNames"), "string")
                found = edge(env.pool, node, 0x22)[1]
            env.key_nodes[kind, which] = found
        return found

    def _key(self) -> Frame | None:
        """The frame of the next key; None if there can be none."""
        env = self.env
        env.pool.start_work()
        names = self._names()
        allowed = []
        place, barred = 0 if env.style.any_order else self.place, False
        for name in names[place:]:
            if name in self.used:
                continue
            if self._after_key(name, self._flags(name)) is not None:
                allowed.append(name)
                if not env.style.any_order and self._is_needed(name):
                    barred = True
                    break
        watch = [self._watch_node(each) for each in self._key_watch()]
        other = EMPTY
        if not barred:
            other = self._other(watch)
        if not allowed and other is EMPTY:
            return None
        texts = tuple(
            sorted(
                (
                    json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass")[1:],
                    name,
                )
                for name in names
            )
        )
        flags = tuple((name, self._flags(name)) for name in allowed)
        return Key(env, texts, 0, len(texts), 0, flags, other, tuple(watch))

    def _is_needed(self, name: str) -> bool:
        return any(
            isinstance(leaf, InObject) and name in leaf.part.required for leaf in required_leaves(self.must)
        )

    def _other(self, watch: list[Node]) -> Node:
        """Keys that no leaf knows by name, without the opening quote; EMPTY if there may be none."""
        env = self.env
        any_key = edge(env.pool, env.scalars.plain["string"], 0x22)[1]
        kinds = self._key_watch()
        ways = []
        for flags in product((True, False), repeat=min(len(kinds), _MOST_FLAGS)):
            flags += (True,) * (len(kinds) - len(flags))
            if self._after_key(None, flags) is None:
                continue
            positive = [node for node, flag in zip(watch, flags, strict=True) if flag]
            negative = [node for node, flag in zip(watch, flags, strict=True) if not flag]
            ways.append(derive.conjoin(env.pool, [any_key, *positive], negative) if kinds else any_key)
        return env.pool.alt(ways)

    def _ends(self, formula: Formula) -> bool:
        def end(leaf: Leaf) -> Formula:
            assert isinstance(leaf, InObject)
            part = leaf.part
            good = (
                part.required <= leaf.seen
                and leaf.count >= part.low
                and all(leaf.seen.issuperset(v) for k, v in part.dependent.items() if k in leaf.seen)
            )
            return TRUE if good else FALSE

        return self.env.formulas.map(formula, end) is TRUE


def _pattern_key(env: Env, pattern: str, running: list[InObject]) -> Node:
    """Keys that a pattern matches somewhere, without the opening quote."""
    try:
        body = search_to_expr(env.pool, pattern, env.scalars.strings.character)
    except ConstraintError as error:
        schema = next(leaf.part.schema for leaf in running if pattern in leaf.part.patterns)
        raise UnsupportedSchemaError(
            "patternProperties",
            at(schema.pointer, "patternProperties", pattern),
            f"cannot be enforced: {error}",
        ) from None
    return env.pool.concat(body, env.pool.literal(b'"'))
