"""Assertions about objects and arrays that are running while one is read, as leaves of formulas."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, Formula, Leaf
from sgl_like.runtime.constrain.pushdown.schema import Schema

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.pushdown.evaluators import Evaluator
    from sgl_like.runtime.constrain.pushdown.values import Env

Watch = tuple[str, Any]
"""What has to be known of a key: ("pattern", its text) or ("names", the schema of ``propertyNames``)."""


class Verdict(Leaf):
    """Whether the value that comes next is valid under `child`."""

    __slots__ = ("child",)
    child: Formula


def verdict(env: Env, child: Formula) -> Formula:
    """The leaf of `child`."""
    if child is TRUE or child is FALSE:
        return child

    def make() -> Verdict:
        leaf = Verdict()
        leaf.child = child
        return leaf

    return env.formulas.leaf((Verdict, child), make)


class Running(Leaf):
    """An assertion about a container, part of which has been read."""

    __slots__ = ()

    def key(self, env: Env, name: str | None, flags: Mapping[Watch, bool]) -> Formula:
        """What it becomes when a property comes: of a known name, or of another with these flags."""
        raise AssertionError

    def item(self, env: Env) -> Formula:
        """What it becomes when an item comes."""
        raise AssertionError

    def settle(self, env: Env, change: Callable[[Leaf], Formula]) -> Formula:
        """What it becomes when verdicts are known."""
        return self

    def decide(self, env: Env, gone: Callable[[str], bool]) -> Formula:
        """TRUE or FALSE, if it is that whatever comes yet, given which names cannot; as far as is plain to see."""
        return self

    def held(self) -> Iterable[Formula]:
        """Formulas that it holds."""
        return ()

    @abstractmethod
    def ends(self) -> bool:
        """Whether it is true if the container ends here."""


class ObjectPart:
    """The object keywords of one schema, prepared."""

    def __init__(self, env: Env, schema: Schema) -> None:
        raw = schema.raw
        self.env = env
        self.schema = schema
        self.properties: Mapping[str, Any] = raw.get("properties", {})
        self.required = frozenset(raw.get("required", ()))
        self.dependent = schema.dependent_required()
        names = dict.fromkeys([*self.properties, *raw.get("required", ())])
        for name, others in self.dependent.items():
            names.update(dict.fromkeys([name, *others]))
        self.names = tuple(names)
        self.tracked = self.required.union(self.dependent, *self.dependent.values())
        self.low = int(raw.get("minProperties", 0))
        self.high = int(raw["maxProperties"]) if "maxProperties" in raw else None
        self.counts = self.low > 0 or self.high is not None
        self.watch: tuple[Watch, ...] = tuple(("pattern", each) for each in raw.get("patternProperties", ()))
        self.name_watch: Watch | None = ("names", schema) if "propertyNames" in raw else None
        self._children: dict[Any, Formula] = {}
        self._limited: tuple[str, ...] | None = None
        self.limits_others = bool(self.watch) or any(
            raw.get(keyword, True) not in (True, {}) for keyword in ("additionalProperties", "propertyNames")
        )

    @property
    def limited(self) -> tuple[str, ...]:
        """Names whose values may not be anything."""
        if self._limited is None:
            sub = self.schema.sub
            self._limited = tuple(name for name in self.properties if sub("properties", name) is not TRUE)
        return self._limited

    def needed(self, seen: frozenset[str]) -> set[str] | frozenset[str]:
        """Names that still have to come."""
        if not self.dependent:
            return self.required - seen
        needed = set(self.required)
        for name, others in self.dependent.items():
            if name in seen:
                needed.update(others)
        return needed - seen

    def child(self, name: str | None, flags: Mapping[Watch, bool]) -> Formula:
        """What the value of a property has to be; FALSE if its name is not allowed."""
        matched = tuple([flags[each] for each in self.watch]) if self.watch else ()
        if self.name_watch is not None and not flags[self.name_watch]:
            return FALSE
        known = name if name is not None and name in self.properties else None
        key = (known, matched)
        found = self._children.get(key)
        if found is None:
            parts = [] if known is None else [self.schema.sub("properties", known)]
            for (_, pattern), hit in zip(self.watch, matched, strict=True):
                if hit:
                    parts.append(self.schema.sub("patternProperties", pattern))
            if not parts and "additionalProperties" in self.schema.raw:
                parts.append(self.schema.sub("additionalProperties"))
            found = self._children[key] = self.env.formulas.all_of(parts)
        return found


class InObject(Running):
    """The object keywords of a schema: `seen` tracked names, and how many properties came (as far as counted)."""

    __slots__ = ("count", "part", "seen")
    part: ObjectPart
    seen: frozenset[str]
    count: int

    def key(self, env: Env, name: str | None, flags: Mapping[Watch, bool]) -> Formula:
        """See `Running.key`."""
        child = self.part.child(name, flags)
        if child is FALSE:
            return FALSE
        after = self.with_key(env, name)
        return after if child is TRUE else env.formulas.all_of((after, verdict(env, child)))

    def with_key(self, env: Env, name: str | None) -> Formula:
        """The leaf after a key, its value aside."""
        seen = self.seen if name is None or name not in self.part.tracked else self.seen | {name}
        return in_object(env, self.part, seen, self.count + 1)

    def missing(self) -> list[str]:
        """Names that still have to come, in order."""
        needed = self.part.needed(self.seen)
        return [name for name in self.part.names if name in needed] if needed else []

    def decide(self, env: Env, gone: Callable[[str], bool]) -> Formula:
        """See `Running.decide`."""
        part = self.part
        needed = part.needed(self.seen)
        if needed:
            return FALSE if any(gone(name) for name in needed) else self
        if part.limits_others or part.high is not None or self.count < part.low:
            return self
        for name, others in part.dependent.items():
            if not (name in self.seen or gone(name) or self.seen.issuperset(others)):
                return self
        return TRUE if all(gone(name) for name in part.limited) else self

    def ends(self) -> bool:
        """See `Running.ends`."""
        part = self.part
        if self.count < part.low or not part.required <= self.seen:
            return False
        return not part.dependent or not part.needed(self.seen)


def in_object(env: Env, part: ObjectPart, seen: frozenset[str], count: int) -> Formula:
    """The leaf in this state, or FALSE if there are too many properties, or no room for those that have to come."""
    if part.high is not None and part.high - count < len(part.needed(seen)):
        return FALSE
    count = min(count, max(part.low, (part.high or 0) + 1)) if part.counts else 0

    def make() -> InObject:
        leaf = InObject()
        leaf.part, leaf.seen, leaf.count = part, seen, count
        return leaf

    return env.formulas.leaf((InObject, part, seen, count), make)


class ArrayPart:
    """The array keywords of one schema, prepared."""

    def __init__(self, schema: Schema) -> None:
        raw = schema.raw
        self.schema = schema
        items = raw.get("items")
        self.prefix = "items" if isinstance(items, list) else "prefixItems"
        self.prefix_length = len(raw.get(self.prefix, ()))
        self.rest = "additionalItems" if isinstance(items, list) else "items"
        self.low = int(raw.get("minItems", 0))
        self.high = int(raw["maxItems"]) if "maxItems" in raw else None
        self.unique = raw.get("uniqueItems", False) is True
        self.limits_rest = raw.get(self.rest, True) not in (True, {})
        self.contains = schema.sub("contains") if "contains" in raw else None
        self.contains_low = int(raw.get("minContains", 1)) if self.contains is not None else 0
        self.contains_high = (
            int(raw["maxContains"]) if "maxContains" in raw and self.contains is not None else None
        )
        if self.contains_low == 0 and self.contains_high is None:
            self.contains = None

    def child(self, index: int) -> Formula:
        """What the item at `index` has to be."""
        if index < self.prefix_length:
            return self.schema.sub(self.prefix, index)
        return self.schema.sub(self.rest) if self.rest in self.schema.raw else TRUE


class InArray(Running):
    """The array keywords of a schema: items so far, and those that `contains` counts (as far as they matter)."""

    __slots__ = ("count", "hits", "part")
    part: ArrayPart
    count: int
    hits: int

    def item(self, env: Env) -> Formula:
        """See `Running.item`."""
        from sgl_like.runtime.constrain.pushdown.following import possible

        part, f = self.part, env.formulas
        child = verdict(env, part.child(self.count))
        after = in_array(env, part, self.count + 1, self.hits)
        if part.contains is not None and possible(
            env, f.all_of((part.child(self.count), part.contains)), apart=True
        ):
            hit = verdict(env, part.contains)
            counted = in_array(env, part, self.count + 1, self.hits + 1)
            after = f.any_of((f.all_of((hit, counted)), f.all_of((f.negate(hit), after))))
        return f.all_of((after, child))

    def ends(self) -> bool:
        """See `Running.ends`."""
        return self.count >= self.part.low and self.hits >= self.part.contains_low


def in_array(env: Env, part: ArrayPart, count: int, hits: int) -> Formula:
    """The leaf in this state, or FALSE if there are too many items or hits, or no room for those that have to come."""
    if part.high is not None and (count > part.high or part.high - count < part.contains_low - hits):
        return FALSE
    if part.contains_high is not None and hits > part.contains_high:
        return FALSE
    if part.high is None:
        count = min(count, max(part.prefix_length, part.low))
    hits = min(hits, max(part.contains_low, (part.contains_high or 0) + 1))
    endless = part.high is None and part.contains_high is None and not (part.unique or part.limits_rest)
    if endless and count >= max(part.prefix_length, part.low) and hits >= part.contains_low:
        return TRUE  # nothing makes it false any more

    def make() -> InArray:
        leaf = InArray()
        leaf.part, leaf.count, leaf.hits = part, count, hits
        return leaf

    return env.formulas.leaf((InArray, part, count, hits), make)


class Unevaluated(Running):
    """``unevaluatedProperties`` or ``unevaluatedItems``: `conditions`, as far as they are decided, of its evaluators.

    What it demands of a value that has come is a formula beside it; it is itself never false.
    """

    __slots__ = ("child", "conditions", "count", "evaluators")
    evaluators: Sequence[Evaluator]
    child: Formula
    conditions: tuple[Formula, ...]
    count: int

    def key(self, env: Env, name: str | None, flags: Mapping[Watch, bool]) -> Formula:
        """See `Running.key`."""
        after = self._after(env, lambda leaf: _running(leaf).key(env, name, flags), 0)
        matched = [each for (kind, each), hit in flags.items() if hit and kind == "pattern"]
        ways = [
            condition
            for each, condition in zip(self.evaluators, after.conditions, strict=True)
            if each.evaluates(name, matched)
        ]
        return env.formulas.all_of((after, env.formulas.any_of((*ways, verdict(env, self.child)))))

    def item(self, env: Env) -> Formula:
        """See `Running.item`."""
        f = env.formulas
        after = self._after(env, lambda leaf: _running(leaf).item(env), self.count + 1)
        ways = []
        for each, condition in zip(self.evaluators, after.conditions, strict=True):
            if each.evaluates_item(self.count):
                ways.append(condition)
            elif each.contains is not None:
                ways.append(f.all_of((condition, verdict(env, each.contains))))
        return f.all_of((after, f.any_of((*ways, verdict(env, self.child)))))

    def settle(self, env: Env, change: Callable[[Leaf], Formula]) -> Formula:
        """See `Running.settle`."""
        return self._after(env, change, self.count)

    def decide(self, env: Env, gone: Callable[[str], bool]) -> Formula:
        """See `Running.decide`."""
        return self._after(
            env, lambda leaf: leaf.decide(env, gone) if isinstance(leaf, Running) else leaf, self.count
        )

    def held(self) -> Iterable[Formula]:
        """See `Running.held`."""
        return self.conditions

    def ends(self) -> bool:
        """See `Running.ends`."""
        return True

    def _after(self, env: Env, change: Callable[[Leaf], Formula], count: int) -> Unevaluated:
        conditions = tuple(env.formulas.map(each, change) for each in self.conditions)
        count = min(count, max((each.prefix for each in self.evaluators), default=0))
        return unevaluated(env, self.evaluators, self.child, conditions, count)


def unevaluated(
    env: Env, evaluators: Sequence[Evaluator], child: Formula, conditions: tuple[Formula, ...], count: int
) -> Unevaluated:
    """The leaf in this state."""

    def make() -> Unevaluated:
        leaf = Unevaluated()
        leaf.evaluators, leaf.child, leaf.conditions, leaf.count = evaluators, child, conditions, count
        return leaf

    key = (Unevaluated, id(evaluators), child, conditions, count)  # the schema keeps its evaluators
    found = env.formulas.leaf(key, make)
    assert isinstance(found, Unevaluated)
    return found


def _running(leaf: Leaf) -> Running:
    assert isinstance(leaf, Running)
    return leaf
