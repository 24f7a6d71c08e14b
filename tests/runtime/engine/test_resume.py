"""A request that goes on where another one broke off gives the rest of what that would have given, at every cut."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sgl_like.errors import RequestError
from sgl_like.runtime.logprobs import LogprobParams, PlaceLogprobs
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.sampling_params import SamplingParams
from tests.runtime.engine.test_jump_forward import MERGES, NAMES
from tests.support.engine_harness import Harness, Result
from tests.support.interpreted import fewer, some
from tests.support.small_model import make_model

TAG = {
    "structures": [{"begin": "name", "schema": {"enum": ["abab", "tru"]}, "end": "--"}],
    "triggers": ["name"],
}
SCHEMA = {**NAMES, "properties": {"name": {"type": "string", "maxLength": 12}, "ab": {"const": "true--"}},
          "required": ["name", "ab"]}  # fmt: skip
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "free": {},
    "regex": {"regex": r"(ab){4}[xy]{1,9}(name|nab)--01[0-9]true"},
    "forced at once": {"regex": r"--(01){3}name, name[ab]{3}"},
    "schema": {"json_schema": SCHEMA},
    "schema, short of room": {"json_schema": SCHEMA, "max_new_tokens": 16},
    "array": {"json_schema": {"type": "array", "items": {"type": "string"}}, "max_new_tokens": 14},
    "ebnf": {"ebnf": 'root ::= "name" ("--" | "01" | [a-z]) root | "true"', "max_new_tokens": 20},
    "tag": {"structural_tag": TAG, "logit_bias": {str(256 + 4 + i): 9.0 for i in range(len(MERGES))}},
    "without jumps": {"json_schema": SCHEMA, "jump_forward": False, "max_new_tokens": 60},
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 1.5, "seed": 5},
    "filtered": {"temperature": 0.8, "top_p": 0.9, "min_p": 0.01, "seed": 1},
    "penalties": {"frequency_penalty": 1.0, "presence_penalty": 0.5, "repetition_penalty": 1.3},
    "penalties, seeded": {"frequency_penalty": -0.4, "repetition_penalty": 0.8, "temperature": 1.0, "seed": 2},
    "stops": {"stop": ["na", "1t"], "stop_regex": ["[xyz][^abn]"], "temperature": 1.3, "seed": 3},
    "kept stops": {"stop": ["me", "e-"], "no_stop_trim": True, "temperature": 1.3, "seed": 4},
    "least": {"min_new_tokens": 8, "temperature": 1.5, "seed": 8, "stop_token_ids": list(range(97, 110))},
    "bad words": {"bad_words": ["b", "tr", "--"], "temperature": 1.0, "seed": 9},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("resume"), merges=MERGES)


@dataclass
class Run:
    """A request's events, and what they come to."""

    events: list[Output]
    result: Result


def run(harness: Harness, request: GenerateRequest) -> Run:
    events: list[Output] = []
    receive = harness._receive

    def record(output: Output) -> None:
        events.append(output)
        receive(output)

    for admitted in harness.intake.admit_parts(request, record):
        harness.core.add(admitted)
    while harness.core.has_work:
        harness.step()
    return Run(events, harness.results.pop(request.rid))


def make_request(harness: Harness, prompt: str, values: dict[str, Any]) -> GenerateRequest:
    defaults = {"max_new_tokens": 40, "temperature": 0.0}
    params = SamplingParams.from_dict({**defaults, **values})
    return GenerateRequest(harness.tokenizer.encode(prompt), params, stream=True, rid="r")


def resumed(request: GenerateRequest, known: list[int], **changes: Any) -> GenerateRequest:
    return replace(request, input_ids=[*request.input_ids, *known], produced=len(known), **changes)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("parameters", some(list(PARAMETERS), 3))
def test_the_rest_is_the_same_at_every_cut(folder: Path, constraint: str, parameters: str) -> None:
    values = {**PARAMETERS[parameters], **CONSTRAINTS[constraint]}
    harness = Harness(folder)
    request = make_request(harness, "name ab", values)
    whole = run(harness, request)
    assert whole.result.error is None and whole.result.finish is not None
    known, text = list[int](), ""
    for at, event in enumerate(whole.events[:-1]):
        known += event.token_ids
        text += event.text
        if at not in some(range(len(whole.events))):
            continue
        rest = run(harness, resumed(request, known)).result
        assert [*known, *rest.token_ids] == whole.result.token_ids
        assert text + rest.text == whole.result.text
        assert rest.finish == whole.result.finish
        old, new = whole.result.usage, rest.usage
        assert (new.prompt_tokens, new.completion_tokens) == (old.prompt_tokens, old.completion_tokens)
        assert new.forced_tokens == old.forced_tokens
        assert [len(known) + at for at in rest.forced] == [
            at for at in whole.result.forced if at >= len(known)
        ]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_cuts_between_tokens_of_one_event(folder: Path, constraint: str) -> None:
    harness = Harness(folder)
    request = make_request(harness, "01", {"temperature": 1.0, "seed": 6, **CONSTRAINTS[constraint]})
    whole = run(harness, request).result
    for cut in some(range(1, len(whole.token_ids))):
        rest = run(harness, resumed(request, whole.token_ids[:cut])).result
        assert [*whole.token_ids[:cut], *rest.token_ids] == whole.token_ids
        assert whole.text.endswith(rest.text) and rest.finish == whole.finish


@pytest.mark.parametrize("constraint", ["free", "schema", "ebnf"])
@pytest.mark.parametrize("parameters", ["greedy", "seeded", "penalties"])
def test_drafts_change_nothing(folder: Path, constraint: str, parameters: str) -> None:
    harness = Harness(folder, speculation=4)
    values = {**PARAMETERS[parameters], **CONSTRAINTS[constraint]}
    request = make_request(harness, "ab ab ab ab", values)
    expected = run(Harness(folder), request).result
    whole = run(harness, request)
    assert whole.result.token_ids == expected.token_ids
    known = list[int]()
    for at, event in enumerate(whole.events[:-1]):
        known += event.token_ids
        if at not in some(range(len(whole.events))):
            continue
        rest = run(harness, resumed(request, known)).result
        assert [*known, *rest.token_ids] == expected.token_ids and rest.finish == expected.finish


def test_under_pressure_among_others(folder: Path) -> None:
    rng = random.Random(0)
    alone, crowd = Harness(folder), Harness(folder, slots=160, running=6, budget=24)
    expected: dict[str, tuple[list[int], str]] = {}
    requests = []
    for i in range(fewer(60, least=20)):
        values = {**rng.choice(list(PARAMETERS.values())), **rng.choice(list(CONSTRAINTS.values()))}
        request = make_request(alone, "".join(rng.choices("abname01- ", k=rng.randrange(1, 30))), values)
        whole = run(alone, request)
        part = whole.events[: rng.randrange(len(whole.events))]
        known = [token for event in part for token in event.token_ids]
        text = "".join(event.text for event in part)
        expected[str(i)] = whole.result.token_ids[len(known) :], whole.result.text[len(text) :]
        requests.append(resumed(request, known, rid=str(i), stream=rng.random() < 0.5))
    results = crowd.run(requests, lambda: rng.random() < 0.4)
    assert {rid: (r.token_ids, r.text) for rid, r in results.items()} == expected
    assert crowd.scheduler.retracted_total


@pytest.mark.parametrize("constraint", ["free", "schema", "regex"])
def test_log_probabilities_go_on(folder: Path, constraint: str) -> None:
    harness = Harness(folder)
    request = make_request(harness, "tru ab", {"temperature": 1.0, "seed": 1, **CONSTRAINTS[constraint]})
    asked = LogprobParams(top=3, token_ids=(65,))
    whole = run(harness, replace(request, logprobs=asked))
    assert len(whole.result.output_logprobs) == len(whole.result.token_ids)
    known, scored = list[int](), 0
    for at, event in enumerate(whole.events[:-1]):
        known += event.token_ids
        scored += len(event.output_logprobs)
        if at not in some(range(len(whole.events))):
            continue
        rest = run(harness, resumed(request, known, logprobs=replace(asked, skip=scored))).result
        assert not rest.prompt_logprobs
        same(rest.output_logprobs, whole.result.output_logprobs[scored:])
    assert any(len(event.token_ids) > len(event.output_logprobs) for event in whole.events) == (
        constraint != "free"
    )  # those of forced tokens do come later, so there was something to be told of


def same(found: list[PlaceLogprobs], expected: list[PlaceLogprobs]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for x, y in zip((a.token, *a.top, *a.asked), (b.token, *b.top, *b.asked), strict=True):
            assert x[1] == y[1]
            assert x[0] == pytest.approx(y[0], abs=1e-4)


def test_prompt_is_listed_with_everything_after_it(folder: Path) -> None:
    harness = Harness(folder)
    request = make_request(harness, "tru ab", {"max_new_tokens": 9})
    request = replace(request, logprobs=LogprobParams(start=0))
    whole = run(harness, request).result
    rest = run(harness, resumed(request, whole.token_ids[:4])).result
    same(rest.prompt_logprobs[1:], whole.prompt_logprobs[1:])
    same(rest.output_logprobs, whole.output_logprobs)


def test_an_output_that_is_complete_ends_at_once(folder: Path) -> None:
    harness = Harness(folder)
    for values in (
        {"max_new_tokens": 5},
        {"regex": "name"},
        {"stop_token_ids": [97], "logit_bias": {"97": 100}},
    ):
        request = make_request(harness, "ab", values)
        whole = run(harness, request).result
        rest = run(harness, resumed(request, whole.token_ids)).result
        assert (rest.token_ids, rest.text, rest.finish) == ([], "", whole.finish)
        assert rest.usage.computed_tokens == 0


def test_only_the_new_is_computed(folder: Path) -> None:
    harness = Harness(folder)
    request = make_request(harness, "name", {"max_new_tokens": 12, "ignore_eos": True})
    whole = run(harness, request).result
    rest = run(harness, resumed(request, whole.token_ids[:6])).result
    assert rest.usage.cached_tokens == len(request.input_ids)
    assert rest.usage.computed_tokens == 12 - 6


@pytest.mark.parametrize(
    ("values", "known", "message"),
    [
        ({"regex": "[ab]+"}, [97, 120], "token 120 at 1, which its constraint does not allow"),
        ({"stop_token_ids": [97]}, [97, 98], "goes on after it has ended, with token 98 at 1"),
        ({"max_new_tokens": 2}, [97, 97, 97], "3 tokens, but at most 2 are allowed"),
        ({"stop": ["ab"]}, [97, 98, 98], "goes on after it has ended"),
        ({"regex": "(ab)*x", "max_new_tokens": 3}, [97, 98, 97], "at 2, which its constraint does not allow"),
    ],
)
def test_what_cannot_be_an_output_is_refused(
    folder: Path, values: dict[str, Any], known: list[int], message: str
) -> None:
    harness = Harness(folder)
    with pytest.raises(RequestError, match=message):
        harness.intake.admit(resumed(make_request(harness, "ab", values), known), lambda output: None)


def test_bad_numbers_are_refused(folder: Path) -> None:
    harness = Harness(folder)
    request = make_request(harness, "ab", {})
    for produced in (-1, True, 1.5):
        with pytest.raises(RequestError, match="produced"):
            replace(request, produced=produced)
    with pytest.raises(RequestError, match="the prompt is empty"):
        harness.intake.admit(replace(request, produced=2), lambda output: None)
    with pytest.raises(RequestError, match="can be left out only for the 1 tokens known"):
        harness.intake.admit(resumed(request, [97], logprobs=LogprobParams(skip=2)), lambda output: None)
    with pytest.raises(RequestError, match="no output yet"):
        scored = replace(request, params=SamplingParams(max_new_tokens=0), choices=[[1]], produced=1)
        harness.intake.admit_parts(scored, lambda output: None)
