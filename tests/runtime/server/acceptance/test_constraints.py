"""Acceptance tests 5 and 6 of serving.md, and 14 of its load tests: constraints that are wrong, or made to take for ever.

They run against a server as it is deployed, with its engine in a process of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.processes import Served, Stream, all_stream, served, streams

GOOD = {"prompt": "play some", "max_tokens": 300, "temperature": 0, "ignore_eos": True}
KEYWORDS: dict[str, list[Any]] = {
    "type": ["object", "array", "string", "integer", "nothing", 3, ["string", "null"], []],
    "properties": [{}, {"a": {}}, {"a": {"type": "nothing"}}, [], 1, {"a": 1}],
    "required": [["a"], "a", [1], ["a", "a"]],
    "items": [{}, [], {"type": 1}, True, False, 1],
    "pattern": ["a+", "(", "[", "(?<=a)b", "a{2,1}", "\\", "(?P<x>a)(?P=x)", 1],
    "enum": [[], [1, "a", None], "a", [[]], [{}]],
    "const": [None, 1, {}, "x"],
    "minLength": [0, -1, "1", 10**9, 1.5], "maxLength": [0, -1, 10**9], "minimum": [0, "0", 1e308],
    "maximum": [-1, 1e308], "multipleOf": [0, -1, 1e-300, 3], "minItems": [10**9, -1, "x"], "maxItems": [0, -1],
    "$ref": ["#", "#/nowhere", "http://example.com/schema", 1, "file:///etc/passwd", "#/$defs/a"],
    "allOf": [[], [{}], {}, [1]], "anyOf": [[], [{"type": "string"}, {"type": "nothing"}]], "oneOf": [[{}, {}], 1],
    "not": [{}, True, 1], "if": [{}, 1], "additionalProperties": [False, 1, {"type": 1}],
    "patternProperties": [{"(": {}}, {"a": 1}, []], "format": ["date", "nothing", 1], "uniqueItems": [True, 1],
    "dependentRequired": [{"a": ["b"]}, []], "$defs": [{"a": {"$ref": "#/$defs/a"}}, 1], "propertyNames": [{}, 1],
}  # fmt: skip
BAD_REGEXES = [
    "(", ")", "[", "[z-a]", "a{2,1}", "*", "+a", "a**", "(?P<a", "(?<!a", "\\", "(?z)", "(?P=x)", "[[:nothing:]]",
    "\\p{Nothing}", "(?:", "a{99999999999}", "\\1", "(a)\\2", "(?#", "\ud7ff{", "\x00(", "(?<name>a", "[]", "[^]",
]  # fmt: skip


def random_schema(rng: random.Random, depth: int = 3) -> Any:
    schema: dict[str, Any] = {}
    for keyword in rng.sample(sorted(KEYWORDS), rng.randint(1, 4)):
        value = rng.choice(KEYWORDS[keyword])
        if depth and keyword in ("items", "not", "additionalProperties"):
            value = random_schema(rng, depth - 1)
        if depth and keyword == "properties":
            value = {name: random_schema(rng, depth - 1) for name in "ab"}
        schema[keyword] = value
    return schema


def nested(times: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(times):
        schema = {"anyOf": [schema, {"type": "array", "items": schema}]}
    return schema


BOMBS: list[dict[str, Any]] = [
    {"regex": "(" * 4000},
    {"regex": "(" * 1000 + "a" + ")" * 1000},
    {"regex": "(a{1,1000}){1,1000}"},
    {"regex": "((((a{0,99}){0,99}){0,99}){0,99}){0,99}"},
    {"regex": "(a|a|a)*" * 300},
    {"regex": ".*" * 1000},
    {"regex": "(.*a){60}"},
    {"regex": "(?=" * 500 + "a" + ")" * 500},
    {"regex": "[a-z]*a[a-z]{60}"},
    {"regex": "x" * 5000},
    {"ebnf": "root ::= " + "(" * 4000},
    {"ebnf": "root ::= root"},
    {"ebnf": 'root ::= root root | "a" | ""'},
    {"ebnf": "root ::= " + "(" * 300 + '"a"' + ")" * 300},
    {"ebnf": "root ::= a" + "".join(f"\na{i} ::= a{i + 1} a{i + 1}" for i in range(60)) + '\na60 ::= "x"'},
    {"ebnf": 'root ::= "a"{1,100000000}'},
    {"json_schema": json.dumps({"enum": [f"value number {i}" for i in range(3000)]})},
    {"json_schema": json.dumps({"$ref": "#"})},
    {"json_schema": json.dumps({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"})},
    {"json_schema": json.dumps({"type": "string", "pattern": "(a{1,1000}){1,1000}", "maxLength": 10**9})},
    {"json_schema": json.dumps({"type": "array", "minItems": 10**9, "uniqueItems": True})},
    {"json_schema": json.dumps(nested(12))},
    {"json_schema": json.dumps({"oneOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(300)]})},
    {"json_schema": json.dumps({"not": {"anyOf": [{"pattern": f"^.*{i}.*$"} for i in range(100)]}})},
    {"json_schema": "[" * 30_000},
    {"json_schema": json.dumps({"properties": {f"p{i}": {"type": "string"} for i in range(5000)}})},
    {"structured_outputs": {"choice": ["x" * 1025]}},
    {"structured_outputs": {"choice": [str(i) for i in range(257)]}},
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("--compile-seconds", "2") as started:
        yield started


def run(server: Served, constraints: list[dict[str, Any]], good: int) -> tuple[list[int], list[Stream]]:
    """Send all of them while good streams run; their statuses, and the streams when they have ended."""
    pid = server.engine_pid
    running = list(streams(server.url, good, GOOD))
    all_stream(running)

    def send(constraint: dict[str, Any]) -> int:
        status, answer = server.call("POST", "/v1/completions", {"prompt": "x", "max_tokens": 4, **constraint})
        assert status in (200, 400), (str(constraint)[:200], status, answer)
        assert status == 200 or answer["error"]["message"], answer
        return status

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(send, constraints))
    for stream in running:
        stream.join()
    assert server.engine_pid == pid, "the engine was lost"
    return found, running


@pytest.mark.parametrize(
    ("schemas", "regexes", "good"), [(100, 25, 8), pytest.param(500, 200, 50, marks=pytest.mark.slow)]
)
def test_5_wrong_constraints_disturb_nobody(server: Served, schemas: int, regexes: int, good: int) -> None:
    rng = random.Random(schemas)
    wrong = [{"json_schema": json.dumps(random_schema(rng))} for _ in range(schemas)]
    bad = [{"regex": BAD_REGEXES[i % len(BAD_REGEXES)]} for i in range(regexes)]
    found, running = run(server, wrong + bad, good)
    assert found.count(400) > len(found) / 3
    refused = found[schemas:].count(400)
    assert refused > 0.7 * regexes, "some of them mean something to some"
    assert all(stream.done and stream.finish == "length" for stream in running)


def test_6_bombs_end_and_disturb_nobody(server: Served) -> None:
    found, running = run(server, BOMBS, good=4)
    assert found.count(400) >= 8
    assert all(stream.done and stream.finish == "length" for stream in running)
    status, answer = server.get("/debug/invariants")
    assert (status, answer["ok"], answer["problems"]) == (200, True, [])


@pytest.mark.slow
def test_14_a_thousand_schemas_leave_a_bounded_cache(server: Served) -> None:
    def resident() -> int:
        with open(f"/proc/{server.engine_pid}/statm") as file:
            return int(file.read().split()[1]) * 4096

    def schemas(start: int, count: int) -> list[dict[str, Any]]:
        return [
            {"json_schema": json.dumps({"type": "object", "properties": {f"name{i}": {"enum": [i, str(i)]}}, "required": [f"name{i}"]})}
            for i in range(start, start + count)
        ]

    assert set(run(server, schemas(0, 500), 1)[0]) == {200}
    before = resident()
    assert set(run(server, schemas(500, 1000), 1)[0]) == {200}
    assert resident() - before < 256 * 2**20
