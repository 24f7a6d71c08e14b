"""Types by name."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import types
from typing import Annotated, Any, Literal, NewType, TypedDict

import pytest

from sgl_like.frontend.batches.plain import NotPlainError
from sgl_like.frontend.batches.type_names import type_data, type_named


class Colour(enum.Enum):
    red = 1


class Outer:
    @dataclasses.dataclass
    class Inner:
        x: int


class Row(TypedDict):
    a: int


@pytest.mark.parametrize(
    "annotation",
    [
        int, Any, type(None), Colour, Outer.Inner, Row, list[Row], dict[str, list[Colour]], tuple[int, ...],
        tuple[int, str], int | None, Row | None, Literal["a", 1, None, True], list[Literal["x"] | int], list,
        None | int,
    ],
)  # fmt: skip
def test_there_and_back(annotation: Any) -> None:
    assert type_named(json.loads(json.dumps(type_data(annotation)))) == annotation


def test_what_has_no_name() -> None:
    class Local:
        pass

    for wrong in (
        Local,
        list[Local],
        Annotated[int, "positive"],
        NewType("New", int),
        Literal[Colour.red],
        5,
    ):
        with pytest.raises(NotPlainError):
            type_data(wrong)


def test_a_type_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("for_a_while")
    exec("class A:\n    pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "for_a_while", module)
    data = type_data(module.A)
    assert type_named(data) is module.A
    monkeypatch.delitem(sys.modules, "for_a_while")
    with pytest.raises(NotPlainError, match=r"there is no type for_a_while\.A"):
        type_named(data)
