"""Sampling parameters through the whole engine: what they do to outputs, alone and in any batch."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintTooComplex, RequestError
from sgl_like.runtime.constrain import occurrences
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness, Result
from tests.support.interpreted import fewer, some
from tests.support.naive_sampling import edited
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("sampling"))


def request(ids: list[int], rid: str = "r", **values: Any) -> GenerateRequest:
    defaults = {"max_new_tokens": 20, "temperature": 0.0, "ignore_eos": True}
    return GenerateRequest(ids, SamplingParams.from_dict({**defaults, **values}), rid=rid)


def run(folder: Path, ids: list[int], **values: Any) -> Result:
    return Harness(folder).run([request(ids, **values)])["r"]


def naive_greedy(folder: Path, ids: list[int], params: SamplingParams) -> list[int]:
    """Every step anew over the whole sequence, with penalties on the whole vocabulary."""
    from transformers import LlamaForCausalLM

    model, output = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), list[int]()
    for _ in range(params.max_new_tokens):
        with torch.no_grad():
            logits = model(torch.tensor([ids + output])).logits[0, -1].tolist()
        output.append(int(np.argmax(edited(logits, params, ids, output))))
    return output


@pytest.mark.parametrize(
    "values",
    [
        {"frequency_penalty": 1.2},
        {"presence_penalty": 2.0},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6, "frequency_penalty": -1.0},
        {"logit_bias": {"65": 5.5, 66: -100}, "presence_penalty": 0.7},
    ],
)
def test_penalties_against_the_naive_loop(folder: Path, values: dict[str, Any]) -> None:
    ids = [1, 2, 3, 65, 65, 9]
    params = SamplingParams.from_dict({"max_new_tokens": 20, "temperature": 0, "ignore_eos": True, **values})
    assert run(folder, ids, **values).token_ids == naive_greedy(folder, ids, params)


def random_values(rng: random.Random) -> dict[str, Any]:
    return {
        "temperature": rng.choice([0.0, 0.5, 1.0, 2.0]),
        "top_k": rng.choice([-1, -1, 5, 50]),
        "top_p": rng.choice([1.0, 1.0, 0.7]),
        "min_p": rng.choice([0.0, 0.0, 0.1]),
        "frequency_penalty": rng.choice([0, 0, 1.0]),
        "presence_penalty": rng.choice([0, 0, -1.0]),
        "repetition_penalty": rng.choice([1, 1, 1.4]),
        "logit_bias": rng.choice([{}, {rng.randrange(256): 3.0}]),
        "min_new_tokens": rng.choice([0, 3]),
        "bad_words": rng.choice([[], ["a", "xy"]]),
        "regex": rng.choice([None, None, "[a-f]{3,9}", "(abc|abd)+x"]),
        "max_new_tokens": rng.randrange(4, 16),
        "ignore_eos": False,
        "jump_forward": rng.random() < 0.7,
        "seed": rng.randrange(10**6),
    }


@settings(max_examples=fewer(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    slots=st.sampled_from([90, 1000]),
    running=st.integers(1, 12),
    budget=st.sampled_from([5, 64, 500]),
)
def test_outputs_do_not_depend_on_the_batch(
    folder: Path, seed: int, slots: int, running: int, budget: int
) -> None:
    rng = random.Random(seed)
    stem = [rng.randrange(256) for _ in range(30)]
    requests = [
        request([*stem[: rng.randrange(31)], rng.randrange(256)], str(i), **random_values(rng))
        for i in range(10)
    ]
    alone = {one.rid: Harness(folder).run([one])[one.rid] for one in requests}
    results = Harness(folder, slots, running, budget).run(requests, arrive=lambda: rng.random() < 0.4)
    for rid, result in results.items():
        assert (result.token_ids, result.finish, result.text) == (
            alone[rid].token_ids,
            alone[rid].finish,
            alone[rid].text,
        )


def test_min_new_tokens(tmp_path: Path) -> None:
    folder = make_model(tmp_path, eos_token_id=[256, *range(128)])
    for least in (0, 1, 5, 20):
        result = run(folder, [200, 201], min_new_tokens=least, ignore_eos=False)
        assert len(result.token_ids) > least or least == 20
        ends = [i for i, token in enumerate(result.token_ids) if token < 128 or token == 256]
        assert not ends or ends == [len(result.token_ids) - 1]
    stopped = run(folder, [200, 201], min_new_tokens=4, stop_token_ids=list(range(128, 250)))
    assert not any(128 <= token < 250 for token in stopped.token_ids[:4])


def test_a_constraint_wins_over_min_new_tokens_and_bans(folder: Path) -> None:
    short = run(folder, [1], regex="abc", min_new_tokens=10, jump_forward=False, ignore_eos=False)
    assert short.text == "abc" and short.finish is not None and short.finish.type == "stop"
    long = run(folder, [1], regex="[ab]{0,15}", min_new_tokens=10, ignore_eos=False)
    assert len(long.token_ids) >= 10
    forced = run(folder, [1], regex="x[ab]", bad_words=["xa", "xb", "x"], jump_forward=False)
    assert forced.text in ("xa", "xb") and forced.error is None
    avoided = run(folder, [1], regex="x[ab]{9}", bad_words=["a"])
    assert avoided.text == "x" + "b" * 9
    lifted = run(folder, [1], regex="[ab]{5}", logit_bias={ord("c"): 100, ord("a"): -100, ord("b"): -100})
    assert set(lifted.text) <= {"a", "b"} and len(lifted.text) == 5


def test_bad_words_never_occur(folder: Path) -> None:
    free = run(folder, [5, 6], max_new_tokens=60, temperature=1.5, seed=3)
    word = bytes(token for token in free.token_ids if token < 256)[10:13].decode("latin-1")
    data = word.encode()
    for seed in some(range(20)):
        result = run(folder, [5, 6], max_new_tokens=60, temperature=1.5, bad_words=[word, "e"], seed=seed)
        text = bytes(token for token in result.token_ids if token < 256)
        assert data not in text and b"e" not in text


def test_only_allowed_tokens_are_sampled(folder: Path) -> None:
    for options in ({"temperature": 0}, {"temperature": 1.5, "seed": 3}):
        result = run(folder, [5, 6], max_new_tokens=30, allowed_token_ids=[7, 9, 11], **options)
        assert set(result.token_ids) <= {7, 9, 11}
        assert len(result.token_ids) == 30
    held = run(folder, [1], regex="[ab]{5}", allowed_token_ids=[ord("a"), ord("c")], jump_forward=False)
    assert held.text == "aaaaa"
    with pytest.raises(RequestError, match="allowed_token_ids: 99999 is outside"):
        run(folder, [1], allowed_token_ids=[99999])


@pytest.mark.parametrize("keep", [False, True])
def test_stop_regex(folder: Path, keep: bool) -> None:
    values = {"max_new_tokens": 60, "temperature": 1.5, "seed": 5, "regex": "[a-f0-9 ]{55}"}
    free = run(folder, [5, 6], **values).text
    pattern = r"[a-f]\d+[a-f ]"
    assert len(free) == 55
    match = next(m for end in range(len(free) + 1) if (m := re.search(pattern, free[:end])))
    asked = request([5, 6], stop_regex=["zzz", pattern], no_stop_trim=keep, **values)
    for stream in (False, True):
        stopped = Harness(folder).run([replace(asked, stream=stream)])["r"]
        assert stopped.finish is not None and stopped.finish.matched == pattern
        assert stopped.text == free[: match.end() if keep else match.start()]


def test_a_stop_regex_that_grows_too_large_ends_its_request_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = occurrences.Pattern.step

    def limited(self: occurrences.Pattern, state: Any, character: bytes) -> Any:
        if character == b"!":
            raise ConstraintTooComplex("too large")
        return step(self, state, character)

    monkeypatch.setattr(occurrences.Pattern, "step", limited)
    bad = request([5], "bad", stop_regex=["ax"], regex="[ab]{4}![ab]{9}")
    results = Harness(folder).run([bad, request([7], "good")])
    assert results["good"].error is None
    assert isinstance(results["bad"].error, ConstraintTooComplex) and len(results["bad"].token_ids) >= 5


@pytest.mark.parametrize(
    "values, message",
    [
        ({"stop_regex": "("}, r"stop_regex: regex '\(': missing \), unterminated subpattern at position 0"),
        ({"stop_regex": ["a", "b*"]}, r"stop_regex: regex 'b\*' matches the empty string"),
        ({"stop_token_ids": [10**6]}, "stop_token_ids: 1000000 is outside the vocabulary"),
        ({"logit_bias": {"99999": 1}}, "logit_bias: 99999 is outside the vocabulary"),
        ({"n": 2}, "n=2: one request is one output"),
        ({"min_new_tokens": 1, "stop_token_ids": list(range(260))}, "leave no token"),
    ],
)
def test_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run(folder, [1], **values)
