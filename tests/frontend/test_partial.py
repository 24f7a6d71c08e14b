"""Values while they are written (c#6), and streams of several outputs (c#24, b#14)."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from typing import Any, Literal, NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypedDict

import sgl_like as sgl
from sgl_like.errors import EngineError, OutputError, ProgramError
from sgl_like.frontend.outputs.partial import NOTHING, partial_json, partial_value
from sgl_like.frontend.variables import UnknownVariableError
from tests.support.frontend_fake_backend import FakeBackend


class Colour(enum.Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    text: str
    tags: list[str] = dataclasses.field(default_factory=list)


class Extra(TypedDict):
    a: NotRequired[int]


class Names(RootModel[list[Item]]):
    pass


class Order(BaseModel):
    customer: str = Field(min_length=3)
    items: list[Item]
    colour: Colour
    note: Note | None
    kind: Literal["a", "b"] = "a"
    by_alias: int = Field(alias="byAlias", default=0)
    extra: Extra | None = None
    names: Names | None = None


WHOLE = {
    "customer": "Ann", "items": [{"name": "tea", "price": 2.5}, {"name": "cup"}], "colour": "red",
    "note": {"text": "soon", "tags": ["x"]}, "kind": "b", "byAlias": 12, "extra": {"a": 1},
    "names": [{"name": "n", "price": 3.0}],
}  # fmt: skip
TEXT = json.dumps(WHOLE)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def is_beginning(part: Any, whole: Any) -> bool:
    """Whether `part` is `whole` with something left out at its end."""
    if isinstance(whole, dict) and isinstance(part, dict):
        keys = list(whole)[: len(part)]
        return list(part) == keys and all(is_beginning(part[key], whole[key]) for key in keys)
    if isinstance(whole, list) and isinstance(part, list):
        return len(part) <= len(whole) and all(map(is_beginning, part, whole))
    if isinstance(whole, str) and isinstance(part, str):
        return whole.startswith(part)
    return bool(part == whole) and type(part) is type(whole)


@given(json_values, st.booleans())
def test_every_beginning_of_json_is_a_beginning_of_the_value(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    for end in range(len(text)):
        part = partial_json(text[:end])
        assert part is NOTHING or is_beginning(part, value)


def test_models_grow() -> None:
    seen = [partial_value(Order, part) for part in map(partial_json, cuts(TEXT)) if part is not NOTHING]
    assert all(type(each) is Order for each in seen)
    assert seen[0].customer is None and seen[0].items is None and seen[0].kind == "a"
    assert seen[-1] == Order.model_validate(WHOLE)
    names = [[item.name for item in each.items] for each in seen if each.items]
    assert ["te"] in names and ["tea", "cu"] in names
    assert {each.by_alias for each in seen} == {0, 12}, "a number comes when it is whole"
    notes = [each.note for each in seen if each.note is not None]
    assert notes[0].tags == [] and notes[-1] == Note("soon", ["x"])


def cuts(text: str) -> list[str]:
    return [text[:end] for end in range(len(text) + 1)]


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (list[Item], '[{"name": "a"}, {"na', [Item(name="a"), Item.model_construct(name=None)]),
        (dict[str, Item], '{"k": {"name": "', {"k": Item(name="")}),
        (Item | Note, '{"text": "t', Note("t")),
        (int | str, '"ab', "ab"),
        (tuple[int, str], "[1", None),
        (set[int], "[1, 2, ", {1, 2}),
        (Names, '[{"name": "x"', Names([Item(name="x")])),
        (Any, '{"a": [1, {"b": "c', {"a": [1, {"b": "c"}]}),
    ],
)
def test_types_of_all_sorts(annotation: Any, text: str, expected: Any) -> None:
    value = partial_value(annotation, partial_json(text))
    assert value == expected and type(value) is type(expected)


# -- from a program ---------------------------------------------------------------------------------------------


@sgl.function
def ordering(s: Any, **arguments: Any) -> None:
    s += "x" + sgl.gen("a", **{"max_tokens": 1000, "json_schema": Order, **arguments})


def test_partial_objects_while_streaming() -> None:
    """c#6: growing values, nothing raised on the way, the last one is ``parsed``."""
    state = ordering.stream(backend=FakeBackend(lambda call: TEXT))
    seen = list(state.partial_iter("a"))
    assert len(seen) > 1 and all(type(each) is Order for each in seen)
    assert seen[-1] is state["a"].parsed
    customers = [each.customer for each in seen if each.customer is not None]
    assert customers == sorted(customers, key=len)
    assert list(state.partial_iter("a"))[-1] is seen[-1], "it can be read again, also when all is done"


def test_async_partial_objects_of_any_output() -> None:
    backend = FakeBackend(lambda call: json.dumps({"customer": f"Ann {len(backend.calls)}"}))
    state = ordering.stream(backend=backend, json_schema={"type": "object"}, n=3)

    async def read(index: int) -> list[Any]:
        return [value async for value in state.partial_async_iter("a", index=index)]

    async def main() -> None:
        for index, seen in enumerate(await asyncio.gather(*map(read, range(3)))):
            assert seen[-1] == {"customer": f"Ann {index + 1}"} == state["a"][index].parsed
            assert all(is_beginning(each, seen[-1]) for each in seen)

    asyncio.run(main())


def test_what_is_cut_raises_at_the_end_only() -> None:
    state = ordering.run(backend=FakeBackend(lambda call: TEXT), max_tokens=30)
    values = state.partial_iter("a")
    assert next(values).customer == "Ann"
    with pytest.raises(OutputError, match="cut at its max_tokens"):
        list(values)


def test_what_has_no_type_says_so() -> None:
    state = ordering.run(backend=FakeBackend(), json_schema=None)
    with pytest.raises(OutputError, match="'a' has no type to read it as"):
        list(state.partial_iter("a"))
    with pytest.raises(UnknownVariableError):
        list(state.partial_iter("b"))
    failing = ordering.stream(backend=FakeBackend(lambda call: EngineError("boom")))
    with pytest.raises(ProgramError, match="boom"):
        list(failing.partial_iter("a"))


def test_a_number_is_not_shown_before_it_is_whole() -> None:
    state = ordering.stream(backend=FakeBackend(lambda call: "123"), json_schema=None, dtype=int)
    assert list(state.partial_iter("a")) == [123]


def test_every_output_streams() -> None:
    """c#24, b#14: with n > 1 each output has a stream of its own, and they never mix."""
    backend = FakeBackend(lambda call: f"answer {len(backend.calls)}")

    @sgl.function
    def several(s: Any) -> None:
        s += "x" + sgl.gen("a", n=3) + "|" + sgl.gen("b")

    state = several.stream(backend=backend)
    got = ["".join(state.text_iter("a", index=index)) for index in range(3)]
    assert got == state["a"] == ["answer 1", "answer 2", "answer 3"]
    assert "".join(state.text_iter("a")) == got[0] and "".join(state.text_iter("b", index=0)) == "answer 4"
    for name, index in (("a", 3), ("a", -1), ("b", 1)):
        with pytest.raises(ProgramError, match=f"'{name}' has no output {index}"):
            list(state.text_iter(name, index=index))


def test_empty_first_output_streams_as_nothing() -> None:
    backend = FakeBackend(lambda call: "" if len(backend.calls) == 1 else "more")

    @sgl.function
    def several(s: Any) -> None:
        s += "x" + sgl.gen("a", n=2)

    state = several.stream(backend=backend)
    assert state["a"] == ["", "more"] and list(state.text_iter("a")) == []
