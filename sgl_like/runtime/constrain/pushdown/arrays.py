"""JSON arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sgl_like.errors import UnsupportedSchemaError
from sgl_like.runtime.constrain.expr import ALL_BYTES
from sgl_like.runtime.constrain.json_keywords import at
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    Formula,
    Leaf,
    required_leaves,
)
from sgl_like.runtime.constrain.pushdown.frame import (
    Action,
    Enter,
    Frame,
    Pop,
    Push,
    Result,
)
from sgl_like.runtime.constrain.pushdown.object_parts import constant
from sgl_like.runtime.constrain.pushdown.schema import ARRAY, Own, Schema
from sgl_like.runtime.constrain.pushdown.values import SPACES, Env, Spaces, value

FIRST, ITEM, VALUE, AFTER = range(4)


class ArrayPart:
    """The array keywords of one schema, prepared."""

    def __init__(self, env: Env, schema: Schema) -> None:
        raw = schema.raw
        self.schema = schema
        items = raw.get("items")
        self.prefix = "items" if isinstance(items, list) else "prefixItems"
        self.prefix_length = len(raw.get(self.prefix, ()))
        self.rest = "additionalItems" if isinstance(items, list) else "items"
        self.low, self.high = (
            int(raw.get("minItems", 0)),
            int(raw["maxItems"]) if "maxItems" in raw else None,
        )
        self.contains = schema.sub("contains") if "contains" in raw else None
        self.contains_low = int(raw.get("minContains", 1))
        self.contains_high = int(raw["maxContains"]) if "maxContains" in raw else None
        for keyword, harmless in (("uniqueItems", False), ("unevaluatedItems", True)):
            if raw.get(keyword, harmless) is not harmless:
                raise UnsupportedSchemaError(keyword, at(schema.pointer, keyword))

    def child(self, index: int) -> Formula:
        """What the item at `index` has to be."""
        if index < self.prefix_length:
            return self.schema.sub(self.prefix, index)
        return self.schema.sub(self.rest) if self.rest in self.schema.raw else TRUE


class InArray(Leaf):
    """An array assertion that is running: items so far, and those that `contains` counts (as far as they matter)."""

    __slots__ = ("count", "hits", "part")
    part: ArrayPart
    count: int
    hits: int


def in_array(env: Env, part: ArrayPart, count: int, hits: int) -> Formula:
    """The leaf in this state, or FALSE if there are too many items or hits."""
    if (part.high is not None and count > part.high) or (
        part.contains_high is not None and hits > part.contains_high
    ):
        return FALSE
    count = min(count, max(part.prefix_length, part.low, (part.high or 0) + 1))
    hits = (
        min(hits, max(part.contains_low, (part.contains_high or 0) + 1)) if part.contains is not None else 0
    )

    def make() -> InArray:
        leaf = InArray()
        leaf.part, leaf.count, leaf.hits = part, count, hits
        return leaf

    return env.formulas.leaf((InArray, id(part), count, hits), make)


def start_array(env: Env, must: Formula, watch: tuple[Formula, ...]) -> Frame | None:
    """The frame after ``[``; None if no array is allowed."""

    def begin(leaf: Leaf) -> Formula:
        assert isinstance(leaf, Own)
        return _begin(env, leaf.schema)

    started = env.formulas.map(must, begin)
    if started is FALSE:
        return None
    if started is TRUE and not watch:
        env = env.free
    return Array(
        env,
        started,
        tuple(env.formulas.map(each, begin) for each in watch),
        FIRST,
        env.style.spaces,
    )


def _begin(env: Env, schema: Schema) -> Formula:
    raw = schema.raw
    if "array" not in schema.types:
        return FALSE
    parts: list[Formula] = []
    for keyword, values in (
        ("enum", raw.get("enum")),
        ("const", [raw["const"]] if "const" in raw else None),
    ):
        if values is not None:
            constants = [
                constant(schema, value, at(schema.pointer, keyword, i))
                for i, value in enumerate(values)
                if isinstance(value, list)
            ]
            parts.append(
                env.formulas.any_of(
                    env.formulas.map(each, lambda leaf: _begin(env, leaf.schema))  # type: ignore[attr-defined]
                    for each in constants
                )
            )
    if any(keyword in raw for keyword in ARRAY):
        part = env.array_parts.get(id(schema))
        if part is None:
            part = env.array_parts[id(schema)] = ArrayPart(env, schema)
        parts.append(in_array(env, part, 0, 0))
    return env.formulas.all_of(parts)


@dataclass(frozen=True, slots=True)
class Array(Frame):
    """Inside an array, between items. Fields as in `objects.Object`; `counted`: verdicts that leaves count."""

    env: Env
    must: Formula
    watch: tuple[Formula, ...]
    phase: int
    spaces: int = 0
    waiting: tuple[tuple[Formula, ...], ...] = ()
    counted: tuple[tuple[Formula, ...], ...] = ()

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Punctuation and whitespace; anything else is an item."""
        one = 1 << byte
        if self.phase == FIRST and byte != 0x5D and not SPACES >> byte & 1:
            item = self._item(0, 0)  # whitespace before it is read here
            return ALL_BYTES & ~SPACES & ~(1 << 0x5D), None if item is None else Enter(*item)
        if SPACES >> byte & 1:
            return SPACES, Push(replace(self, spaces=0), Spaces(self.spaces - 1)) if self.spaces else None
        if byte == 0x5D and self.phase in (FIRST, AFTER):
            if not self._ends(self.must):
                return one, None
            return one, Pop(tuple(self._ends(each) for each in self.watch))
        if byte == 0x2C and self.phase == AFTER:
            item = self._item(self.env.style.comma_gap, self.env.style.spaces)
            if item is None:
                return one, None
            return one, Push(*item)
        return ALL_BYTES & ~(1 << 0x5D | 1 << 0x2C | SPACES) | one, None

    def _item(self, gap: int, spaces: int) -> tuple[Frame, Frame] | None:
        """What waits while an item is read, and the frame of the item."""
        env = self.env
        children: dict[Leaf, Formula] = {}

        def advance(leaf: Leaf) -> Formula:
            assert isinstance(leaf, InArray)
            after = in_array(env, leaf.part, leaf.count + 1, leaf.hits)
            child = leaf.part.child(leaf.count)
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
        needed = required_leaves(must)
        parts = [children[leaf] for leaf in needed if leaf in children]
        parts.append(env.formulas.at_most(must, lambda leaf: children.get(leaf, TRUE)))
        child = env.formulas.all_of(parts)
        if child is FALSE:
            return None
        decides: dict[Formula, tuple[list[Formula], list[Formula]]] = {}
        for leaf, formula in children.items():
            if leaf not in needed and formula is not TRUE:
                decides.setdefault(formula, ([], []))[0].append(leaf)
            assert isinstance(leaf, InArray)
            if leaf.part.contains is not None:
                decides.setdefault(leaf.part.contains, ([], []))[1].append(leaf)
        waiting = tuple(tuple(no) for no, _ in decides.values())
        counted = tuple(tuple(yes) for _, yes in decides.values())
        frame = Array(env, must, watch, VALUE, 0, waiting, counted)
        return frame, value(env, child, tuple(decides), gap, spaces)

    def resume(self, result: Result) -> Frame | None:
        """Whitespace or an item has ended."""
        if result is None:
            return self
        assert isinstance(result, tuple)
        env = self.env
        false: set[Formula] = set()
        hits: set[Formula] = set()
        for verdict, no, yes in zip(result, self.waiting, self.counted, strict=True):
            if verdict:
                hits.update(yes)
            else:
                false.update(no)

        def change(leaf: Leaf) -> Formula:
            assert isinstance(leaf, InArray)
            if leaf in false:
                return FALSE
            return in_array(env, leaf.part, leaf.count, leaf.hits + 1) if leaf in hits else leaf

        must = env.formulas.map(self.must, change)
        if must is FALSE:
            return None
        watch = tuple(env.formulas.map(each, change) for each in self.watch)
        return Array(env, must, watch, AFTER, env.style.spaces)

    def _ends(self, formula: Formula) -> bool:
        def end(leaf: Leaf) -> Formula:
            assert isinstance(leaf, InArray)
            part = leaf.part
            enough = part.contains is None or leaf.hits >= part.contains_low
            return TRUE if leaf.count >= part.low and enough else FALSE

        return self.env.formulas.map(formula, end) is TRUE
