"""Log-probabilities of prompt, sampled and forced tokens are those of the model, whatever the engine does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.errors import RequestError, SamplingParamsError
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.logprobs import NO_TOKEN, LogprobParams
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.interpreted import fewer
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("logprobs"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def expected(model: Any, sequence: list[int]) -> torch.Tensor:
    """Log-probabilities of all tokens at places 1, 2, ... : ``[len - 1, vocab]``."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([sequence])).logits[0], dim=-1)[:-1]


REGEXES = [None, None, "[a-f]{3,9}", "abcdef[gh]", "(abc|abd)+x", "whole"]


@settings(max_examples=fewer(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    slots=st.sampled_from([90, 1000]),
    running=st.integers(1, 12),
    budget=st.sampled_from([5, 64, 500]),
    reuse=st.booleans(),
)
def test_every_place_against_the_reference(
    folder: Path, model: Any, seed: int, slots: int, running: int, budget: int, reuse: bool
) -> None:
    rng = random.Random(seed)
    stem = [rng.randrange(256) for _ in range(30)]
    requests = []
    for i in range(8):
        ids = [*stem[: rng.randrange(31)], *(rng.randrange(256) for _ in range(rng.randrange(1, 9)))]
        regex = rng.choice(REGEXES)
        least = 7 if regex is not None and rng.random() < 0.9 else 0  # the longest that one of them needs
        values = {
            "temperature": rng.choice([0.0, 1.3]),
            "repetition_penalty": rng.choice([1.0, 1.5]),
            "regex": regex,
            "max_new_tokens": rng.randrange(least, 12) if regex is None or least else 0,
        }
        start = rng.choice([None, 0, rng.randrange(len(ids) + 1)])
        wanted = LogprobParams(start, rng.choice([0, 3]), rng.choice([(), (7, 9)]))
        if rng.random() < 0.2:
            wanted = None
        requests.append(
            GenerateRequest(
                ids, SamplingParams.from_dict(values), wanted, rid=str(i), stream=rng.random() < 0.5
            )
        )
    harness = Harness(folder, slots, running, budget, reuse)
    results = harness.run(requests, arrive=lambda: rng.random() < 0.4)
    for request in requests:
        result, wanted = results[request.rid], request.logprobs
        assert result.error is None
        if wanted is None:
            assert not result.prompt_logprobs and not result.output_logprobs
            continue
        sequence = [*request.input_ids, *result.token_ids]
        start = len(request.input_ids) if wanted.start is None else wanted.start
        places = [*result.prompt_logprobs, *result.output_logprobs]
        asks_next = request.params.max_new_tokens == 0 and bool(wanted.top or wanted.token_ids)
        assert len(result.output_logprobs) == len(result.token_ids) + asks_next
        if asks_next:
            assert places[-1].token == NO_TOKEN and len(places[-1].top) == wanted.top
            places.pop()
        assert [place.token[1] for place in places] == sequence[start:]
        rows = expected(model, sequence)
        for at, place in enumerate(places, start):
            if at == start and wanted.start is not None and at < len(request.input_ids):
                assert place.token[0] is None and not place.top
                continue
            row = rows[at - 1]
            assert place.token[0] == pytest.approx(float(row[sequence[at]]), abs=1e-3)
            assert [x for x, _, _ in place.top] == pytest.approx(
                row.topk(wanted.top).values.tolist(), abs=1e-3
            )
            assert [(x, token) for x, token, _ in place.asked] == [
                (pytest.approx(float(row[token]), abs=1e-3), token) for token in wanted.token_ids
            ]
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == slots


@pytest.fixture(scope="module")
def engine(folder: Path) -> Any:
    with Engine(folder, dtype="float32", kv_cache_memory=1 << 22) as engine:
        yield engine


def test_sglang_forms(engine: Engine) -> None:
    result = engine.generate(
        "ab",
        {"max_new_tokens": 3, "temperature": 0, "ignore_eos": True},
        return_logprob=True,
        logprob_start_len=0,
        top_logprobs_num=2,
        token_ids_logprob=[5],
        return_text_in_logprobs=True,
    )
    meta = result["meta_info"]
    assert meta["input_token_logprobs"][0] == (None, ord("a"), "a")
    assert [token for _, token, _ in meta["input_token_logprobs"]] == [ord("a"), ord("b")]
    assert [token for _, token, _ in meta["output_token_logprobs"]] == result["output_ids"]
    assert meta["output_top_logprobs"][0][0] == meta["output_token_logprobs"][0]
    assert meta["input_top_logprobs"][0] is None and len(meta["input_top_logprobs"][1]) == 2
    assert [[token for _, token, _ in row] for row in meta["output_token_ids_logprobs"]] == [[5]] * 3


def test_what_could_come_next_without_sampling(engine: Engine) -> None:
    told = engine.generate("ab", {"max_new_tokens": 0}, return_logprob=True, top_logprobs_num=3)["meta_info"]
    one = engine.generate(
        "ab", {"max_new_tokens": 1, "temperature": 0}, return_logprob=True, top_logprobs_num=3
    )["meta_info"]
    assert told["output_token_logprobs"] == [] and told["completion_tokens"] == 0
    assert told["output_top_logprobs"] == one["output_top_logprobs"]


def test_a_list_has_one_for_each_prompt(engine: Engine) -> None:
    params = {"max_new_tokens": 2, "temperature": 0, "ignore_eos": True}
    a, b, c = engine.generate(
        ["x", "y", "z"],
        params,
        return_logprob=[True, False, True],
        top_logprobs_num=[0, 0, 4],
        token_ids_logprob=[[1], None, [2, 3]],
    )
    assert "output_token_logprobs" not in b["meta_info"] and "output_top_logprobs" not in a["meta_info"]
    assert len(c["meta_info"]["output_top_logprobs"][1]) == 4
    assert [t for _, t, _ in c["meta_info"]["output_token_ids_logprobs"][0]] == [2, 3]
    assert a["meta_info"]["input_token_logprobs"] == []


def test_a_stream_ends_with_all_of_them(engine: Engine) -> None:
    params = {"max_new_tokens": 10, "temperature": 0, "regex": "[a-c]{2}def[a-c]{2}xyz"}
    whole = engine.generate("q", params, return_logprob=True, logprob_start_len=0)
    *_, last = engine.generate("q", params, stream=True, return_logprob=True, logprob_start_len=0)
    for name in ("input_token_logprobs", "output_token_logprobs"):
        assert [t for _, t, _ in whole["meta_info"][name]] == [t for _, t, _ in last["meta_info"][name]]
    assert len(last["meta_info"]["output_token_logprobs"]) == len(last["output_ids"]) == 10
    assert whole["meta_info"]["forced_tokens"] > 0


def test_several_outputs_share_the_prompt(engine: Engine) -> None:
    engine.flush_cache()
    before = engine.stats()["computed_tokens"]
    prompt = "a prompt that is computed once: " * 5
    params = {"max_new_tokens": 5, "n": 4, "seed": 3, "ignore_eos": True, "temperature": 2.0}
    results = engine.generate(prompt, params)
    assert (
        engine.stats()["computed_tokens"] - before == len(prompt) + 4 * 4 + 3
    )  # the last of a prompt always is
    outputs = [tuple(result["output_ids"]) for result in results]
    assert len(set(outputs)) == 4
    assert [tuple(r["output_ids"]) for r in engine.generate(prompt, params)] == outputs
    first = engine.generate(prompt, {**params, "n": 1})
    assert tuple(first["output_ids"]) == outputs[0]
    both = engine.generate([prompt, "b"], {**params, "n": 2})
    assert [tuple(r["output_ids"]) for r in both[:2]] == outputs[:2] and len(both) == 4


@pytest.mark.parametrize(
    "values, message",
    [
        ({"return_logprob": 1}, "return_logprob must be True or False, not 1"),
        (
            {"return_logprob": True, "top_logprobs_num": 21},
            "top_logprobs_num must be between 0 and 20, not 21",
        ),
        ({"return_logprob": True, "logprob_start_len": -2}, "logprob_start_len must be at least -1, not -2"),
        (
            {"return_logprob": True, "logprob_start_len": 3},
            "logprob_start_len must be at most the prompt's length 2",
        ),
        ({"return_logprob": True, "token_ids_logprob": ["x"]}, "token_ids_logprob entry must be an integer"),
        ({"return_logprob": True, "token_ids_logprob": [10**6]}, "token_ids_logprob: 1000000 is outside"),
    ],
)
def test_bad_values(engine: Engine, values: dict[str, Any], message: str) -> None:
    with pytest.raises((SamplingParamsError, RequestError), match=message):
        engine.generate("ab", {"max_new_tokens": 1}, **values)


def test_lists_of_the_wrong_length(engine: Engine) -> None:
    with pytest.raises(RequestError, match="return_logprob is a list of 1 for 2 prompts"):
        engine.generate(["a", "b"], return_logprob=[True])
    with pytest.raises(RequestError, match=r"n must be the same for all prompts of a call, not \[1, 2\]"):
        engine.generate(["a", "b"], [{"n": 1}, {"n": 2}])
