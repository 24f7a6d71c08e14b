"""Budgets of constrained outputs (c#2): enough for the shortest is enough for a model that wants anything else."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError, PromptTooLongError
from sgl_like.runtime.constrain.openings import largest_opening, longest_unrolled
from sgl_like.runtime.constrain.spelling import fewest_tokens
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from sgl_like.runtime.models.load import EMBEDDED_MODEL
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.constrain_schemas import SCHEMAS, schemas
from tests.support.engine_harness import Harness, Result
from tests.support.interpreted import fewer, some
from tests.support.small_model import make_model

MERGES = [
    ("a", "b"),
    ("ab", "ab"),
    ('"', ":"),
    ('"', ","),
    ('"', "}"),
    ("{", '"'),
    ("[", "["),
    ("]", "}"),
    ("n", "a"),
]
REGEXES = [
    r"a{3}b*c",
    r"(yes|no)( maybe)?",
    r"\d{3}-\d{4}",
    r"[가-힣]{2,5}!",
    r"((ab)+,){2,}x?",
    r"(abababab|zz)+",
    r".*",
]
GRAMMARS = [
    'root ::= "(" root ")" | [0-9a-f]{1,3} | root "+"',
    'start: item ("," item)~0..3 ";"\nitem: "x" | "(" start ")"\n%ignore " "',
    "root ::= a a\na ::= b b\nb ::= [a-z] [a-z]",
]
TAG = {
    "structures": [{"begin": "<n>", "schema": {"type": "string", "minLength": 5}, "end": "</n>"}],
    "triggers": ["<n"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("ending"), merges=MERGES)


def request(harness: Harness, rid: str, **params: Any) -> GenerateRequest:
    values = {"temperature": 2.0, "seed": len(rid), **params}
    return GenerateRequest(harness.tokenizer.encode("x"), SamplingParams.from_dict(values), rid=rid)


def least(harness: Harness, **params: Any) -> int:
    """The number that a budget of one token is refused with, or 1 if it is not."""
    for wanted in range(1, 3):
        try:
            harness.intake.admit(
                request(harness, "least", max_new_tokens=wanted, **params), lambda output: None
            )
        except ConstraintError as error:
            found = re.search(r"takes (\d+) tokens", str(error))
            assert found is not None, str(error)
            return int(found[1])
        return wanted
    raise AssertionError


def check(harness: Harness, result: Result, params: dict[str, Any], budget: int) -> None:
    assert result.error is None and result.finish is not None, (params, result.error)
    assert len(result.token_ids) <= budget
    matcher = harness.intake.matcher(SamplingParams.from_dict(params))
    assert matcher is not None
    for token in result.token_ids:
        assert matcher.accept_token(token)
    assert matcher.is_complete, (params, result.text)
    if "structural_tag" not in params:
        assert result.finish.type == "stop"
    if "json_schema" in params:
        json.loads(result.text)
    if "regex" in params:
        assert re.fullmatch(params["regex"], result.text)


def outputs_end_in_time(harness: Harness, constraints: list[dict[str, Any]], **options: Any) -> None:
    cases: dict[str, tuple[dict[str, Any], int]] = {}
    for i, params in enumerate(constraints):
        need = least(harness, **params)
        if need > 1:
            with pytest.raises(ConstraintError, match=rf"takes {need} tokens"):
                harness.add(request(harness, "refused", max_new_tokens=need - 1, **params))
        for more in (0, 1, 2, 5, 13, 40):
            cases[f"{i} {more} {'x' * (i % 7)}"] = params, need + more
    requests = [
        request(harness, rid, max_new_tokens=budget, **params, **options)
        for rid, (params, budget) in cases.items()
    ]
    results = harness.run(requests)
    for rid, (params, budget) in cases.items():
        check(harness, results[rid], params, budget)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"jump_forward": False}, {"top_k": 3, "top_p": 0.9}]
)
def test_regexes_grammars_and_tags_end_in_time(folder: Path, options: dict[str, Any]) -> None:
    constraints: list[dict[str, Any]] = [{"regex": regex} for regex in REGEXES]
    constraints += [{"ebnf": grammar} for grammar in GRAMMARS]
    constraints.append({"structural_tag": TAG})
    outputs_end_in_time(Harness(folder, slots=4000, running=16), constraints, **options)


@pytest.mark.parametrize("options", [{"jump_forward": False}, {"temperature": 0, "min_new_tokens": 1}])
def test_schemas_end_in_time(folder: Path, options: dict[str, Any]) -> None:
    orders: tuple[dict[str, Any], ...] = ({}, {"property_order": "any"}, {"whitespace": "any"})
    constraints = [
        {"json_schema": json.dumps(schema), **orders[i % 3]} for i, schema in enumerate(some(SCHEMAS, 4))
    ]
    outputs_end_in_time(Harness(folder, slots=4000, running=16), constraints, **options)


@given(schema=schemas(), seed=st.integers(0, 10**6))
@settings(max_examples=fewer(25), deadline=None)
def test_random_schemas_end_in_time(folder: Path, schema: Any, seed: int) -> None:
    harness = Harness(folder, slots=4000, running=16)
    params = {"json_schema": json.dumps(schema)}
    try:
        harness.intake.matcher(SamplingParams.from_dict(params))
    except ConstraintError:
        return
    outputs_end_in_time(harness, [params], seed=seed)


@cache
def embedded() -> Harness:
    return Harness(EMBEDDED_MODEL, slots=4000, running=16)


def test_the_embedded_model_ends_in_time_with_its_own_tokens() -> None:
    person = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 3},
            "kind": {"enum": ["PlayMusic", "GetWeather", "BookRestaurant"]},
            "more": {
                "type": "array",
                "items": {"type": "object", "required": ["name", "kind"]},
                "minItems": 2,
            },
        },
        "required": ["name", "kind"],
        "additionalProperties": False,
    }
    constraints: list[dict[str, Any]] = [
        {"json_schema": json.dumps(person)},
        {"regex": r"[a-z ]{10,}: (\w+ )*end"},
    ]
    outputs_end_in_time(embedded(), constraints)
    outputs_end_in_time(Harness(EMBEDDED_MODEL, slots=4000, running=16), constraints, temperature=0)


def test_greedy_output_is_the_same_wherever_there_is_room(folder: Path) -> None:
    params: dict[str, Any] = {"regex": r"[a-z]{3,40}!", "temperature": 0, "jump_forward": False}
    harness = Harness(folder)
    long = harness.run([request(harness, "long", max_new_tokens=60, **params)])["long"].token_ids
    for budget in some(range(4, 60)):
        harness = Harness(folder)
        short = harness.run([request(harness, "short", max_new_tokens=budget, **params)])["short"].token_ids
        agree = next((i for i, (a, b) in enumerate(zip(long, short, strict=False)) if a != b), len(short))
        assert agree == len(long) or agree >= budget - 2  # all but what ends it


def test_an_optional_member_that_needs_much_is_not_begun_too_late(folder: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"const": "0123456789"}, "minItems": 5, "maxItems": 5}
        },
        "additionalProperties": False,
    }
    bias = {ord("{"): 50, ord('"'): 50}  # it wants the member
    for budget in (2, 10, 60, 69, 70, 71, 100):
        harness = Harness(folder)
        params = {"json_schema": schema, "max_new_tokens": budget, "logit_bias": bias}
        result = harness.run([request(harness, "r", **params)])["r"]
        assert result.finish is not None and result.finish.type == "stop"
        jsonschema.validate(json.loads(result.text), schema)


def test_the_context_counts_too(folder: Path) -> None:
    harness = Harness(folder)  # a context of 256
    with pytest.raises(PromptTooLongError, match="takes 20 tokens; the prompt leaves room for 16"):
        params = SamplingParams(regex="x{20}", max_new_tokens=100)
        harness.add(GenerateRequest([1] * 240, params, rid="r"))


def test_no_token_is_needed_to_end_an_output_that_is_complete(folder: Path) -> None:
    harness = Harness(folder)
    eos = harness.tokenizer.eos_token_ids
    for budget in range(1, 6):
        result = harness.run(
            [request(harness, f"{budget}", regex="q(qq)*", max_new_tokens=budget, temperature=0)]
        )
        found = result[f"{budget}"]
        assert found.finish is not None and found.finish.type == "stop"
        assert len([token for token in found.token_ids if token not in eos]) % 2 == 1


def test_free_text_that_is_cut_says_so(folder: Path) -> None:
    harness = Harness(folder)
    result = harness.run(
        [request(harness, "r", structural_tag=TAG, max_new_tokens=3, ignore_eos=True, seed=2)]
    )["r"]
    assert result.finish is not None and result.finish.type == "length"


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_fewest_tokens_are_fewest(data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=8, unique=True))
    text = data.draw(st.text("abc", max_size=12)).encode()
    vocabulary = Vocabulary([piece.encode() for piece in pieces], ())
    counts: list[float] = [0.0]
    for end in range(1, len(text) + 1):
        tails = [piece for piece in pieces if text[:end].endswith(piece.encode())]
        counts.append(min((counts[end - len(piece)] + 1 for piece in tails), default=float("inf")))
    found = fewest_tokens(vocabulary.trie, text)
    assert (float("inf") if found is None else len(found)) == counts[-1]
    if found is not None:
        assert b"".join(vocabulary.token_bytes[token] or b"" for token in found) == text


def test_openings_bound_what_is_missing() -> None:
    inner = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": inner, "minItems": 10}}}
    assert 70 <= largest_opening(schema) <= 120
    assert largest_opening({"$ref": "#"}) == 0 and largest_opening(True) == 0
    assert longest_unrolled("(ab{10}){10}") >= 110
    rng = random.Random(1)
    for _ in range(20):
        count = rng.randrange(1, 50)
        assert longest_unrolled(f"x|(abc){{{count}}}") >= 3 * count
