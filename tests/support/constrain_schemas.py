"""Schemas that between them use every keyword, and random ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "left": {"$ref": "#"}, "right": {"$ref": "#"}},
    "required": ["v"],
    "additionalProperties": False,
}
SCHEMAS: list[Any] = [
    True,
    {},
    {"type": "string"},
    {"type": ["null", "boolean"]},
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": "string", "pattern": "^[ab]+c?$"},
    {"type": "string", "pattern": "é|한"},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": 12, "maximum": 30},
    {"type": "number", "exclusiveMinimum": 0.5, "exclusiveMaximum": 0.75},
    {"type": "integer", "multipleOf": 7, "minimum": 20},
    {"enum": ["red", "green", 3, None, {"a": [1]}, [[]]]},
    {"const": {"kind": "a", "n": [1, {"x": None}]}},
    {"const": "he said \"no\"\n"},
    {"type": "object", "required": ["name", "a", "kin"]},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]},
    {"type": "object", "properties": {"a": True, "b": False}, "additionalProperties": {"type": "null"}},
    {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "additionalProperties": False},
    {"type": "object", "patternProperties": {"^a": {"type": "integer"}, "e$": {"minimum": 5}}, "required": ["ae"]},
    {"type": "object", "patternProperties": {"^k": {"const": 1}}, "additionalProperties": False, "minProperties": 1},
    {"type": "object", "propertyNames": {"pattern": "^[ab]{2}$"}, "minProperties": 2},
    {"type": "object", "propertyNames": {"enum": ["a", "name"]}, "minProperties": 1},
    {"type": "object", "minProperties": 3, "maxProperties": 4, "properties": {"a": {"type": "null"}}},
    {"type": "object", "dependentRequired": {"a": ["b", "kin"], "b": ["name"]}, "minProperties": 1},
    {"type": "object", "dependentSchemas": {"a": {"required": ["n"], "properties": {"n": {"const": 1}}}}},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "array", "items": {"enum": ["tr", "ue"]}, "minItems": 2, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "null"}, {"const": "a"}], "items": {"type": "boolean"}, "minItems": 3},
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False},
    {"type": "array", "contains": {"const": True}},
    {"type": "array", "contains": {"type": "integer"}, "minContains": 2, "maxContains": 3,
     "items": {"type": ["integer", "string"]}},
    {"type": "array", "contains": {"type": "object", "required": ["a"]}, "maxItems": 2},
    {"type": "array", "contains": {"minLength": 2}, "items": {"type": "string", "maxLength": 3}, "minContains": 2},
    {"allOf": [{"required": ["a"]}, {"properties": {"a": {"minimum": 10}}}, {"properties": {"a": {"type": "integer"}}}],
     "type": "object"},
    {"anyOf": [{"type": "string", "minLength": 2}, {"type": "object", "required": ["name"]}]},
    {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]},
    {"oneOf": [
        {"type": "object", "properties": {"kind": {"const": k}}, "required": ["kind", *more]}
        for k, more in {"a": ["n"], "name": [], "kin": ["a", "b"]}.items()
    ]},
    {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b", "name"]}], "not": {"required": ["a", "b"]}},
    {"not": {"type": ["string", "number", "null", "boolean"]}, "minItems": 1, "minProperties": 1},
    {"type": "string", "not": {"pattern": "a"}, "minLength": 1},
    {"type": "array", "not": {"contains": {"type": "integer"}}, "minItems": 2},
    {"type": "array", "not": {"items": {"type": "integer"}}},
    {"type": "object", "not": {"properties": {"a": {"type": "integer"}}}},
    {"type": "object", "not": {"maxProperties": 1}},
    {"if": {"type": "object", "required": ["a"]}, "then": {"required": ["b"]}, "else": {"type": "array"}},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
     "if": {"properties": {"a": {"minimum": 10}}}, "then": {"required": ["name"]},
     "else": {"properties": {"name": False}}},
    {"type": "array", "uniqueItems": True, "items": {"enum": ["a", 1, 12, [1]]}, "minItems": 3},
    {"type": "array", "uniqueItems": True, "minItems": 2, "items": {"type": "array", "uniqueItems": True,
     "items": {"type": "boolean"}}},
    {"type": "object", "properties": {"a": True}, "anyOf": [{"properties": {"b": {"type": "null"}}, "required": ["b"]},
     {"properties": {"name": {"const": "a"}}, "required": ["name"]}], "unevaluatedProperties": False},
    {"type": "array", "prefixItems": [{"const": 1}], "anyOf": [{"prefixItems": [True, {"const": "a"}]}, True],
     "unevaluatedItems": {"type": "null"}, "minItems": 3},
    TREE,
    {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]},
    {"$defs": {"list": {"type": "object", "properties": {
     "next": {"anyOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]},
     "a": {"enum": ["tr", "ue"]}}, "required": ["a", "next"], "additionalProperties": False}}, "$ref": "#/$defs/list"},
    {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "array", "items": {
        "type": "object", "required": ["name"]}, "minItems": 2}}, "required": ["b"]}}, "required": ["a"]},
    {"type": "object", "properties": {"kind": {"enum": ["a", "name"]}, "n": {"type": "integer", "minimum": 3}},
     "required": ["kind"], "anyOf": [
        {"properties": {"kind": {"const": "a"}}, "not": {"required": ["n"]}},
        {"properties": {"kind": {"const": "name"}, "tags": {"contains": {"const": True}}}, "required": ["n"]}],
     "if": {"required": ["next"]}, "then": {"maxProperties": 2}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "null"}],
     "additionalItems": {"type": "boolean"}, "minItems": 2},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "minProperties": 1,
     "dependencies": {"a": ["b"], "b": {"properties": {"n": {"const": 1}}, "required": ["n"]}}},
    {"type": "array", "prefixItems": [{"contains": {"const": "a"}},
     {"oneOf": [{"required": ["a"]}, {"required": ["b"]}],
     "type": "object"}], "minItems": 2},
]  # fmt: skip


def schemas() -> st.SearchStrategy[Any]:
    """Random schemas, small ones; some are valid for nothing."""
    names = st.sampled_from(["a", "b", "name", "kin"])
    scalars = st.sampled_from(["a", "name", "", 0, 1, 12, -1.5, True, None])
    numbers = st.integers(-3, 12)
    leaves = st.one_of(
        st.just(True),
        st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "null", "boolean"])}),
        st.fixed_dictionaries({"const": scalars}),
        st.fixed_dictionaries({"enum": st.lists(scalars, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"type": st.just("integer"), "minimum": numbers}),
        st.fixed_dictionaries({"maximum": numbers}),
        st.fixed_dictionaries({"type": st.just("string"), "minLength": st.integers(0, 3)}),
        st.fixed_dictionaries({"pattern": st.sampled_from(["^a", "b$", "[ab]"])}),
        st.fixed_dictionaries({"type": st.sampled_from(["object", "array"])}),
    )

    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=3)
        objects = st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(names, inner, max_size=3),
                "required": st.lists(names, max_size=2, unique=True),
                "additionalProperties": st.one_of(inner, st.just(False)),
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "n"]), inner, max_size=1),
                "propertyNames": st.sampled_from([{"maxLength": 2}, {"pattern": "a"}, {"minLength": 1}]),
                "minProperties": st.integers(0, 2),
                "maxProperties": st.integers(2, 3),
                "dependentRequired": st.dictionaries(names, st.lists(names, max_size=1), max_size=1),
                "dependentSchemas": st.dictionaries(names, inner, max_size=1),
                "unevaluatedProperties": st.one_of(inner, st.just(False)),
            },
        )
        arrays = st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={
                "items": inner,
                "prefixItems": some,
                "contains": inner,
                "minItems": st.integers(0, 2),
                "maxItems": st.integers(2, 3),
                "minContains": st.integers(0, 2),
                "maxContains": st.integers(1, 2),
                "unevaluatedItems": st.one_of(inner, st.just(False)),
            },
        )
        combined = st.one_of(
            st.fixed_dictionaries({"anyOf": some}),
            st.fixed_dictionaries({"allOf": some}),
            st.fixed_dictionaries({"oneOf": some}),
            st.fixed_dictionaries({"not": inner}),
            st.fixed_dictionaries({"oneOf": st.lists(objects, min_size=2, max_size=3)}),
            st.fixed_dictionaries({"not": objects, "type": st.just("object")}),
            st.fixed_dictionaries({"if": inner, "then": inner}, optional={"else": inner}),
        )
        return st.one_of(
            objects, arrays, combined, st.tuples(objects, combined).map(lambda two: {**two[0], **two[1]})
        )

    return st.recursive(leaves, extend, max_leaves=6)
