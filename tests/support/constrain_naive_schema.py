"""JSON Schema formulas the naive way: over a value that is there as a whole. The pushdown machine must agree."""

from __future__ import annotations

from typing import Any

import jsonschema
import regex

from sgl_like.runtime.constrain.pushdown.evaluators import Evaluator
from sgl_like.runtime.constrain.pushdown.formula import FALSE, TRUE, And, Formula, Formulas, Not, Or
from sgl_like.runtime.constrain.pushdown.schema import NUMBER, STRING, Document, Own, Schema


def is_valid(schema: Any, value: Any, **options: Any) -> bool:
    """Whether `value` is valid under a schema document."""
    return holds(Document(schema, Formulas(), **options).schema(schema, "", ""), value)


def holds(formula: Formula, value: Any) -> bool:
    """Whether a formula is true of `value`."""
    if formula in (TRUE, FALSE):
        return formula is TRUE
    if isinstance(formula, And):
        return all(holds(part, value) for part in formula.parts)
    if isinstance(formula, Or):
        return any(holds(part, value) for part in formula.parts)
    if isinstance(formula, Not):
        return not holds(formula.part, value)
    assert isinstance(formula, Own)
    schema = formula.schema
    if isinstance(value, dict) and not object_holds(schema, value):
        return False
    if isinstance(value, list) and not array_holds(schema, value):
        return False
    if isinstance(value, str) and "pattern" in schema.raw and not regex.search(schema.raw["pattern"], value):
        return False
    simple = {
        k: schema.raw[k]
        for k in (*STRING, *NUMBER, "type", "enum", "const")
        if k in schema.raw and k != "pattern"
    }
    return bool(jsonschema.Draft202012Validator(simple).is_valid(value))


def object_holds(schema: Schema, value: dict[str, Any]) -> bool:
    raw = schema.raw
    if not raw.get("minProperties", 0) <= len(value) <= raw.get("maxProperties", len(value)):
        return False
    if not all(name in value for name in raw.get("required", ())):
        return False
    if any(k in value and not set(v) <= value.keys() for k, v in schema.dependent_required().items()):
        return False
    if "propertyNames" in raw and not all(holds(schema.sub("propertyNames"), name) for name in value):
        return False
    unevaluated = None
    if "unevaluatedProperties" in raw:
        unevaluated = [each for each in schema.evaluators("properties") if holds(each.condition, value)]
    for name, each in value.items():
        matched = [pattern for pattern in raw.get("patternProperties", ()) if regex.search(pattern, name)]
        subs = [schema.sub("patternProperties", pattern) for pattern in matched]
        if name in raw.get("properties", ()):
            subs.append(schema.sub("properties", name))
        if not subs and "additionalProperties" in raw:
            subs.append(schema.sub("additionalProperties"))
        if unevaluated is not None and not any(_evaluates(one, name) for one in unevaluated):
            subs.append(schema.sub("unevaluatedProperties"))
        if not all(holds(sub, each) for sub in subs):
            return False
    return True


def _evaluates(evaluator: Evaluator, name: str) -> bool:
    matched = [pattern for pattern in evaluator.patterns if regex.search(pattern, name)]
    return evaluator.evaluates(name if name in evaluator.names else None, matched)


def array_holds(schema: Schema, value: list[Any]) -> bool:
    raw = schema.raw
    items = raw.get("items")
    prefix, rest = ("items", "additionalItems") if isinstance(items, list) else ("prefixItems", "items")
    if not raw.get("minItems", 0) <= len(value) <= raw.get("maxItems", len(value)):
        return False
    if not jsonschema.Draft202012Validator({"uniqueItems": raw.get("uniqueItems", False)}).is_valid(value):
        return False
    if "contains" in raw:
        hits = sum(holds(schema.sub("contains"), each) for each in value)
        if not raw.get("minContains", 1) <= hits <= raw.get("maxContains", hits):
            return False
    unevaluated = None
    if "unevaluatedItems" in raw:
        unevaluated = [each for each in schema.evaluators("items") if holds(each.condition, value)]
    for i, each in enumerate(value):
        subs = []
        if i < len(raw.get(prefix, ())):
            subs.append(schema.sub(prefix, i))
        elif rest in raw:
            subs.append(schema.sub(rest))
        if unevaluated is not None and not any(
            one.evaluates_item(i) or (one.contains is not None and holds(one.contains, each))
            for one in unevaluated
        ):
            subs.append(schema.sub("unevaluatedItems"))
        if not all(holds(sub, each) for sub in subs):
            return False
    return True
