"""Scores of choices are those of each alone, and what choices share is computed once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sgl_like as sgl
from sgl_like.errors import RequestError
from sgl_like.runtime.engine.choices import split_choices
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.interpreted import fewer
from tests.support.small_model import make_model

NOTHING = SamplingParams(max_new_tokens=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("choices"))


def alone(folder: Path, prompt: list[int], choice: tuple[int, ...]) -> list[float]:
    """A choice scored as the end of a prompt, in an engine of its own."""
    wanted = LogprobParams(start=len(prompt) - 1)
    request = GenerateRequest([*prompt, *choice], NOTHING, wanted, rid="r")
    places = Harness(folder, budget=1000).run([request])["r"].prompt_logprobs[1:]
    return [place.token[0] for place in places if place.token[0] is not None]


def inner(choices: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Non-empty prefixes after which some choice goes on: what has to be computed, and no more."""
    return {choice[:i] for choice in choices for i in range(1, len(choice))}


def trie(choices: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {choice[:i] for choice in choices for i in range(1, len(choice) + 1)}


few = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)


@settings(max_examples=fewer(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    choices=st.lists(few, min_size=1, max_size=8),
    length=st.integers(1, 30),
    slots=st.sampled_from([80, 1000]),
    running=st.sampled_from([2, 16]),
    budget=st.sampled_from([4, 500]),
    reuse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_scores_are_those_of_each_alone(
    folder: Path,
    choices: list[tuple[int, ...]],
    length: int,
    slots: int,
    running: int,
    budget: int,
    reuse: bool,
    seed: int,
) -> None:
    rng = random.Random(seed)
    prompt = [rng.randrange(256) for _ in range(length)]
    harness = Harness(folder, slots, running, budget, reuse)
    result = harness.run([GenerateRequest(prompt, NOTHING, choices=choices, rid="r")])["r"]
    assert result.choice_logprobs is not None and result.events == 1
    for row, choice in zip(result.choice_logprobs, choices, strict=True):
        assert list(row) == pytest.approx(alone(folder, prompt, choice), abs=1e-5)
    computed = harness.core.stats.computed_tokens
    assert result.usage.computed_tokens == computed
    assert result.usage.prompt_tokens == length + len(trie(choices))
    if reuse and slots == 1000:
        assert length + len(inner(choices)) <= computed <= length + len(trie(choices))
    if reuse and slots == 1000 and running == 16 and budget == 500:
        assert harness.core.stats.steps == 1
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == slots


def test_one_pass_over_the_trie_after_a_cached_prompt(folder: Path) -> None:
    prompt, shared = list(range(100, 160)), list(range(20))
    choices = [(*shared, i, *range(30, 35)) for i in range(10)]
    harness = Harness(folder, running=16, budget=500)
    harness.run([GenerateRequest(prompt, SamplingParams(max_new_tokens=1), rid="warm")])
    before = harness.core.stats.computed_tokens, harness.core.stats.steps
    result = harness.run([GenerateRequest(prompt, NOTHING, choices=choices, rid="r")])["r"]
    assert harness.core.stats.steps - before[1] == 1
    # the last token of the prompt again, for the first places; then the trie: one at a time it would be 10 * 27
    assert harness.core.stats.computed_tokens - before[0] == 1 + len(trie(choices)) == 1 + 20 + 10 * 6
    assert result.usage.cached_tokens == 59 and result.usage.computed_tokens == 81


@pytest.mark.parametrize(
    "values, message",
    [
        ({"choices": [(1,), ()]}, "a choice is empty"),
        ({"choices": [(1,)], "logprobs": LogprobParams()}, "is only scored"),
        ({"choices": [(1,)], "params": SamplingParams()}, "is only scored"),
        ({"choices": [(1,), (10**6,)]}, "choices: 1000000 is outside the vocabulary"),
        ({"choices": [(1,) * 300]}, "the prompt has 301 tokens"),
    ],
)
def test_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    harness = Harness(folder)
    with pytest.raises(RequestError, match=message):
        harness.add(GenerateRequest([1], **{"params": NOTHING, **values}))
    assert not harness.core.has_work


def test_one_terminal_event_when_it_is_aborted(folder: Path) -> None:
    harness = Harness(folder)
    request = GenerateRequest([1, 2], NOTHING, choices=[(1, 2, 3), (1, 4, 5)], rid="r")
    harness.add(request)
    for part, _ in split_choices(request, lambda output: None):
        harness.core.abort(part.rid)
    result = harness.results["r"]
    assert result.events == 1 and result.finish is not None and result.finish.type == "abort"


def test_select_through_an_engine(folder: Path) -> None:
    @sgl.function
    def pick(s: Any) -> None:
        s += "some prompt " + sgl.select("c", ["yes", "yes, but", "no", "never"])

    with Engine(folder, dtype="float32", kv_cache_memory=1 << 22) as engine:
        state = pick.run(backend=sgl.Runtime.from_engine(engine))
        meta = state.get_meta_info("c")
        assert meta is not None and sum(meta["choice_probs"].values()) == pytest.approx(1)
        assert meta["computed_tokens"] == state.usage.computed_tokens <= meta["prompt_tokens"]
        assert meta["prompt_tokens"] == len("some prompt ") + len("yes, but") + len("no") + len("ever")
        engine.abort("unknown")
        engine.check_invariants()
        for row, choice in zip(meta["input_token_logprobs"], ["yes", "yes, but", "no", "never"], strict=True):
            prompt = [*b"some prompt "]
            assert [x for x, _, _ in row] == pytest.approx(
                alone(folder, prompt, tuple(choice.encode())), abs=1e-5
            )


def test_a_group_is_aborted_by_its_own_id(folder: Path) -> None:
    import threading

    events: list[Any] = []
    ended = threading.Event()

    def receive(output: Any) -> None:
        events.append(output)
        ended.set()

    with Engine(folder, dtype="float32", kv_cache_memory=1 << 22, max_batch_tokens=16) as engine:
        ids = torch.randint(0, 256, (200,)).tolist()
        request = GenerateRequest(ids, NOTHING, choices=[(1, 2, 3), (1, 4, 5)], rid="r")
        engine.submit(request, receive)
        engine.abort("r")
        assert ended.wait(20)
        engine.check_invariants()
        assert len(events) == 1 and events[0].rid == "r" and not engine._in_flight
