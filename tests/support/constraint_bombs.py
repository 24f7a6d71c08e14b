# ruff: noqa: E501
"""Constraints that are small to write and large to compile or to follow (serving.md AT 6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WORD = {"type": "string", "pattern": "^(a|b|c)*x"}


def _nested(depth: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}}
    return schema


def _doubling(levels: int) -> Any:
    """References that double at every level."""
    defs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}}]}
            for i in range(levels)}  # fmt: skip
    return {"$ref": "#/$defs/d0", "$defs": defs | {f"d{levels}": {"type": "integer"}}}


def _exclusive(count: int) -> Any:
    """Objects that only their values tell apart, so that all must be followed side by side."""
    branch = [
        {"type": "object", "properties": {f"p{i}": {"type": "string", "pattern": f"^.*{i}.{{{i}}}$"} for i in range(count)},
         "required": [f"p{k}"]} for k in range(count)]  # fmt: skip
    return {"oneOf": branch}


def _schema(value: Any) -> dict[str, str]:
    return {"json_schema": json.dumps(value)}


BOMBS: Mapping[str, dict[str, str]] = {
    "regex counts in counts": {"regex": "((a{1,99}b?){1,99}c?){1,99}"},
    "regex of remembered places": {"regex": "(a|b)*a(a|b){400}"},
    "regex look-behind the end": {"regex": "(.*a.{300}|.*b.{299}|.*c.{298})"},
    "regex conjunction": {"regex": "".join(f"(?=.*[a-z]{{{i}}}[0-9].*)" for i in range(1, 60)) + ".*"},
    "regex optional tails": {"regex": "a?" * 1000 + "a{1000}"},
    "regex brackets": {"regex": "(" * 180 + "a" + ")*" * 180},
    "regex classes": {"regex": "([\\w.]+\\s?)*([\\d\\w]+[.,])*(\\w*\\d*)*!{500}"},
    "regex big repeat": {"regex": "((((a|bb|ccc){1,9}d){1,99}|(ee|f){1,999}){1,9999}g){1,9999}"},
    "regex unicode": {"regex": "(\\w{1,200}\\W{1,200}){1,200}" * 20},
    "schema enum": _schema({"enum": [f"{i * 7919:x}-{'x' * (i % 90)}" for i in range(900)]}),
    "schema enum keys": _schema({"enum": [{f"k{j}": i + j for j in range(10)} for i in range(700)]}),
    "schema patterns": _schema({"allOf": [{"type": "string", "pattern": f"[a-f]{{{i}}}[0-9]"} for i in range(1, 60)]}),
    "schema not patterns": _schema({"type": "string", "allOf": [{"not": {"pattern": f"a.{{{i}}}b"}} for i in range(1, 40)]}),
    "schema any of patterns": _schema({"anyOf": [{"type": "string", "pattern": f"^(.*a.{{{i}}}b)+$"} for i in range(1, 80)]}),
    "schema one of": _schema(_exclusive(30)),
    "schema nested": _schema(_nested(11)),
    "schema references": _schema(_doubling(60)),
    "schema length": _schema({"type": "string", "minLength": 10_000, "maxLength": 9_999_999, "pattern": "(a|b)*a(a|b){200}$"}),
    "schema multiples": _schema({"allOf": [{"type": "number", "multipleOf": n} for n in (9973, 9967, 9949, 9941)]}),
    "schema unique": _schema({"type": "array", "items": {"enum": list(range(900))}, "uniqueItems": True, "minItems": 900}),
    "schema pattern properties": _schema({"type": "object", "patternProperties": {
        f"^.*a.{{{i}}}b": {"type": "string", "pattern": f"^.*c.{{{i}}}$"} for i in range(40)}}),
    "schema contains": _schema({"type": "array", "allOf": [
        {"contains": _WORD | {"minLength": i}, "minContains": i} for i in range(1, 30)]}),
    "schema required": _schema({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(900)},
                               "required": [f"p{i}" for i in range(900)]}),
    "schema dependent": _schema({"type": "object", "dependentSchemas": {
        f"p{i}": {"properties": {f"p{j}": _WORD for j in range(i)}, "minProperties": i} for i in range(40)}}),
    "grammar ambiguous": {"ebnf": 'root ::= s\ns ::= s s | s s s | "a" | "b" | ""'},
    "grammar left recursive": {"ebnf": 'root ::= e\ne ::= e "+" e | e "*" e | "(" e ")" | e e | [a-z]+'},
    "grammar counts": {"ebnf": 'root ::= a{1,500}\na ::= (b "x"?){1,500}\nb ::= ("y" | "yy" | c){1,500}\nc ::= [a-z]{1,99}'},
    "grammar many rules": {"ebnf": "root ::= r0\n" + "\n".join(f'r{i} ::= r{i + 1} r{i + 1} | "a" r{i + 1}?' for i in range(90))
                           + '\nr90 ::= "b"'},
    "grammar brackets": {"ebnf": "root ::= " + "(" * 150 + '"a"' + ")*" * 150},
}  # fmt: skip
"""Sampling parameters by name; all are within `Limits` of the server."""
