"""What the assertions about a value become when its opening bracket has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, Formula, Leaf
from sgl_like.runtime.constrain.pushdown.keywords import at
from sgl_like.runtime.constrain.pushdown.leaves import ArrayPart, ObjectPart, in_array, in_object, unevaluated
from sgl_like.runtime.constrain.pushdown.schema import ARRAY, OBJECT, Own, Schema

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.pushdown.values import Env

_UNEVALUATED: dict[str, tuple[str, Literal["properties", "items"]]] = {
    "object": ("unevaluatedProperties", "properties"),
    "array": ("unevaluatedItems", "items"),
}


def begin(env: Env, schema: Schema, kind: str) -> Formula:
    """What a schema's own assertions become when the value turns out to be an ``"object"`` or an ``"array"``."""
    key = (schema, kind)
    found = env.begun.get(key)
    if found is None:
        found = env.begun[key] = _begin(env, schema, kind)
    return found


def _begin(env: Env, schema: Schema, kind: str) -> Formula:
    raw, f = schema.raw, env.formulas
    if kind not in schema.types:
        return FALSE
    parts: list[Formula] = []
    for keyword, values in (("enum", raw.get("enum")), ("const", [raw["const"]] if "const" in raw else None)):
        if values is not None:
            constants = (
                constant(schema, value, at(schema.pointer, keyword, i))
                for i, value in enumerate(values)
                if isinstance(value, dict if kind == "object" else list)
            )
            parts.append(
                f.any_of([f.map(each, lambda leaf: begin_own(env, leaf, kind)) for each in constants])
            )
    if kind == "object":
        if any(keyword in raw for keyword in OBJECT) or "dependencies" in raw:
            part = ObjectPart(env, schema)
            begun = in_object(env, part, frozenset(), 0)
            if begun is not FALSE and not (part.names or part.limits_others or part.counts):
                begun = TRUE
            parts.append(begun)
    elif any(keyword in raw for keyword in ARRAY):
        parts.append(in_array(env, ArrayPart(schema), 0, 0))
    keyword, which = _UNEVALUATED[kind]
    if keyword in raw:
        evaluators = schema.evaluators(which)
        conditions = tuple(
            f.map(each.condition, lambda leaf: begin_own(env, leaf, kind)) for each in evaluators
        )
        parts.append(unevaluated(env, evaluators, schema.sub(keyword), conditions, 0))
    return f.all_of(parts)


def begin_own(env: Env, leaf: Leaf, kind: str) -> Formula:
    """`begin` for a leaf of a formula about a whole value."""
    assert isinstance(leaf, Own)
    return begin(env, leaf.schema, kind)


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
