"""Speculative decoding: with drafts, every output is what it is without them."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConfigError
from sgl_like.runtime.config import EngineConfig
from sgl_like.runtime.engine.drafts import LONGEST_PAUSE, DraftLength, ngram_draft
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.engine.speculation import SIZES
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.models.load import EMBEDDED_MODEL
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness, Result
from tests.support.interpreted import fewer
from tests.support.small_model import make_model

SCHEMA = {
    "type": "object",
    "properties": {"ab": {"type": "integer"}, "c": {"enum": ["x", "yz"]}, "long name": {"type": "string"}},
    "required": ["long name", "ab"],
}
CONSTRAINTS: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {"regex": "(abc){3,9}x"}, {"regex": "((abc|abd)-){3,5}"}, {"json_schema": SCHEMA},
    {"json_schema": SCHEMA, "jump_forward": False}, {"ebnf": 'root ::= "(ab" root ")" | [0-9a-f]{1,3} | root "+"'},
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers add little, so that outputs soon go in circles. Its logits are small."""
    return make_model(tmp_path_factory.mktemp("speculation"), scale=0.02)


def params_of(rng: random.Random) -> SamplingParams:
    values = {
        "max_new_tokens": rng.randrange(40, 70),
        "temperature": rng.choice([0.0, 0.0, 0.01, 0.03]),
        "top_k": rng.choice([-1, 3]),
        "repetition_penalty": rng.choice([1.0, 1.0, 1.02]),
        "frequency_penalty": rng.choice([0.0, 0.0, 0.005]),
        "min_new_tokens": rng.choice([0, 20]),
        "ignore_eos": rng.random() < 0.5,
        "stop": rng.choice([[], [], ["a", "xy"], [" "]]),
        "stop_token_ids": rng.choice([[], [5, 9]]),
        "bad_words": rng.choice([[], [], ["ab"]]),
        "seed": rng.randrange(1000),
        **rng.choice(CONSTRAINTS),
    }
    return SamplingParams.from_dict(values)


def workload(seed: int, count: int) -> list[GenerateRequest]:
    rng = random.Random(seed)
    out = []
    for i in range(count):
        words = [[rng.randrange(256) for _ in range(rng.randrange(1, 6))] for _ in range(3)]
        prompt = [token for _ in range(rng.randrange(1, 12)) for token in rng.choice(words)]
        wanted = LogprobParams(rng.choice([None, 0]), 2, ()) if rng.random() < 0.3 else None
        out.append(GenerateRequest(prompt, params_of(rng), wanted, rid=str(i), stream=rng.random() < 0.5))
    return out


def assert_same(found: Result, wanted: Result) -> None:
    assert found.error is None and wanted.error is None
    assert (found.token_ids, found.text, found.finish) == (wanted.token_ids, wanted.text, wanted.finish)
    assert found.usage.forced_tokens == wanted.usage.forced_tokens
    for a, b in (
        (found.prompt_logprobs, wanted.prompt_logprobs),
        (found.output_logprobs, wanted.output_logprobs),
    ):
        assert [place.token[1] for place in a] == [place.token[1] for place in b]
        values = [(x.token[0], y.token[0]) for x, y in zip(a, b, strict=True) if x.token[0] is not None]
        assert all(x == pytest.approx(y, abs=1e-3) for x, y in values)


@settings(max_examples=fewer(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    slots=st.sampled_from([150, 200, 1000]),
    running=st.integers(1, 12),
    budget=st.sampled_from([5, 17, 64]),
    reuse=st.booleans(),
    page_size=st.sampled_from([1, 1, 4, 16]),
    most=st.sampled_from([1, 3, 8]),
    sizes=st.sampled_from([SIZES, range(50, 0, -1)]),
)
def test_outputs_are_those_without_drafts(
    folder: Path,
    seed: int,
    slots: int,
    running: int,
    budget: int,
    reuse: bool,
    page_size: int,
    most: int,
    sizes: Any,
) -> None:
    requests = workload(seed, 8)
    expected = {}
    for request in requests:
        expected.update(Harness(folder, slots=150, budget=1000).run([request]))
    rng = random.Random(seed)
    harness = Harness(folder, slots, running, budget, reuse, page_size, speculation=most, sizes=sizes)
    results = harness.run(requests, arrive=lambda: rng.random() < 0.4)
    for rid, result in results.items():
        assert_same(result, expected[rid])
        assert 0 <= result.usage.accepted_tokens <= result.usage.draft_tokens
    stats = harness.core.stats
    assert stats.accepted_tokens == sum(result.usage.accepted_tokens for result in results.values())
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == harness.memory.size


def test_retraction_with_drafts(folder: Path) -> None:
    requests = [
        GenerateRequest(
            [i, i + 1] * 10, SamplingParams(max_new_tokens=40, temperature=0, ignore_eos=True), rid=str(i)
        )
        for i in range(8)
    ]
    harness = Harness(folder, slots=70, speculation=8, sizes=range(50, 0, -1))
    results = harness.run(requests)
    assert harness.scheduler.retracted_total > 0 and harness.core.stats.accepted_tokens > 0
    for request in requests:
        assert results[request.rid].token_ids == Harness(folder).run([request])[request.rid].token_ids


def test_a_repeating_output_takes_fewer_steps(folder: Path) -> None:
    params = SamplingParams(max_new_tokens=100, temperature=0, ignore_eos=True)
    request = GenerateRequest([7, 8, 9] * 5, params, rid="r")
    plain, fast = Harness(folder), Harness(folder, speculation=8)
    assert plain.run([request])["r"].token_ids == fast.run([request])["r"].token_ids
    assert fast.core.stats.steps < 0.7 * plain.core.stats.steps
    usage = fast.results["r"].usage
    assert fast.core.stats.steps == 100 - usage.accepted_tokens + (
        usage.accepted_tokens + fast.core.stats.steps - 100
    )


def test_rejected_tokens_are_never_in_the_tree(folder: Path) -> None:
    """What is cached afterwards gives the same continuation as a fresh engine."""
    for request in workload(3, 6):
        harness = Harness(folder, speculation=8)
        first = harness.run([request])[request.rid]
        longer = [*request.input_ids, *first.token_ids]
        params = SamplingParams(max_new_tokens=10, temperature=0, ignore_eos=True)
        again = GenerateRequest(longer, params, rid="again")
        assert harness.run([again])["again"].token_ids == Harness(folder).run([again])["again"].token_ids


def test_distributions_stay_the_same(folder: Path) -> None:
    """The same seeds, so the very same draws: not only in distribution."""
    requests = [
        GenerateRequest(
            [3, 4, 5] * 6,
            SamplingParams(max_new_tokens=25, temperature=0.01, seed=seed, ignore_eos=True),
            rid=str(seed),
        )
        for seed in range(40)
    ]
    plain = Harness(folder, slots=3000).run(requests)
    fast = Harness(folder, slots=3000, speculation=4, sizes=range(50, 0, -1)).run(requests)
    assert sum(result.usage.accepted_tokens for result in fast.values()) > 20
    assert len({tuple(result.token_ids) for result in plain.values()}) > 10
    assert {rid: r.token_ids for rid, r in plain.items()} == {rid: r.token_ids for rid, r in fast.items()}


def test_the_embedded_model_copies_in_fewer_steps() -> None:
    text = "play songs by Clem Burke on the playlist Pre-Party R&B Jams"
    prompt = f"<|system|>Turn the utterance into JSON.<|end|><|user|>{text}<|end|><|assistant|>"
    outputs: list[tuple[Result, int]] = []
    for most in (0, 8):
        harness = Harness(EMBEDDED_MODEL, speculation=most)
        schema = json.dumps(
            {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 2}
        )
        params = SamplingParams(temperature=0, json_schema=schema, max_new_tokens=100)
        ids = harness.tokenizer.encode(prompt)
        outputs.append((harness.run([GenerateRequest(ids, params, rid="r")])["r"], harness.core.stats.steps))
    assert outputs[0][0].token_ids == outputs[1][0].token_ids
    assert outputs[1][1] < outputs[0][1]


def naive_draft(tokens: list[int], most: int) -> list[int]:
    for size in (4, 3, 2):
        tail = tokens[-size:]
        if len(tail) < size:
            continue
        places = [end for end in range(size, len(tokens)) if tokens[end - size : end] == tail]
        full = [end for end in places if end + most <= len(tokens)]
        if places:
            at = full[-1] if full else places[0]
            return tokens[at : at + most]
    return []


@given(st.lists(st.integers(0, 3), max_size=40).map(lambda tokens: [1, *tokens]), st.integers(1, 8))
@settings(max_examples=500, deadline=None)
def test_drafts_follow_the_longest_match(tokens: list[int], most: int) -> None:
    assert ngram_draft(np.array(tokens, dtype=np.int32), most) == naive_draft(tokens, most)


def test_drafts_that_fail_become_rare_and_those_that_succeed_long() -> None:
    length = DraftLength()
    tried = 0
    for _ in range(1000):
        if length.ready():
            tried += 1
            length.learn(length.length, 0, 8)
    assert 10 < tried < 30 and length.length == 1 and length.pause <= LONGEST_PAUSE
    while not length.ready():
        pass
    for wanted in (3, 5, 7, 8, 8):
        length.learn(length.length, length.length, 8)
        assert length.length == wanted and length.ready()


@cache
def engines(folder: Path) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {}
    for speculation in ("off", "ngram"):
        with Engine(folder, dtype="float32", kv_cache_memory=1 << 22, speculation=speculation) as engine:
            params = {"max_new_tokens": 30, "temperature": 0.01, "n": 3, "seed": 5, "ignore_eos": True}
            results = engine.generate(["abcabcabcabc"], params)
            out[speculation] = [results, engine.stats()]
    return out


def test_engine_option_and_counts(folder: Path) -> None:
    (plain, before), (fast, stats) = engines(folder)["off"], engines(folder)["ngram"]
    assert [each["output_ids"] for each in plain] == [each["output_ids"] for each in fast]
    assert before["draft_tokens"] == 0 < stats["draft_tokens"]
    for name in ("draft_tokens", "accepted_tokens"):
        assert stats[name] == sum(each["meta_info"][name] for each in fast)
    with pytest.raises(ConfigError, match="speculation must be one of 'off', 'ngram'"):
        EngineConfig(speculation="on")
    with pytest.raises(ConfigError, match="speculation_tokens must be an integer of at least 1"):
        EngineConfig(speculation_tokens=0)
