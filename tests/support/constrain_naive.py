"""Slow and simple models of the constraint engine: a Thompson automaton for regexes, and lists of all outputs of
small JSON schemas. Neither shares anything with the code under test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hypothesis import strategies as st


class NaiveRegex:
    """A Thompson automaton over bytes. Built from parts, so every state can reach the end.

    `source` is the same in Python's syntax, which the caller gives along.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.jumps: list[list[int]] = [[], []]  # by nothing; state 0 is the start, 1 the end
        self.steps: list[dict[int, list[int]]] = [{}, {}]

    def new(self) -> int:
        self.jumps.append([])
        self.steps.append({})
        return len(self.jumps) - 1

    def text(self, start: int, data: bytes, end: int) -> None:
        for byte in data[:-1]:
            middle = self.new()
            self.steps[start].setdefault(byte, []).append(middle)
            start = middle
        self.steps[start].setdefault(data[-1], []).append(end)

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        todo, seen = list(states), set()
        while todo:
            state = todo.pop()
            if state not in seen:
                seen.add(state)
                todo.extend(self.jumps[state])
        return frozenset(seen)

    def after(self, data: bytes, states: frozenset[int] | None = None) -> frozenset[int]:
        current = self.closure([0]) if states is None else states
        for byte in data:
            current = self.closure(s for state in current for s in self.steps[state].get(byte, []))
        return current


Build = tuple[str, Callable[[NaiveRegex, int, int], None]]  # source, and what adds it between two states

CHARACTERS = "ab01 한글é😀\n"


def _char(chars: str, negated: bool) -> Build:
    source = "[" + ("^" if negated else "") + "".join(f"\\U{ord(c):08x}" for c in chars) + "]"
    members = [c for c in CHARACTERS + "x가" if (c in chars) != negated]

    def add(nfa: NaiveRegex, start: int, end: int) -> None:
        for c in members:
            nfa.text(start, c.encode(), end)

    return source, add


def _sequence(parts: list[Build]) -> Build:
    def add(nfa: NaiveRegex, start: int, end: int) -> None:
        for _, part in parts:
            middle = nfa.new()
            part(nfa, start, middle)
            start = middle
        nfa.jumps[start].append(end)

    return "".join(source for source, _ in parts), add


def _branch(parts: list[Build]) -> Build:
    def add(nfa: NaiveRegex, start: int, end: int) -> None:
        for _, part in parts:
            part(nfa, *_shield(nfa, start, end))

    return "(?:" + "|".join(source for source, _ in parts) + ")", add


def _shield(nfa: NaiveRegex, start: int, end: int) -> tuple[int, int]:
    a, b = nfa.new(), nfa.new()
    nfa.jumps[start].append(a)
    nfa.jumps[b].append(end)
    return a, b


def _repeat(part: Build, low: int, more: int | None, lazy: bool) -> Build:
    source, one = part
    count = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, more))
    if count is None:
        count = f"{{{low},}}" if more is None else f"{{{low},{low + more}}}"

    def add(nfa: NaiveRegex, start: int, end: int) -> None:
        for i in range(low + (more or 0)):
            middle = nfa.new()
            one(nfa, *_shield(nfa, start, middle))
            if i >= low:
                nfa.jumps[start].append(end)
            start = middle
        if more is None:
            loop = nfa.new()
            nfa.jumps[start].append(loop)
            one(nfa, *_shield(nfa, loop, loop))
            start = loop
        nfa.jumps[start].append(end)

    return f"(?:{source}){count}{'?' if lazy else ''}", add


def naive_regexes(negated: bool) -> st.SearchStrategy[NaiveRegex]:
    """Random regexes over a few characters, with their Thompson automata.

    Args:
        negated: with negated classes. In the model they stand for the characters of `CHARACTERS`, "x" and "가" only:
            enough for texts made of those.
    """
    negations = st.booleans() if negated else st.just(False)
    leaf = st.builds(_char, st.text(CHARACTERS, min_size=1, max_size=3), negations)

    def extend(inner: st.SearchStrategy[Build]) -> st.SearchStrategy[Build]:
        return st.one_of(
            st.builds(_sequence, st.lists(inner, min_size=0, max_size=4)),
            st.builds(_branch, st.lists(inner, min_size=1, max_size=3)),
            st.builds(
                _repeat, inner, st.integers(0, 3), st.one_of(st.none(), st.integers(0, 3)), st.booleans()
            ),
        )

    def finish(build: Build) -> NaiveRegex:
        nfa = NaiveRegex(build[0])
        build[1](nfa, 0, 1)
        return nfa

    return st.builds(finish, st.recursive(leaf, extend, max_leaves=8))


def all_texts(schema: dict[str, Any], any_order: bool, most: int = 2000) -> set[str] | None:
    """Every compact JSON text of a small finite schema (const, enum, small integers, closed objects, arrays, anyOf).

    Whole numbers may also be written with zeros as decimals: four at most, one if an enum lists them. None if there
    are more texts than `most`, at any level.
    """
    if "anyOf" in schema:
        branches = [all_texts(branch, any_order, most) for branch in schema["anyOf"]]
        return None if None in branches else set().union(*filter(None, branches))
    if "enum" in schema:
        texts = {json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in schema["enum"]}
        return texts | {f"{value}.0" for value in schema["enum"] if type(value) is int}
    if schema["type"] == "integer":
        numbers = range(schema["minimum"], schema["maximum"] + 1)
        return {f"{i}{zeros}" for i in numbers for zeros in ("", ".0", ".00", ".000", ".0000")}
    if schema["type"] == "boolean":
        return {"true", "false"}
    if schema["type"] == "array":
        items = all_texts(schema["items"], any_order, most)
        if items is None:
            return None
        sizes = range(schema.get("minItems", 0), schema["maxItems"] + 1)
        rows = itertools.chain(*(itertools.product(items, repeat=size) for size in sizes))
        return _limited((f"[{','.join(row)}]" for row in rows), most)
    values = {name: all_texts(value, any_order, most) for name, value in schema["properties"].items()}
    return None if None in values.values() else _limited(_objects(schema, values, any_order), most)


def _objects(schema: dict[str, Any], values: dict[str, Any], any_order: bool) -> Iterator[str]:
    for size in range(len(values) + 1):
        for chosen in (
            itertools.permutations(values, size) if any_order else itertools.combinations(values, size)
        ):
            if set(schema.get("required", [])) <= set(chosen):
                keys = [json.dumps(name, ensure_ascii=False) for name in chosen]
                for row in itertools.product(*(values[name] for name in chosen)):
                    yield "{" + ",".join(f"{k}:{v}" for k, v in zip(keys, row, strict=True)) + "}"


def _limited(texts: Iterable[str], most: int) -> set[str] | None:
    found = set(itertools.islice(texts, most + 1))
    return found if len(found) <= most else None


def finite_schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Random schemas that `all_texts` can list."""
    scalars = st.sampled_from(
        [
            {"enum": ["a", "ab", "서울", 'q"\n', None]},
            {"enum": [1, 10, 1.5, True]},
            {"enum": [{"a": ["b"]}, [], "😀"]},
            {"type": "boolean"},
            {"type": "integer", "minimum": -10, "maximum": 1},
            {"type": "integer", "minimum": 98, "maximum": 101},
        ]
    )
    names = st.lists(st.sampled_from(["a", "ab", "name", "한", 'x"y']), min_size=1, max_size=3, unique=True)

    def extend(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        def make_object(names: list[str], values: list[dict[str, Any]], required: int) -> dict[str, Any]:
            needed = [name for i, name in enumerate(names) if required >> i & 1]
            return {
                "type": "object",
                "properties": dict(zip(names, values, strict=False)),
                "required": needed,
                "additionalProperties": False,
            }

        objects = st.builds(make_object, names, st.lists(inner, min_size=3, max_size=3), st.integers(0, 7))
        arrays = st.builds(
            lambda items, low, more: {
                "type": "array",
                "items": items,
                "minItems": low,
                "maxItems": low + more,
            },
            inner,
            st.integers(0, 1),
            st.integers(0, 1),
        )
        unions = st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=2))
        return st.one_of(objects, arrays, unions)

    return st.recursive(scalars, extend, max_leaves=4)
