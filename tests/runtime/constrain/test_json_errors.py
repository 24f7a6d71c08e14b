"""What is malformed or cannot be enforced is an error with the keyword and its JSON pointer; nothing is dropped in
silence."""

from __future__ import annotations

from typing import Any

import pytest

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from tests.support.constrain_vocab import make_vocabulary

COMPILER = GrammarCompiler(make_vocabulary())


def _within(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a/b": {"type": "array", "items": schema}}}


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "strin"}, "/type"),
        ({"type": []}, "/type"),
        ({"type": 5}, "/type"),
        ({"enum": "a"}, "/enum"),
        ({"properties": []}, "/properties"),
        ({"properties": {"a": 1}}, "/properties"),
        ({"required": "a"}, "/required"),
        ({"required": [1]}, "/required"),
        ({"additionalProperties": "no"}, "/additionalProperties"),
        ({"minLength": "a"}, "/minLength"),
        ({"minLength": -1}, "/minLength"),
        ({"minLength": 1.5}, "/minLength"),
        ({"maxItems": True}, "/maxItems"),
        ({"minimum": "0"}, "/minimum"),
        ({"minimum": True}, "/minimum"),
        ({"pattern": 5}, "/pattern"),
        ({"pattern": "a("}, "/pattern"),
        ({"pattern": r"(a)\1"}, "/pattern"),
        ({"prefixItems": {}}, "/prefixItems"),
        ({"anyOf": []}, "/anyOf"),
        ({"anyOf": {}}, "/anyOf"),
        ({"anyOf": [{}, 1]}, "/anyOf"),
        ({"$ref": "#/$defs/none"}, "/$ref"),
        ({"$ref": "other.json"}, "/$ref"),
        ({"$ref": "#anchor"}, "/$ref"),
        ({"$ref": "#/$defs", "$defs": []}, "/$ref"),
        ({"$ref": "#"}, "/$ref"),
        ({"const": "\ud800"}, "/const"),
        ({"enum": [float("nan")]}, "/enum"),
    ],
)
def test_pointer_and_keyword(schema: Any, pointer: str) -> None:
    keyword = pointer.rpartition("/")[2]
    if keyword not in ("const", "enum") or "nan" not in str(schema):
        with pytest.raises(UnsupportedSchemaError) as caught:
            COMPILER.compile_json_schema(schema)
        assert (caught.value.keyword, caught.value.pointer) == (keyword, pointer)
        assert repr(keyword) in str(caught.value)
    if "$ref" in schema:
        return
    with pytest.raises(UnsupportedSchemaError) as caught:
        COMPILER.compile_json_schema(_within(schema))
    assert caught.value.pointer == "/properties/a~1b/items" + pointer


def test_pointer_within_definitions() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"type": "text"}}}
    with pytest.raises(UnsupportedSchemaError) as caught:
        COMPILER.compile_json_schema(schema)
    assert caught.value.pointer == "/$defs/b/type"


def test_what_a_lenient_compilation_drops_is_listed() -> None:
    schema = {"properties": {"a": {"$ref": "other.json", "type": "integer"}}}
    with pytest.raises(UnsupportedSchemaError, match="not in the document"):
        COMPILER.compile_json_schema(schema)
    compiled = COMPILER.compile_json_schema(schema, lenient=True)
    assert [dropped[:2] for dropped in compiled.dropped] == [("$ref", "/properties/a/$ref")]
    for text, expected in [(b'{"a":1}', True), (b'{"a":"x"}', False)]:
        assert compiled.matcher().accept_bytes(text) == expected
    assert COMPILER.compile_json_schema({"type": "null"}, lenient=True).dropped == ()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is not JSON.*column 2"),
        ("5", "an object or a boolean"),
        (None, "an object or a boolean"),
        ([], "an object or a boolean"),
        (False, "allows no output"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "allows no output"),
        ({"type": "string", "minLength": 5, "maxLength": 4}, "allows no output"),
        ({"type": "string", "pattern": "^a{3}$", "maxLength": 2}, "allows no output"),
        ({"type": "string", "enum": [1]}, "allows no output"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "allows no output"),
        ({"enum": [{1, 2}]}, "not JSON"),
    ],
)
def test_other_errors(schema: Any, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        COMPILER.compile_json_schema(schema)


def test_too_deep_and_too_large() -> None:
    schema: Any = {}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConstraintTooComplex, match="levels deep"):
        COMPILER.compile_json_schema(schema)
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(ConstraintError):
        COMPILER.compile_json_schema(schema)
    with pytest.raises(ConstraintError):
        COMPILER.compile_json_schema("[" * 100_000)
    small = GrammarCompiler(COMPILER.vocabulary, Limits(max_source=100, max_work=500))
    with pytest.raises(ConstraintTooComplex, match="characters"):
        small.compile_regex("a" * 101)
    with pytest.raises(ConstraintTooComplex, match="expression nodes"):
        small.compile_regex(r"\w")
    with pytest.raises(ConstraintTooComplex, match="alternatives"):
        GrammarCompiler(COMPILER.vocabulary, Limits(max_width=50)).compile_regex(
            "|".join(f"{i}[a-z]{{{i + 2}}}" for i in range(60))
        )
