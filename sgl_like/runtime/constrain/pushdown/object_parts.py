"""What the object keywords of a schema assert, as leaves of formulas."""

from __future__ import annotations

from typing import Any

from sgl_like.errors import UnsupportedSchemaError
from sgl_like.runtime.constrain.json_keywords import at
from sgl_like.runtime.constrain.pushdown.formula import FALSE, Formula, Leaf
from sgl_like.runtime.constrain.pushdown.schema import OBJECT, Schema
from sgl_like.runtime.constrain.pushdown.values import Env


class ObjectPart:
    """The object keywords of one schema, prepared."""

    def __init__(self, env: Env, schema: Schema) -> None:
        raw = schema.raw
        self.env = env
        self.schema = schema
        self.names: list[str] = list(raw.get("properties", ()))
        self.required: frozenset[str] = frozenset(raw.get("required", ()))
        self.names += [name for name in raw.get("required", ()) if name not in raw.get("properties", {})]
        self.dependent = schema.dependent_required()
        known = dict.fromkeys(self.names)
        for name, others in self.dependent.items():
            known.update(dict.fromkeys([name, *others]))
        self.names = list(known)
        self.tracked = self.required.union(self.dependent, *self.dependent.values())
        self.low = int(raw.get("minProperties", 0))
        self.high = int(raw["maxProperties"]) if "maxProperties" in raw else None
        self.counts = self.low > 0 or self.high is not None
        self.patterns: list[str] = list(raw.get("patternProperties", ()))
        self._children: dict[Any, Formula] = {}
        if "unevaluatedProperties" in raw:
            raise UnsupportedSchemaError("unevaluatedProperties", at(schema.pointer, "unevaluatedProperties"))

    def child(self, name: str | None, matched: tuple[bool, ...]) -> Formula:
        """What the value of a property has to be; `matched` says which of `patterns` its name matches."""
        key = (name, matched)
        found = self._children.get(key)
        if found is None:
            raw, schema = self.schema.raw, self.schema
            parts = []
            if name is not None and name in raw.get("properties", ()):
                parts.append(schema.sub("properties", name))
            parts += [
                schema.sub("patternProperties", pattern)
                for pattern, hit in zip(self.patterns, matched, strict=True)
                if hit
            ]
            if not parts and "additionalProperties" in raw:
                parts.append(schema.sub("additionalProperties"))
            found = self._children[key] = self.env.formulas.all_of(parts)
        return found


class InObject(Leaf):
    """An object assertion that is running: `seen` tracked names, and how many properties came (as far as counted)."""

    __slots__ = ("count", "part", "seen")
    part: ObjectPart
    seen: frozenset[str]
    count: int


def in_object(env: Env, part: ObjectPart, seen: frozenset[str], count: int) -> Formula:
    """The leaf in this state, or FALSE if there are too many properties."""
    if part.high is not None and count > part.high:
        return FALSE
    count = min(count, max(part.low, (part.high or 0) + 1)) if part.counts else 0

    def make() -> InObject:
        leaf = InObject()
        leaf.part, leaf.seen, leaf.count = part, seen, count
        return leaf

    return env.formulas.leaf((InObject, id(part), seen, count), make)


def begin_object(env: Env, schema: Schema) -> Formula:
    """What a schema's own assertions become when the value turns out to be an object."""
    raw = schema.raw
    if "object" not in schema.types:
        return FALSE
    parts: list[Formula] = []
    for keyword, values in (
        ("enum", raw.get("enum")),
        ("const", [raw["const"]] if "const" in raw else None),
    ):
        if values is not None:
            parts.append(
                env.formulas.any_of(
                    [
                        env.formulas.map(
                            constant(schema, value, at(schema.pointer, keyword, i)),
                            lambda leaf: begin_object(env, leaf.schema),  # type: ignore[attr-defined]
                        )
                        for i, value in enumerate(values)
                        if isinstance(value, dict)
                    ]
                )
            )
    if any(keyword in raw for keyword in OBJECT) or "dependencies" in raw:
        part = env.parts.get(id(schema))
        if part is None:
            part = env.parts[id(schema)] = ObjectPart(env, schema)
        parts.append(in_object(env, part, frozenset(), 0))
    return env.formulas.all_of(parts)


def constant(schema: Schema, value: Any, pointer: str) -> Formula:
    """A schema of exactly this object or array."""
    raw: dict[str, Any]
    if isinstance(value, dict):
        raw = {
            "type": "object",
            "properties": {name: {"const": each} for name, each in value.items()},
            "required": list(value),
            "additionalProperties": False,
        }
    else:
        raw = {
            "type": "array",
            "prefixItems": [{"const": each} for each in value],
            "minItems": len(value),
            "maxItems": len(value),
        }
    return schema.document.keep(raw, pointer + "#const", schema.base)
