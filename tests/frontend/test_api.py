"""Building expressions."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import BaseModel

import sgl_like as sgl
from sgl_like.errors import SamplingParamsError
from sgl_like.frontend.expr import Gen, RoleBegin, RoleEnd, Select, Text, flatten


def test_expressions_add_up_in_order() -> None:
    expr = "a" + sgl.gen("x") + "b" + sgl.select("y", ["1", "2"]) + ("" + sgl.gen("z"))
    kinds = [type(node) for node in flatten(expr)]
    assert kinds == [Text, Gen, Text, Select, Gen]


def test_roles_wrap_their_content() -> None:
    nodes = flatten(sgl.user("a" + sgl.gen("x")))
    assert nodes == (RoleBegin("user"), Text("a"), Gen("x"), RoleEnd("user"))
    assert flatten(sgl.system()) == (RoleBegin("system"), RoleEnd("system"))


@pytest.mark.parametrize("into_text", [str, lambda expr: f"{expr!s}", lambda expr: "%s" % expr])  # noqa: UP031
def test_a_gen_cannot_become_text(into_text: Callable[[object], str]) -> None:
    """b#23: what cannot work is an error, not a silent ``Gen('x')`` in the prompt."""
    with pytest.raises(TypeError, match=r"gen\('x'\) cannot become a string.*add it: s \+="):
        into_text(sgl.gen("x"))
    with pytest.raises(TypeError, match=r"takes no format, but '>10' was given"):
        f"{sgl.gen('x'):>10}"


def test_positional_order_is_sglangs() -> None:
    node = sgl.gen("x", 64, 2, 1, ".", [7], None, 0.5, 0.9, 40, 0.1)
    assert isinstance(node, Gen)
    assert node.params == {
        "max_new_tokens": 64, "min_new_tokens": 2, "n": 1, "stop": ".", "stop_token_ids": (7,),
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1,
    }  # fmt: skip


def test_a_node_does_not_share_the_callers_list() -> None:
    stop = ["."]
    node = sgl.gen("x", stop=stop)
    stop.append("!")
    assert isinstance(node, Gen) and node.params["stop"] == (".",)


def test_grammar_and_structural_tag_are_passed_on() -> None:
    node = sgl.gen("x", ebnf='root ::= "a"')
    assert isinstance(node, Gen) and node.params == {"ebnf": 'root ::= "a"'}
    tag = {"structures": [{"begin": "<", "schema": {}, "end": ">"}], "triggers": ["<"]}
    node = sgl.gen("x", structural_tag=tag)
    assert isinstance(node, Gen) and node.params == {"structural_tag": tag}


def test_the_form_of_json_is_passed_on() -> None:
    node = sgl.gen("x", json_schema={"type": "null"}, property_order="any", whitespace="any")
    assert isinstance(node, Gen)
    assert node.params == {"json_schema": {"type": "null"}, "property_order": "any", "whitespace": "any"}


def test_json_schema_from_a_pydantic_model() -> None:
    class Order(BaseModel):
        item: str

    node = sgl.gen("x", json_schema=Order)
    assert isinstance(node, Gen) and node.params["json_schema"] == Order.model_json_schema()
    text = json.dumps(Order.model_json_schema())
    assert isinstance(sgl.gen("x", json_schema=text), Gen)
    with pytest.raises(SamplingParamsError, match=r"or a type .*, not 3"):
        sgl.gen("x", json_schema=3)


def test_choices_are_a_select() -> None:
    node = sgl.gen("x", choices=["a", "b"], max_tokens=8)
    assert isinstance(node, Select) and node.choices == ("a", "b")
    with pytest.raises(SamplingParamsError, match="regex cannot be combined with choices"):
        sgl.gen("x", choices=["a"], regex="a")
    with pytest.raises(SamplingParamsError, match="choices_method needs choices"):
        sgl.gen("x", choices_method=sgl.token_length_normalized)


@pytest.mark.parametrize(
    ("choices", "message"),
    [([], "empty"), (None, "list of strings"), ("ab", "list of strings"), (["a", ""], "non-empty strings"),
     (["a", 3], "not 3"), (["a", "b", "a"], "'a' is there twice")],
)  # fmt: skip
def test_bad_choices(choices: object, message: str) -> None:
    with pytest.raises(SamplingParamsError, match=message):
        sgl.select("x", choices)  # type: ignore[arg-type]


def test_what_select_cannot_do_is_said() -> None:
    with pytest.raises(SamplingParamsError, match=r"temperature must be"):
        sgl.select("x", ["a"], temperature=-0.7)
    with pytest.raises(SamplingParamsError, match="choices_method has no say at temperature=1"):
        sgl.select("x", ["a"], temperature=1, choices_method=sgl.greedy_token_selection)


def test_constraints_exclude_each_other() -> None:
    with pytest.raises(
        SamplingParamsError, match="regex and ebnf and structural_tag cannot be given together"
    ):
        sgl.gen("x", regex="a", ebnf="b", structural_tag="{}")
    with pytest.raises(SamplingParamsError, match="dtype and regex"):
        sgl.gen("x", dtype=int, regex="a")
    with pytest.raises(SamplingParamsError, match="dtype must be int"):
        sgl.gen("x", dtype=list)
