"""What keys mean to the assertions about an object: names of their own, and what has to be known of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, product
from operator import or_

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import EMPTY, Node
from sgl_like.runtime.constrain.lengths import meet
from sgl_like.runtime.constrain.pushdown.expressions import Scalar, edge
from sgl_like.runtime.constrain.pushdown.following import possible
from sgl_like.runtime.constrain.pushdown.formula import Formula
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.keywords import at
from sgl_like.runtime.constrain.pushdown.leaves import InObject, ObjectPart, Watch
from sgl_like.runtime.constrain.pushdown.texts import TextTable
from sgl_like.runtime.constrain.pushdown.values import Env, running
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
        self.reached: dict[Formula, list[tuple[int, int, bool]]] = {}
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
        self._children: dict[str | tuple[bool, ...], Formula] = {}
        self._possible: dict[str | tuple[bool, ...], bool] = {}
        self._judged, self._good = 0, 0  # names, as bits: looked at, and those of which there may be a value
        self.before = (0, *accumulate((self.bits[name] for name in self.names), or_))
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

    def child(self, name: str | None, flags: Mapping[Watch, bool]) -> Formula:
        """What the value of a name, or of another key with these flags, has to be if all parts are true."""
        key = tuple(flags.values()) if name is None else name
        found = self._children.get(key)
        if found is None:
            found = self.env.formulas.all_of([part.child(name, flags) for part in self.parts])
            self._children[key] = found
        return found

    def is_possible(self, name: str | None, flags: Mapping[Watch, bool]) -> bool:
        """Whether there may be such a value, see `following.possible`."""
        key = tuple(flags.values()) if name is None else name
        found = self._possible.get(key)
        if found is None:
            found = possible(self.env, self.child(name, flags))
            if not self.env.searching:
                self._possible[key] = found
        return found

    def possible_names(self, bits: int) -> int:
        """Those of some names of which there may be a value, as `bits`; not for a search."""
        todo = bits & ~self._judged
        if todo:
            for name in reversed(self.names):
                if self.bits[name] & todo and self.is_possible(name, self.flags(name)):
                    self._good |= self.bits[name]
            self._judged |= todo
        return bits & self._good

    def combinations(self) -> list[tuple[bool, ...]]:
        """Verdicts that a key without a meaning of its own may bring: all, or of many only those with one true."""
        count = len(self.watch)
        if count <= _MOST_FLAGS:
            return list(product((False, True), repeat=count))
        return [tuple(i == j for i in range(count)) for j in range(-1, count)]

    def other(self, wanted: frozenset[tuple[bool, ...]]) -> Frame | None:
        """The frame, after the quote, of keys that bring one of some verdicts; it may read known names too, but never
        only them.
        """
        if wanted not in self._others:
            pool = self.env.pool
            key = edge(pool, self.env.scalars.plain["string"], 0x22)[1]
            node, exact = key, len(self.watch) <= _MOST_FLAGS
            if len(wanted) < len(self.combinations()) and (exact or (False,) * len(self.watch) not in wanted):
                ways = []
                for flags in sorted(wanted):
                    positive = [each for each, flag in zip(self.nodes, flags, strict=True) if flag]
                    negative = [each for each, flag in zip(self.nodes, flags, strict=True) if not flag]
                    ways.append(meet(pool, [key, *positive], negative if exact else ()))
                node = pool.alt(ways)
                known = [text for text in self.table.texts if derive.matches(pool, node, text)]
                if known:
                    node = derive.conjoin(pool, [node], [pool.strings(known)])
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


def shape_of(env: Env, must: Formula, watch: tuple[Formula, ...]) -> Shape:
    """The shape of formulas."""
    found: Shape | None = env.shapes.get((must, watch))
    if found is None:
        key = tuple(dict.fromkeys(leaf.part for leaf in running(must, *watch) if isinstance(leaf, InObject)))
        found = env.shapes.get(key) or Shape(env, key)
        env.shapes[key] = env.shapes[must, watch] = found
    return found
