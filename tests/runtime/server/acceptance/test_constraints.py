"""Acceptance test 5 of serving.md: constraints that are wrong. (Those that take for ever: see process/.)

It runs against a server as it is deployed, with its engine in a process of its own.
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


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as started:
        yield started


def run(server: Served, constraints: list[dict[str, Any]], good: int) -> tuple[list[int], list[Stream]]:
    """Send all of them while good streams run; their statuses, and the streams when they have ended."""
    pid = server.engine_pid
    running = list(streams(server.url, good, GOOD))
    all_stream(running)

    def send(constraint: dict[str, Any]) -> int:
        status, answer = server.call(
            "POST", "/v1/completions", {"prompt": "x", "max_tokens": 4, **constraint}
        )
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
    ("schemas", "regexes", "good"),
    [(100, 25, 8), pytest.param(500, 200, 50, marks=(pytest.mark.slow, pytest.mark.load))],
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
