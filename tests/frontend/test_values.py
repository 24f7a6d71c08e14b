"""Typed results: what ``s["x"]`` is (c#5, b#34), and the types of dtype and json_schema."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import pickle
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

import sgl_like as sgl
from sgl_like.errors import OutputError, ProgramError, SamplingParamsError
from sgl_like.frontend.expr import Gen
from sgl_like.frontend.outputs.dtypes import REGEX_BOOL, REGEX_FLOAT, REGEX_INT, REGEX_STR
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model


class Order(BaseModel):
    item: str
    count: Annotated[int, Field(ge=0)] = 1

    @field_validator("item")
    @classmethod
    def _known(cls, item: str) -> str:
        if item == "moon":
            raise ValueError("we have no moons")
        return item


@dataclasses.dataclass
class Point:
    x: float


class Pair(TypedDict):
    a: int


class Colour(enum.Enum):
    RED = "red"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder = make_model(tmp_path_factory.mktemp("values"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


def value_of(text: str, **arguments: Any) -> Any:
    """The value of a gen that answers `text`."""

    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", **arguments)

    return program(backend=FakeBackend(lambda call: text))["a"]


def test_the_value_is_a_str_in_every_respect() -> None:
    """c#5: SGLang's string uses still work."""
    value = value_of('{"item": "ship"}', json_schema=Order)
    text = '{"item": "ship"}'
    assert type(value) is sgl.GenText and isinstance(value, str)
    assert value == text and hash(value) == hash(text) and {value: 1}[text] == 1
    assert json.loads(value) == {"item": "ship"} and json.dumps(value) == json.dumps(text)
    assert value + "!" == text + "!" and f"{value:>20}" == f"{text:>20}"
    assert value[1:7] == '"item"' and "ship" in value and ",".join([value, "b"]) == text + ",b"
    assert type(str(value)) is str
    for other in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy([value])[0]):
        assert other == value and other.parsed == Order(item="ship") and other.meta == value.meta


def test_what_it_knows(runtime: sgl.Runtime) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += (
            "q"
            + sgl.gen("a", max_tokens=4, ignore_eos=True, return_logprob=True)
            + sgl.gen("b", max_tokens=2)
        )

    state = program.run(backend=runtime, temperature=0)
    value = state["a"]
    assert value.finish_reason == "length" and len(value.token_ids) == 4
    assert [token for _, token, _ in value.logprobs] == list(value.token_ids)
    assert value.meta == state.get_meta_info("a") and state["b"].logprobs is None


def test_token_ids_stand_for_the_text() -> None:
    for stop in (None, "."):
        backend = FakeBackend(lambda call: "forty two. More")

        @sgl.function
        def program(s: Any, stop: str | None = stop) -> None:
            s += "x" + sgl.gen("a", stop=stop)

        value = program(backend=backend)["a"]
        assert backend.decode(value.token_ids) == value
        assert value.meta["output_ids"] == list(backend.calls[0].sampled)


def test_a_class_that_cannot_be_pickled_takes_nothing_with_it() -> None:
    class Local(BaseModel):
        x: int

    value = value_of('{"x": 1}', json_schema=Local)
    assert value.parsed == Local(x=1)
    other = pickle.loads(pickle.dumps(value))
    assert other == value and other.meta == value.meta
    with pytest.raises(OutputError, match="nothing to parse"):
        other.parsed  # noqa: B018


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        (Order, '{"item": "ship", "count": 2}', Order(item="ship", count=2)),
        (Point, '{"x": 1}', Point(1.0)),
        (Pair, '{"a": 1}', {"a": 1}),
        (list[Order], '[{"item": "a"}]', [Order(item="a")]),
        (dict[str, Point], '{"p": {"x": 2}}', {"p": Point(2.0)}),
        (Literal["a", "b"], '"b"', "b"),
        (Colour, '"red"', Colour.RED),
        (int | None, "null", None),
        (Order | Point, '{"x": 1}', Point(1.0)),
        (Annotated[int, Field(gt=3)], "4", 4),
        ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
        ('{"type": "array"}', "[1, null]", [1, None]),
        (True, '"x"', "x"),
    ],
)
def test_json_schema_takes_types(source: Any, text: str, expected: Any) -> None:
    """b#34, c#5: what is given as json_schema, and what ``parsed`` is."""
    value = value_of(text, json_schema=source)
    assert value.parsed == expected and type(value.parsed) is type(expected)
    assert value.parsed is value.parsed


def test_the_engine_holds_output_to_types(runtime: sgl.Runtime) -> None:
    """b#34 on the real engine: random weights, and still every output is of its type."""

    @sgl.function
    def program(s: Any) -> None:
        for name, source in (("order", Order), ("colours", list[Colour]), ("point", Point), ("pair", Pair)):
            s += "q" + sgl.gen(name, max_tokens=40, json_schema=source)

    state = program.run(backend=runtime, seed=3)
    assert isinstance(state["order"].parsed, Order) and isinstance(state["point"].parsed, Point)
    assert set(state["colours"].parsed) <= {Colour.RED} and isinstance(state["pair"].parsed["a"], int)


@pytest.mark.parametrize("source", [3, [1], None.__class__.__mro__, "x".join])
def test_what_is_no_schema_is_refused(source: Any) -> None:
    with pytest.raises(SamplingParamsError, match="json_schema must be a JSON Schema"):
        sgl.gen("x", json_schema=source)


def test_types_without_a_schema_are_refused() -> None:
    class Odd:
        pass

    with pytest.raises(SamplingParamsError, match="pydantic makes no JSON Schema of Odd"):
        sgl.gen("x", json_schema=Odd)


def test_unions_do_not_share_a_schema() -> None:
    first, second = sgl.gen("x", json_schema=int | str), sgl.gen("x", json_schema=str | int)
    assert isinstance(first, Gen) and isinstance(second, Gen)
    assert [each["type"] for each in first.params["json_schema"]["anyOf"]] == ["integer", "string"]
    assert [each["type"] for each in second.params["json_schema"]["anyOf"]] == ["string", "integer"]


@pytest.mark.parametrize("source", [Order, Order.model_json_schema()])
def test_a_schema_as_regex_is_taken_as_one(source: Any) -> None:
    """The often-copied ``gen(..., regex=SomeModel.model_json_schema())``."""
    with pytest.warns(UserWarning, match="write json_schema=") as caught:
        node = sgl.gen("x", regex=source)
    assert isinstance(node, Gen) and node.params == {"json_schema": Order.model_json_schema()}
    assert caught[0].filename == __file__
    with pytest.raises(SamplingParamsError, match="only once"):
        sgl.gen("x", regex=source, json_schema=source)
    with pytest.raises(SamplingParamsError, match="regex must be"):
        sgl.gen("x", regex=3)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("hello", {}, "nothing to parse: give the gen a json_schema"),
        ("hello", {"regex": "h.*"}, "nothing to parse"),
        ('{"item": "moon"}', {"json_schema": Order}, "is no Order: item: Value error, we have no moons"),
        ("{", {"json_schema": {}}, "'{' is not JSON"),
        ("12", {"dtype": bool}, "'12' is no bool"),
        ("9" * 400, {"dtype": float, "max_tokens": 500}, "too large for a float"),
        ('{"item": "a long story"}', {"json_schema": Order, "max_tokens": 8}, "was cut at its max_tokens"),
        ("x", {"json_schema": list[int]}, r"'x' is no list\[int\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_parsed_says_so(text: str, arguments: dict[str, Any], message: str) -> None:
    """c#5, b#33: a cut output has no value, and says that it was cut."""
    value = value_of(text, **arguments)
    with pytest.raises(OutputError, match=message):
        value.parsed  # noqa: B018
    assert (value.finish_reason == "length") == ("cut" in message)


def test_several_outputs_are_a_list_of_values() -> None:
    values = value_of('{"x": 2}', json_schema=Point, n=3)
    assert [value.parsed for value in values] == [Point(2.0)] * 3 and values == ['{"x": 2}'] * 3


def test_what_a_user_sets_keeps_its_type() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s["mine"] = [1, 2]
        s["text"] = "plain"

    state = program(backend=FakeBackend())
    assert state["mine"] == [1, 2] and type(state["text"]) is str


# -- dtype ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "text", "expected"),
    [
        (sgl.gen_int, "-12", -12),
        (sgl.gen_int, "+007", 7),
        (sgl.gen_string, '"a \\"b\\", \\u00e9!"', 'a "b", é!'),
        (lambda name: sgl.gen(name, dtype=float), "1.5e-3", 0.0015),
        (lambda name: sgl.gen(name, dtype="float"), ".5", 0.5),
        (lambda name: sgl.gen(name, dtype=bool), "False", False),
        (lambda name: sgl.gen(name, regex=REGEX_INT), "3", 3),
        (lambda name: sgl.gen(name, regex=REGEX_STR), '"x"', "x"),
        (lambda name: sgl.gen(name, regex=REGEX_BOOL), "True", True),
    ],
)
def test_dtypes(node: Any, text: str, expected: Any) -> None:
    """``s["a"]`` stays text; ``parsed`` is the Python value."""

    @sgl.function
    def program(s: Any) -> None:
        s += "x" + node("a")

    value = program(backend=FakeBackend(lambda call: text))["a"]
    assert value == text and value.parsed == expected and type(value.parsed) is type(expected)


@pytest.mark.parametrize("dtype", [int, float, str, bool])
def test_the_engine_holds_output_to_dtypes(runtime: sgl.Runtime, dtype: type) -> None:
    """b#33: an output that max_tokens would cut is ended in time, and is of its type."""

    @sgl.function
    def program(s: Any) -> None:
        s += "q" + sgl.gen("a", max_tokens=6, n=8, dtype=dtype)

    for value in program.run(backend=runtime, seed=1)["a"]:
        assert type(value.parsed) is dtype


@pytest.mark.parametrize("stop", [".", (".", "!"), [".", "!"], None])
@pytest.mark.parametrize("dtype", [int, float, str, bool])
def test_dtype_with_any_form_of_stop(dtype: type, stop: Any) -> None:
    """b#16: SGLang raises AttributeError for a str or tuple. b#15: the user's list is never changed."""
    before = list(stop or ())
    backend = FakeBackend(lambda call: "1")

    @sgl.function
    def program(s: Any) -> None:
        for _ in range(3):
            s += "x" + sgl.gen("a", dtype=dtype, stop=stop)
        s += sgl.gen("b", dtype=dtype)

    state = program.run(backend=backend, stop=["end", " "])
    assert state.error() is None
    added = (" ", "\n") if dtype in (int, float) else ()
    own = ("end", " ") if stop is None else tuple(before)
    assert [set(call.params["stop"]) for call in backend.calls[:3]] == [{*own, *added}] * 3
    assert set(backend.calls[3].params["stop"]) == {"end", " ", *added}
    assert list(stop or ()) == before


def test_gen_int_has_sglangs_positional_order() -> None:
    node = sgl.gen_int("x", 64, 2, ".", [7], None, 0.5, 0.9, 40, 0.1, seed=3)
    assert isinstance(node, Gen) and node.params == {
        "max_new_tokens": 64, "n": 2, "stop": ".", "stop_token_ids": (7,), "temperature": 0.5, "top_p": 0.9,
        "top_k": 40, "min_p": 0.1, "dtype": "int", "seed": 3,
    }  # fmt: skip
    with pytest.raises(SamplingParamsError, match="dtype and json_schema"):
        sgl.gen_string("x", json_schema=Order)


def test_a_budget_that_no_output_fits_is_an_error(runtime: sgl.Runtime) -> None:
    """b#33: never an output that breaks its constraint without a word."""

    @sgl.function
    def program(s: Any) -> None:
        s += "q" + sgl.gen("a", max_tokens=3, json_schema=Order)

    with pytest.raises(ProgramError, match="max_new_tokens=3 is too small"):
        program.run(backend=runtime)["a"]


@pytest.mark.parametrize("text", ["1", "-1.", ".5", "1e5", "+1.5E-07", "12 \n"])
def test_float_regex_is_what_python_reads(text: str) -> None:
    import re

    assert re.fullmatch(REGEX_FLOAT, text)
    float(text)
