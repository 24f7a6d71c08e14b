"""Jump forward (b#32, c#3): what a constraint forces is appended as the tokenizer cuts it, in one step, unsampled."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.interpreted import fewer
from tests.support.small_model import make_model

MERGES = [
    ("n", "a"), ("m", "e"), ("na", "me"), ("{", '"'), ('"', ":"), ('":', '"'), ('"', ","), ('",', '"'), ('"', "}"),
    ("a", "b"), ("ab", "ab"), ("0", "1"), ("-", "-"), ("t", "r"), ("tr", "u"), ("tru", "e"),
]  # fmt: skip
NAMES = {"type": "object", "additionalProperties": False}
CONSTRAINTS: list[dict[str, Any]] = [
    {"regex": r"(ab){4}[xy](name|nab)--01[0-9]true"},
    {"regex": r"--[a-c]abab(01){3}[.!]name(, name){2}"},
    {"json_schema": {**NAMES, "properties": {"name": {"enum": ["ab", "nab", "abab"]}, "ab": {"const": "true--"}},
                     "required": ["name", "ab"]}},
    {"json_schema": {**NAMES, "properties": {"name": {"type": "boolean"}, "nam": {"pattern": "^[ab]{2}$"}},
                     "required": ["name", "nam"]}},
    {"json_schema": {"type": "array", "items": {"const": {"name": [1, "abab"]}}, "minItems": 2, "maxItems": 3}},
    {"ebnf": 'root ::= "name" ("--" | "01") root | "true"'},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("jump"), merges=MERGES)


def requests(harness: Harness, jump: bool, count: int = fewer(240)) -> list[GenerateRequest]:
    """The same ones for either `jump`. Most like long tokens, as a model does that has read canonical text."""
    rng = random.Random(5)
    out = []
    for i in range(count):
        bias = {
            260 + j: rng.choice([4.0, 8.0]) * len(a + b)
            for j, (a, b) in enumerate(sorted(MERGES, key="".join))
        }
        values = {
            "temperature": 0,
            "max_new_tokens": 100,
            "jump_forward": jump,
            "logit_bias": bias if rng.random() < 0.8 else {},
            **rng.choice(CONSTRAINTS),
        }
        prompt = harness.tokenizer.encode("".join(rng.choices("abname01- ", k=rng.randrange(1, 12))))
        out.append(GenerateRequest(prompt, SamplingParams.from_dict(values), rid=str(i)))
    return out


def takes_what_is_forced(harness: Harness, params: SamplingParams, tokens: list[int]) -> bool:
    """Whether an output has the canonical tokens wherever some are forced."""
    matcher = harness.intake.matcher(params)
    assert matcher is not None
    forced: list[int] = []
    for token in tokens:
        forced = forced or matcher.forced_tokens()
        if forced and token != forced.pop(0):
            return False
        assert matcher.accept_token(token)
    return True


@pytest.mark.parametrize("speculation", [0, 5])
def test_on_and_off_give_the_same_tokens_where_the_model_writes_canonical_ones(
    folder: Path, speculation: int
) -> None:
    harness = Harness(folder, slots=4000, running=16, speculation=speculation)
    off = harness.run(requests(harness, jump=False))
    other = Harness(folder, slots=4000, running=16, speculation=speculation)
    on = other.run(requests(other, jump=True))
    same, count = 0, len(off)
    for request in requests(harness, jump=False):
        a, b = off[request.rid], on[request.rid]
        assert a.error is None and b.error is None and a.usage.forced_tokens == 0 < b.usage.forced_tokens
        assert takes_what_is_forced(harness, request.params, b.token_ids)
        if takes_what_is_forced(harness, request.params, a.token_ids):
            assert a.token_ids == b.token_ids and a.text == b.text
            same += 1
    assert same > count / 6


def test_forced_tokens_are_those_of_the_text_that_became(folder: Path) -> None:
    """Cut together with the token before them, as the tokenizer cuts the whole output from there on."""
    harness = Harness(folder, slots=4000, running=16)
    results = harness.run(requests(harness, jump=True))
    pieces = harness.intake.compiler.vocabulary.token_bytes
    checked = 0
    for request in requests(harness, jump=True):
        tokens = [token for token in results[request.rid].token_ids if pieces[token]]
        matcher = harness.intake.matcher(request.params)
        assert matcher is not None
        for at, token in enumerate(tokens):
            forced = matcher.forced_tokens()
            text = b"".join(pieces[each] or b"" for each in tokens[max(at - 1, 0) :]).decode()
            whole = harness.tokenizer.encode_plain(text)
            if at and whole[0] == tokens[at - 1]:
                assert whole[1 : 1 + len(forced)] == forced
                checked += len(forced)
            assert matcher.accept_token(token)
    assert checked > 2 * len(results)


def test_forced_tokens_take_no_step_of_their_own(folder: Path) -> None:
    for request in requests(Harness(folder), jump=True, count=fewer(40)):
        harness = Harness(folder)
        result = harness.run([request])[request.rid]
        sampled = len(result.token_ids) - result.usage.forced_tokens
        assert harness.core.stats.sampled_tokens == sampled
        assert harness.core.stats.steps == sampled


@pytest.mark.parametrize("stream", [True, False])
def test_outputs_say_which_tokens_were_forced(folder: Path, stream: bool) -> None:
    """c#20: one by one, as the matcher of an independent run over the same tokens says."""
    harness = Harness(folder)
    sent = [replace(request, stream=stream) for request in requests(harness, jump=True, count=fewer(60))]
    results = harness.run(sent)
    for request in sent:
        result = results[request.rid]
        assert result.error is None
        assert result.forced == forced_places(harness, request.params, result.token_ids)
        assert len(result.forced) == result.usage.forced_tokens
    assert sum(len(result.forced) for result in results.values()) > len(sent)


def forced_places(harness: Harness, params: SamplingParams, tokens: list[int]) -> list[int]:
    """Where the constraint left no choice, found by going along the output with a matcher of its own."""
    matcher = harness.intake.matcher(params)
    assert matcher is not None
    places: list[int] = []
    forced = matcher.forced_tokens()
    for place, token in enumerate(tokens):
        if forced:
            assert token == forced.pop(0)
            places.append(place)
            assert matcher.accept_token(token)
        else:
            assert matcher.accept_token(token)
            forced = matcher.forced_tokens()
    return places
