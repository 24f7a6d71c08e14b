"""Schema documents as formulas, judged over whole values: the official suite, jsonschema, and what is refused."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.pushdown.formula import Formulas
from sgl_like.runtime.constrain.pushdown.keywords import KEYWORDS, json_depth, markdown
from sgl_like.runtime.constrain.pushdown.schema import Document, Own, Schema
from tests.support.constrain_naive_schema import holds, is_valid

SUITE = Path(__file__).parents[5] / "shared/bench/constraints/json-schema-test-suite"
META = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
DRAFT4 = "http://json-schema.org/draft-04/schema#"
DRAFT2019 = "https://json-schema.org/draft/2019-09/schema"
OPTIONAL = "anchor id dynamicRef no-schema refOfUnknownKeyword unknownKeyword dependencies-compatibility"
# A `$schema` that nobody knows is taken for 2020-12, whatever its vocabulary.
UNKNOWN_VOCABULARY = "schema that uses custom metaschema with with no validation vocabulary"

needs_suite = pytest.mark.skipif(not SUITE.is_dir(), reason=f"the JSON-Schema-Test-Suite is not at {SUITE}")


def groups(draft: str) -> list[dict[str, Any]]:
    paths = [*(SUITE / "tests" / draft).glob("*.json")]
    paths += [SUITE / "tests" / draft / "optional" / f"{name}.json" for name in OPTIONAL.split()]
    found = [
        group for path in sorted(paths) if path.exists() for group in json.loads(path.read_text("utf-8"))
    ]
    return [group for group in found if group["description"] != UNKNOWN_VOCABULARY]


def wrong(group: dict[str, Any], schema: Any) -> list[str]:
    formula = Document(schema, Formulas()).schema(schema, "", "")
    return [
        f"{group['description']}: {test['description']}"
        for test in group["tests"]
        if holds(formula, test["data"]) != test["valid"]
    ]


@needs_suite
@pytest.mark.parametrize("draft", META)
def test_suite(draft: str) -> None:
    bad, refused = [], Counter[str]()
    for group in groups(draft):
        schema = group["schema"]
        if isinstance(schema, dict):
            schema = {"$schema": META[draft], **schema}
        try:
            bad += wrong(group, schema)
        except UnsupportedSchemaError as error:
            assert re.fullmatch(r"points to '.*\.json.*|points to 'http://json-schema.org.*|"
                                r"points to 'https://json-schema.org.*", error.reason)  # fmt: skip
            refused[error.keyword] += 1
    assert bad == []
    assert refused == Counter({"$ref": {"draft2020-12": 22, "draft7": 13}[draft]})


def bundled(draft: str) -> dict[str, Any]:
    """The suite's remote documents and the metaschemas, as definitions."""
    from jsonschema_specifications import REGISTRY

    part = {"draft2020-12": "2020-12", "draft7": "draft-07"}[draft]
    found: dict[str, Any] = {uri: REGISTRY[uri].contents for uri in REGISTRY if part in uri}
    home = SUITE / "remotes"
    for path in sorted(home.rglob("*.json")):
        name = path.relative_to(home).as_posix()
        raw = json.loads(path.read_text("utf-8"))
        if isinstance(raw, dict) and (name.startswith(draft) or not name.startswith("draft")):
            base = "" if "://" in raw.get("$id", "") else "http://localhost:1234/"
            known = {"$id": base + raw.get("$id", name)}
            found[name] = {"$schema": META[draft], **raw, **known}
    return found


@needs_suite
@pytest.mark.parametrize("draft", META)
def test_suite_with_remote_documents_as_definitions(draft: str) -> None:
    bad, refused = [], []
    definitions = "definitions" if draft == "draft7" else "$defs"
    remote = bundled(draft)
    for group in groups(draft):
        schema = group["schema"]
        if "//json-schema.org" not in str(schema) and ".json" not in str(schema):
            continue
        if draft == "draft7" and "$ref" in schema:
            schema = {"allOf": [schema]}
        home = {"$schema": META[draft], "$id": schema.get("$id", "http://localhost:1234/")}
        schema = {**schema, **home, definitions: {**schema.get(definitions, {}), **remote}}
        try:
            bad += wrong(group, schema)
        except UnsupportedSchemaError as error:
            refused.append(group["description"])
            assert "not in the document" in error.reason
    assert bad == []
    # Those whose document names itself differently from where it is retrieved; that cannot be said in a bundle.
    assert len(refused) <= {"draft2020-12": 2, "draft7": 0}[draft], refused


# -- keywords --------------------------------------------------------------------------------------------------------


def _deep(key: str, levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {key: [schema] if key == "allOf" else schema}
    return schema


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"type": "strin"}, "/type"),
    ({"type": []}, "/type"),
    ({"type": 5}, "/type"),
    ({"type": ["string", "any"]}, "/type"),
    ({"enum": "a"}, "/enum"),
    ({"enum": [float("nan")]}, "/enum"),
    ({"enum": [{1, 2}]}, "/enum"),
    ({"const": {1: 2}}, "/const"),
    ({"const": "\ud800"}, "/const"),
    ({"const": ["a", {"\udfff": 1}]}, "/const"),
    ({"properties": []}, "/properties"),
    ({"properties": {"a": 1}}, "/properties"),
    ({"required": "a"}, "/required"),
    ({"required": True}, "/required"),
    ({"required": [1]}, "/required"),
    ({"dependentRequired": {"a": "b"}}, "/dependentRequired"),
    ({"dependentSchemas": {"a": ["b"]}}, "/dependentSchemas"),
    ({"dependencies": {"a": "b"}}, "/dependencies"),
    ({"additionalProperties": "no"}, "/additionalProperties"),
    ({"additionalProperties": None}, "/additionalProperties"),
    ({"minLength": "a"}, "/minLength"),
    ({"minLength": -1}, "/minLength"),
    ({"minLength": 1.5}, "/minLength"),
    ({"maxItems": True}, "/maxItems"),
    ({"minContains": -1}, "/minContains"),
    ({"minimum": "0"}, "/minimum"),
    ({"minimum": True}, "/minimum"),
    ({"minimum": float("inf")}, "/minimum"),
    ({"exclusiveMaximum": "5"}, "/exclusiveMaximum"),
    ({"multipleOf": 0}, "/multipleOf"),
    ({"uniqueItems": 1}, "/uniqueItems"),
    ({"pattern": 5}, "/pattern"),
    ({"format": None}, "/format"),
    ({"items": 5}, "/items"),
    ({"items": []}, "/items"),
    ({"prefixItems": {}}, "/prefixItems"),
    ({"anyOf": []}, "/anyOf"),
    ({"anyOf": {}}, "/anyOf"),
    ({"anyOf": [{}, 1]}, "/anyOf"),
    ({"anyOf": [{"type": "null"}, {"not": {"type": "x"}}]}, "/anyOf/1/not/type"),
    ({"then": 5}, "/then"),
    ({"$ref": 5}, "/$ref"),
    ({"$id": 5}, "/$id"),
    ({"$recursiveRef": "#/a"}, "/$recursiveRef"),
]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(("schema", "pointer"), MALFORMED)
def test_malformed(schema: dict[str, Any], pointer: str, lenient: bool) -> None:
    within = {"properties": {"a/b": {"items": schema}, "c~": {}}}
    behind = {"$defs": {"a": schema}, "$ref": "#/$defs/a"}
    for root, start in ((schema, ""), (within, "/properties/a~1b/items"), (behind, "/$defs/a")):
        with pytest.raises(UnsupportedSchemaError, match=r"must|not JSON") as caught:
            Document(root, Formulas(), lenient=lenient)
        assert caught.value.pointer == start + pointer
        assert caught.value.keyword == pointer.rpartition("/")[2]


@pytest.mark.parametrize("schema", [None, 5, "{}", []])
def test_not_a_schema(schema: Any) -> None:
    with pytest.raises(ConstraintError, match="an object or a boolean"):
        Document(schema, Formulas())


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"$defs": {"a": {"type": "strin"}}, "minimum": 3}, 3, 2),  # nobody refers to it
        ({"surprise": {"type": "strin"}, "divisibleBy": 2, "extends": {}, "maximum": 3}, 3, 4),
        ({"title": 5, "description": None, "default": [], "minItems": 1.0}, [1], []),
        ({"format": "surprise", "maxLength": 2.0}, "ab", "abc"),
        ({"items": [{"const": 1}], "additionalItems": False}, [1], [1, 1]),  # without $schema, all drafts count
        ({"minimum": 5, "exclusiveMinimum": True}, 5.5, 5),
        ({"minimum": 5, "exclusiveMinimum": False}, 5, 4),
        ({"maximum": 5, "exclusiveMaximum": True, "$schema": DRAFT4}, 4, 5),
        ({"id": "http://x/y", "$schema": DRAFT4, "not": {"$ref": "http://x/y#/d"}, "d": {"const": 1}}, 2, 1),
        ({"$schema": META["draft7"], "unevaluatedProperties": False, "dependentRequired": {"a": ["b"]},
          "minProperties": 1}, {"a": 1}, {}),
        ({"$schema": META["draft7"], "prefixItems": [False], "items": {"const": 1}}, [1], [2]),
        ({"$schema": META["draft7"], "properties": {"a": {"$ref": "#/d", "type": 5}}, "d": {"const": 1}},
         {"a": 1}, {"a": 2}),
        ({"$schema": DRAFT2019, "contains": {"const": 1}, "unevaluatedItems": {"minimum": 1}}, [1, 2], [1, 0]),
        ({"$schema": DRAFT2019, "contains": {"const": 0}, "items": [True], "unevaluatedItems": {"minimum": 1}},
         [0, 2], [0, 0]),
        ({"contains": {"const": 0}, "unevaluatedItems": {"minimum": 1}}, [0, 2, 0], [0, 0.5]),
        ({"enum": []}, ..., 5),
        ({"if": {"const": 1}, "minimum": 0}, 1, -1),
        ({"dependencies": {"a": ["b"]}, "dependentRequired": {"a": ["c"]}}, {"a": 1, "b": 1, "c": 1},
         {"a": 1, "c": 1}),
    ],
)  # fmt: skip
def test_old_and_unknown_keywords(schema: Any, good: Any, bad: Any) -> None:
    before = copy.deepcopy(schema)
    assert good is ... or is_valid(schema, good)
    assert not is_valid(schema, bad)
    assert schema == before


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"$schema": META["draft2020-12"], "items": [{}]}, "/items"),
        ({"$schema": META["draft7"], "minimum": 1, "exclusiveMinimum": True}, "/exclusiveMinimum"),
    ],
)
def test_forms_of_other_drafts(schema: Any, pointer: str) -> None:
    with pytest.raises(UnsupportedSchemaError) as caught:
        Document(schema, Formulas())
    assert caught.value.pointer == pointer


def test_depth() -> None:
    limits = Limits(max_depth=20)
    for key in ("items", "allOf", "not"):
        Document(_deep(key, 20), Formulas(), limits).schema(_deep(key, 20), "", "")
        for levels in (21, 5000):
            with pytest.raises(ConstraintTooComplex, match="20 levels deep"):
                Document(_deep(key, levels), Formulas(), limits)
    for value in (_deep("a", 22), [[[_deep("a", 5000)]]]):
        with pytest.raises(ConstraintTooComplex, match="20 levels deep"):
            Document({"const": value}, Formulas(), limits)
    Document({"$defs": {"a": _deep("items", 5000)}}, Formulas(), limits)


@pytest.mark.parametrize("max_depth", [64, 100_000])
def test_long_chains_of_references(max_depth: int) -> None:
    links = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(2000)}
    schema = {"$ref": "#/$defs/0", "$defs": {**links, "2000": {}}}
    document = Document(schema, Formulas(), Limits(max_depth=max_depth))
    with pytest.raises(ConstraintTooComplex, match="apply to one value"):
        document.schema(schema, "", "")


def test_json_depth() -> None:
    values = [5, "한", None, [], {}, [1, [2]], {"a": {"b": []}}, ["\ud800"], {"a": float("nan")}, (1,)]
    assert [json_depth(value) for value in values] == [0, 0, 0, 1, 1, 2, 3, -1, -1, -1]


def test_table() -> None:
    table = markdown()
    for keyword in KEYWORDS.values():
        assert (f"| `{keyword.name}` | {keyword.applies} |" in table) == bool(keyword.applies)
    assert "`date-time`" in table


# -- references ------------------------------------------------------------------------------------------------------

ONE = {"const": 1}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/x/y", "x": {"y": ONE}},
        {"$ref": "#/x/a%20b~1c%25~0/1", "x": {"a b/c%~": [False, ONE]}},
        {"$ref": "#/%24defs/a", "$defs": {"a": ONE}},
        {"$ref": "#/$defs//", "$defs": {"": {"": ONE}}},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", **ONE}}},
        {"$ref": "#here", "$defs": {"a": {"$id": "#here", **ONE}}},
        {"$ref": "#here", "$defs": {"a": {"$dynamicAnchor": "here", **ONE}}},
        {"$id": "http://x/a/b", "$ref": "c", "$defs": {"a": {"$id": "/a/c", **ONE}}},
        {
            "$id": "http://x/a/b",
            "$ref": "c#d",
            "$defs": {"a": {"$id": "/a/c", "not": {"$anchor": "d", **ONE}}},
        },
        {"$id": "my-app://x/a/b", "$ref": "../c", "$defs": {"a": {"$id": "/c", **ONE}}},
        {"$ref": "urn:one", "$defs": {"a": {"$id": "urn:one", **ONE}}},
        {"$ref": "urn:one#/d", "$defs": {"a": {"$id": "urn:one", "d": ONE}}},
        {"$id": "urn:root", "$ref": "#/d", "d": ONE},
        {"$ref": "#/$defs/a/items", "$defs": {"a": {"$id": "b", "items": {"$ref": "#/d"}, "d": ONE}}},
        {"$ref": "b", "$defs": {"a": {"$id": "b", "$ref": "#/d", "d": ONE}}, "d": False},
        {"$ref": "b", "enum": [1, {"$id": "b", "const": 2}], "$defs": {"a": {"$id": "b", **ONE}}},
        {"$ref": "#/anyOf/0", "anyOf": [ONE, {"type": "integer"}]},
        {"$recursiveRef": "#", "const": 1, "$schema": META["draft2020-12"]},  # unknown there
    ],
)
def test_references(schema: Any) -> None:
    assert is_valid(schema, 1)
    assert not is_valid(schema, 2)


@pytest.mark.parametrize(
    ("schema", "pointer", "reason"),
    [
        ({"$ref": "#/$defs/none"}, "/$ref", "does not exist"),
        ({"$ref": "#/a/01", "a": [{}, {}]}, "/$ref", "does not exist"),
        ({"$ref": "#/a/-1", "a": [{}, {}]}, "/$ref", "does not exist"),
        ({"$ref": f"#/a/{'1' * 5000}", "a": [{}, {}]}, "/$ref", "does not exist"),
        ({"$ref": "#/a/b/c", "a": {"b": "text"}}, "/$ref", "does not exist"),
        ({"$ref": "#/a", "a": ["text"]}, "/$ref", "not a schema"),
        ({"$ref": "other.json"}, "/$ref", "not in the document"),
        ({"$ref": "b", "enum": [{"$id": "b"}], "x": {"$id": "b"}}, "/$ref", "not in the document"),
        ({"$ref": "#anchor", "const": {"$anchor": "anchor"}}, "/$ref", "does not exist"),
        ({"items": {"$ref": META["draft7"]}}, "/items/$ref", "not in the document"),
        ({"$dynamicRef": "#a"}, "/$dynamicRef", "does not exist"),
        ({"$ref": "#"}, "/$ref", "comes back to itself"),
        ({"$recursiveRef": "#"}, "/$recursiveRef", "comes back to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{}, {"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#"}}}},
         "/$defs/b/not/$ref", "comes back to itself"),
        ({"$defs": {"a": {"$dynamicAnchor": "a", "allOf": [{"$dynamicRef": "#a"}]}}, "$ref": "#a"},
         "/$defs/a/allOf/0/$dynamicRef", "comes back to itself"),
    ],
)  # fmt: skip
def test_references_that_lead_nowhere(schema: Any, pointer: str, reason: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=reason) as caught:
        is_valid(schema, 1)
    assert (caught.value.keyword, caught.value.pointer) == (pointer.rpartition("/")[2], pointer)
    if "itself" in reason:
        with pytest.raises(UnsupportedSchemaError):
            is_valid(schema, 1, lenient=True)


def test_recursive_reference_of_2019_09() -> None:
    tree = {
        "$id": "tree",
        "$recursiveAnchor": True,
        "type": "object",
        "properties": {"data": True, "children": {"items": {"$recursiveRef": "#"}}},
    }
    strict = {
        "$schema": DRAFT2019,
        "$id": "http://x/strict",
        "$recursiveAnchor": True,
        "$ref": "tree",
        "unevaluatedProperties": False,
        "$defs": {"tree": tree},
    }
    assert is_valid(strict, {"children": [{"data": 1}]})
    assert not is_valid(strict, {"children": [{"daat": 1}]})
    assert is_valid({**strict, "$recursiveAnchor": False}, {"children": [{"daat": 1}]})


def test_scopes_cost_nothing_without_ambiguous_anchors() -> None:
    schema = {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}, "$id": "http://x/y"}
    document = Document(schema, Formulas())
    formula = document.schema(schema, "", "")
    assert isinstance(formula, Own)
    assert formula.schema.sub("items") is formula  # one Schema, whatever the way to it


# -- lenient ---------------------------------------------------------------------------------------------------------


def _no_stars(keyword: str, value: Any) -> str | None:
    return "has a star" if "*" in value else None


STAR, REMOTE = {"pattern": "^a*$"}, {"$ref": "http://else/where"}


@pytest.mark.parametrize(
    ("schema", "dropped", "good", "bad"),
    [
        ({**STAR, "maxLength": 1}, ["/pattern"], ["b", 1], ["bb"]),
        ({"format": "*", "minLength": 1}, ["/format"], ["b"], [""]),
        ({"items": REMOTE, "minItems": 1}, ["/items/$ref"], [[1]], [[]]),
        ({"not": {"items": STAR}, "minItems": 1}, ["/items/pattern", "/not"], [["a"], [1]], [[]]),
        ({"oneOf": [STAR, {"type": "string"}]}, ["/oneOf/0/pattern", "/oneOf"], ["a", "b", 1], []),
        ({"if": REMOTE, "then": {"const": 1}, "else": False}, ["/if/$ref", "/if"], [1, 2], []),
        ({"contains": STAR, "maxContains": 1, "minItems": 1}, ["/contains/pattern", "/maxContains"],
         [["a", "a"]], [[]]),
        ({"patternProperties": {"^a*$": False, "b": {"const": 1}}, "additionalProperties": False},
         ["/patternProperties/^a*$", "/additionalProperties"], [{"a": 1}, {"c": 1, "b": 1}], [{"b": 2}]),
        ({"allOf": [{"anyOf": [STAR, REMOTE]}], "unevaluatedProperties": False, "minProperties": 1},
         ["/pattern", "/$ref", "/unevaluatedProperties"], [{"a": 1}], [{}]),
        ({"properties": {"a": STAR}, "unevaluatedProperties": False}, ["/pattern"], [{"a": "b"}], [{"b": 1}]),
        ({"anyOf": [{"if": {"properties": {"a": STAR}}, "then": {"properties": {"b": True}}}],
          "unevaluatedProperties": False}, ["/pattern", "/if", "/unevaluatedProperties"], [{"b": 1}], []),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}, **STAR}}, "not": {"$ref": "#/$defs/a"}},
         ["/$defs/a/pattern", "/not"], [1, [1]], []),
    ],
)  # fmt: skip
def test_lenient(schema: Any, dropped: list[str], good: list[Any], bad: list[Any]) -> None:
    with pytest.raises(UnsupportedSchemaError):
        Document(schema, Formulas(), refuse=_no_stars)
    document = Document(schema, Formulas(), lenient=True, refuse=_no_stars)
    assert len(document.dropped) == len(dropped)
    for keyword, pointer, reason in document.dropped:
        assert any(pointer.endswith(each) and f"/{keyword}" in each and reason for each in dropped), pointer
    formula = document.schema(schema, "", "")
    assert [holds(formula, value) for value in good + bad] == [True] * len(good) + [False] * len(bad)


def test_lenient_reference_among_hidden_keywords() -> None:
    schema = {"$schema": META["draft7"], "items": {**REMOTE, "title": "elsewhere", "type": 5}}
    assert is_valid(schema, [1], lenient=True)


def test_unsupported() -> None:
    with pytest.raises(UnsupportedSchemaError, match="too hard"):
        Document({}, Formulas()).unsupported("pattern", "/a/pattern", "is too hard")
    document = Document({}, Formulas(), lenient=True)
    for _ in range(2):
        document.unsupported("pattern", "/a/pattern", "is too hard")
    assert document.dropped == [("pattern", "/a/pattern", "is too hard")]


# -- unevaluated properties and items --------------------------------------------------------------------------------

NAMES = ["a", "b", "ab", "c"]
leaf_schemas = st.sampled_from([True, {"const": 1}, {"type": "integer"}, False, {"type": "string"}])


def _combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    part = st.one_of(leaf_schemas, inner)
    several = st.lists(inner, min_size=1, max_size=2)
    ways = {
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "dependentSchemas": st.dictionaries(st.sampled_from(NAMES), inner, max_size=1),
        "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y"]),
        "properties": st.dictionaries(st.sampled_from(NAMES), part, min_size=1, max_size=2),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), part, max_size=1),
        "additionalProperties": part,
        "unevaluatedProperties": part,
        "required": st.lists(st.sampled_from(NAMES), max_size=1),
        "prefixItems": st.lists(part, min_size=1, max_size=2),
        "items": part,
        "contains": part,
        "maxContains": st.just(1),
        "unevaluatedItems": part,
    }
    chosen = st.sampled_from(sorted(ways))
    return st.lists(chosen, min_size=1, max_size=3, unique=True).flatmap(
        lambda keys: st.fixed_dictionaries({key: ways[key] for key in keys})
    )


def _without_references(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_references(each) for each in schema]
    if isinstance(schema, dict):
        return {key: _without_references(each) for key, each in schema.items() if key != "$ref"}
    return schema


schemas = st.recursive(leaf_schemas, _combined, max_leaves=8)
starred = st.recursive(st.one_of(leaf_schemas, st.just({"pattern": "^x*$"})), _combined, max_leaves=8)
values = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1, 2, "x", "y"]), max_size=3),
    st.lists(st.sampled_from([1, 2, "x", "y"]), max_size=3),
)


@given(schemas, schemas, schemas, st.lists(values, min_size=4, max_size=8))
@settings(max_examples=300, deadline=None)
def test_unevaluated_against_jsonschema(root: Any, x: Any, y: Any, instances: list[Any]) -> None:
    definitions = {"x": _without_references(x), "y": _without_references(y)}
    closed = {"unevaluatedProperties": False, "unevaluatedItems": False}
    schema = {"$schema": META["draft2020-12"], "$defs": definitions, "allOf": [root], **closed}
    formula = Document(schema, Formulas()).schema(schema, "", "")
    validator = jsonschema.Draft202012Validator(schema)
    for instance in instances:
        assert holds(formula, instance) == validator.is_valid(instance), instance


@given(starred, starred, st.lists(values, min_size=4, max_size=8))
@settings(max_examples=300, deadline=None)
def test_lenient_allows_more_never_less(root: Any, x: Any, instances: list[Any]) -> None:
    patterns = {"^a": {"const": 1}, "b*": {"type": "integer"}}
    schema = {
        "$schema": META["draft2020-12"],
        "$defs": {
            "x": _without_references(x),
            "y": {"patternProperties": patterns, "additionalProperties": False},
        },
        "allOf": [root],
        "unevaluatedProperties": False,
        "unevaluatedItems": False,
    }
    document = Document(schema, Formulas(), lenient=True, refuse=_no_stars)
    formula = document.schema(schema, "", "")
    validator = jsonschema.Draft202012Validator(schema)
    for instance in instances:
        assert holds(formula, instance) or not validator.is_valid(instance), (instance, document.dropped)
        assert document.dropped or holds(formula, instance) == validator.is_valid(instance), instance


def test_evaluators() -> None:
    schema = {
        "properties": {"p": {}},
        "unevaluatedProperties": False,
        "allOf": [{"$ref": "#/$defs/a"}],
        "anyOf": [{"$ref": "#/$defs/a"}, {"patternProperties": {"^x": {}}, "required": ["x1"]}, True],
        "$defs": {"a": {"properties": {"a": {}}, "not": {"properties": {"n": {}}}}},
        "if": {"properties": {"i": {"const": 1}}},
        "else": {"additionalProperties": True},
    }
    document = Document(schema, Formulas())
    root = document.find(schema, "", "")
    assert isinstance(root, Schema)
    found = {each.schema.pointer: each for each in root.evaluators("properties")}
    assert set(found) == {"", "/$defs/a", "/if", "/anyOf/1", "/else"}
    assert {each: holds(one.condition, {"i": 1}) for each, one in found.items()} == {
        "": True, "/$defs/a": True, "/if": True, "/anyOf/1": False, "/else": False,
    }  # fmt: skip
    assert found[""].evaluates("p") and not found[""].evaluates("q") and not found[""].everything
    assert found["/anyOf/1"].evaluates("x2", ["^x"]) and not found["/anyOf/1"].evaluates("y", ["^y"])
    assert found["/else"].evaluates(None) and not found[""].evaluates(None)
    assert root.evaluators("items") == []


def test_the_table_in_the_documentation_is_the_code_s() -> None:
    text = (Path(__file__).parents[4] / "sgl_like/runtime/constrain/json_schema.md").read_text("utf-8")
    assert text.endswith(f"\n\n{markdown()}\n")
