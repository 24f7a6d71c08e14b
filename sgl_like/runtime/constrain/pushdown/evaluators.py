"""What ``unevaluatedProperties`` and ``unevaluatedItems`` have to know: who evaluates which parts of a value, and when.

An evaluator is a schema applied in place beneath the one that has the keyword, and the condition, a formula about
the whole value, under which its annotations count. A condition does not repeat what has to be true for the schema
with the keyword to be true: `allOf` and `$ref` branches have no condition of their own, those of `anyOf` do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from sgl_like.errors import ConstraintTooComplex
from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, Formula
from sgl_like.runtime.constrain.pushdown.schema import Schema

__all__ = ["Evaluator", "evaluators"]

_KEYWORDS = {
    "properties": ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties"),
    "items": ("prefixItems", "items", "contains", "unevaluatedItems"),
}
_MOST = 10_000


class Evaluator:
    """If `condition` turns out to be true of the whole value, what `schema` itself describes of it is evaluated.

    Args:
        condition: TRUE if it always counts.
        schema: with the keywords that evaluate.
        is_self: whether that is the schema whose ``unevaluated...`` is asked about, which does not count itself.

    Attributes:
        everything: whether each property (or item) is evaluated.
        names: properties evaluated by name.
        patterns: patterns by which properties are evaluated.
        prefix: number of items evaluated by position.
        contains: what an item has to be to be evaluated by ``contains``; None without it.
    """

    __slots__ = ("condition", "contains", "everything", "names", "patterns", "prefix", "schema")

    def __init__(self, condition: Formula, schema: Schema, kind: str, is_self: bool) -> None:
        raw = schema.raw
        self.condition = condition
        self.schema = schema
        self.names: frozenset[str] = frozenset()
        self.patterns: tuple[str, ...] = ()
        self.prefix = 0
        self.contains: Formula | None = None
        if kind == "properties":
            self.names = frozenset(raw.get("properties", ()))
            self.patterns = tuple(raw.get("patternProperties", ()))
            self.everything = "additionalProperties" in raw
        else:
            items = raw.get("items")
            tuple_like = isinstance(items, list)
            self.prefix = len(items) if isinstance(items, list) else len(raw.get("prefixItems", ()))
            self.everything = "additionalItems" in raw if tuple_like else items is not None
            if "contains" in raw and schema.dialect.contains_evaluates:
                self.contains = schema.sub("contains")
        if not is_self and _KEYWORDS[kind][-1] in raw:
            self.everything = True

    def evaluates(self, name: str | None, matched: Collection[str] = ()) -> bool:
        """Whether it evaluates a property.

        Args:
            name: of the property; None for one that no ``properties`` names.
            matched: patterns that the name matches, at least those of `patterns`.
        """
        return self.everything or name in self.names or any(each in matched for each in self.patterns)

    def evaluates_item(self, index: int) -> bool:
        """Whether it evaluates the item at `index`, whatever it is; if not, `contains` still may."""
        return self.everything or index < self.prefix


def evaluators(schema: Schema, kind: Literal["properties", "items"]) -> list[Evaluator]:
    """All that may evaluate properties (or items) of a value for the ``unevaluated...`` keyword of `schema`.

    Each schema comes at most once; a boolean schema, or one without keywords that evaluate, not at all.

    Raises:
        UnsupportedSchemaError: something in place beneath `schema` cannot be enforced.
        ConstraintTooComplex: there are too many ways to reach a schema.
    """
    formulas = schema.document.formulas
    schema.formula()  # so that there is no endless way down
    conditions: dict[Schema, list[Formula]] = {}
    seen: set[tuple[Schema, Formula]] = set()
    todo = [(schema, TRUE)]
    for each, condition in todo:
        if condition is FALSE or (each, condition) in seen:
            continue
        seen.add((each, condition))
        if len(seen) > _MOST:
            raise ConstraintTooComplex(
                f"unevaluated{kind.capitalize()} at {schema.pointer} depends on too much"
            )
        if not set(_KEYWORDS[kind]).isdisjoint(each.raw):
            conditions.setdefault(each, []).append(condition)
        for when, part in _applied(each):
            todo.append((part, formulas.all_of([condition, when])))
    return [Evaluator(formulas.any_of(ways), each, kind, each is schema) for each, ways in conditions.items()]


def _applied(schema: Schema) -> Iterator[tuple[Formula, Schema]]:
    """Schemas applied in place whose annotations count, and when: given that `schema` is true."""
    raw, negate = schema.raw, schema.document.formulas.negate
    for target in schema.targets():
        if isinstance(target, Schema):
            yield TRUE, target
    for keyword in ("allOf", "anyOf", "oneOf"):
        for i in range(len(raw.get(keyword, ()))):
            part = schema.at(keyword, i)
            if isinstance(part, Schema):
                yield TRUE if keyword == "allOf" else part.formula(), part
    if "if" in raw:
        condition = schema.sub("if")
        for keyword, when in (("if", condition), ("then", condition), ("else", negate(condition))):
            if keyword in raw:
                part = schema.at(keyword)
                if isinstance(part, Schema):
                    yield when, part
    for name, keyword in schema.dependent_schemas():
        part = schema.at(keyword, name)
        if isinstance(part, Schema):
            yield schema.has(name, keyword), part
