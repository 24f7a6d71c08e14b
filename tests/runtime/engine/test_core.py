"""The step loop: the same greedy tokens whatever the batch, cache, chunks and pressure; invariants after each step."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.interpreted import fewer
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("core"))


def greedy(ids: list[int], new: int, rid: str = "r", **params: object) -> GenerateRequest:
    values = {"max_new_tokens": new, "temperature": 0.0, "ignore_eos": True, **params}
    return GenerateRequest(ids, SamplingParams.from_dict(values), rid=rid)


def workload(rng: random.Random, count: int) -> list[GenerateRequest]:
    """Requests which share prefixes of one another."""
    stems = [[rng.randrange(256) for _ in range(40)] for _ in range(3)]
    out = []
    for i in range(count):
        prompt = rng.choice(stems)[: rng.randrange(41)] + [
            rng.randrange(256) for _ in range(rng.randrange(1, 20))
        ]
        regex = rng.choice([None, None, None, "[a-f]{3,9}", "(abc|abd)+x"])
        least = 4 if regex else 1  # tokens that an output of these needs
        out.append(greedy(prompt, rng.randrange(least, 24), str(i), regex=regex, jump_forward=False))
    return out


@settings(max_examples=fewer(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    slots=st.sampled_from([90, 130, 1000]),
    running=st.integers(1, 12),
    budget=st.sampled_from([5, 17, 64, 500]),
    reuse=st.booleans(),
    page_size=st.sampled_from([1, 1, 4, 16]),
)
def test_same_greedy_tokens_as_one_at_a_time(
    folder: Path, seed: int, slots: int, running: int, budget: int, reuse: bool, page_size: int
) -> None:
    rng = random.Random(seed)
    requests = workload(rng, 14)
    expected = {}
    for request in requests:
        expected.update(Harness(folder, slots=100, budget=1000).run([request]))
    harness = Harness(folder, slots, running, budget, reuse, page_size)
    results = harness.run(requests, arrive=lambda: rng.random() < 0.4)
    for rid, result in results.items():
        assert result.token_ids == expected[rid].token_ids
        assert (result.finish, result.text) == (expected[rid].finish, expected[rid].text)
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == harness.memory.size


def test_tiny_pool_retracts_and_still_finishes_everything(folder: Path) -> None:
    requests = [greedy([i] * 20, 40, str(i)) for i in range(8)]
    harness = Harness(folder, slots=70)
    results = harness.run(requests)
    assert harness.scheduler.retracted_total > 0
    for request in requests:
        assert results[request.rid].token_ids == Harness(folder).run([request])[request.rid].token_ids


def test_the_oldest_request_is_never_retracted(folder: Path) -> None:
    harness = Harness(folder, slots=70)
    results = harness.run([greedy([i] * 20, 40, str(i)) for i in range(6)])
    assert next(iter(results)) == "0"  # the first event of all is the end of the oldest


def test_finished_prefixes_are_reused(folder: Path) -> None:
    harness = Harness(folder)
    first = harness.run([greedy(list(range(50)), 10, "a")])["a"]
    again = harness.run([greedy(list(range(50)) + first.token_ids + [7], 5, "b")])["b"]
    assert first.usage.cached_tokens == 0 and first.usage.prompt_tokens == 50
    assert again.usage.cached_tokens == 59  # all computed tokens; the last sampled one was not
    off = Harness(folder, reuse=False)
    off.run([greedy(list(range(50)), 10, "a")])
    assert off.run([greedy(list(range(50)), 10, "b")])["b"].usage.cached_tokens == 0


def test_a_prefix_that_arrives_many_times_at_once_is_computed_once(folder: Path) -> None:
    harness = Harness(folder, running=16, budget=500)
    stem = list(range(100))
    harness.run([greedy([*stem, 200 + i], 2, str(i)) for i in range(10)])
    assert harness.core.stats.computed_tokens == 100 + 10 * 2


def test_stop_token_stop_string_and_length(folder: Path) -> None:
    free = Harness(folder).run([greedy([1, 2, 3], 30)])["r"]
    token = free.token_ids[10]
    at = free.token_ids.index(token)
    stopped = Harness(folder).run([greedy([1, 2, 3], 30, stop_token_ids=[token])])["r"]
    assert stopped.token_ids == free.token_ids[: at + 1]
    assert stopped.finish is not None and stopped.finish.as_dict() == {"type": "stop", "matched": token}
    text = free.text[4:7]
    cut = Harness(folder).run([greedy([1, 2, 3], 30, stop=[text])])["r"]
    assert cut.text == free.text[: free.text.find(text)]
    assert cut.finish is not None and cut.finish.matched == text
    assert free.finish is not None and free.finish.as_dict() == {"type": "length"}


def test_end_of_sequence_token(tmp_path: Path) -> None:
    folder = make_model(tmp_path, eos_token_id=[256, *range(128)])
    ended = Harness(folder).run([greedy([1, 2, 3], 30, ignore_eos=False)])["r"]
    free = Harness(folder).run([greedy([1, 2, 3], 30)])["r"]
    assert (
        ended.finish is not None
        and ended.finish.type == "stop"
        and ended.finish.matched == ended.token_ids[-1]
    )
    assert len(free.token_ids) == 30 and free.token_ids[: len(ended.token_ids)] == ended.token_ids


def test_context_length_ends_a_request(folder: Path) -> None:
    result = Harness(folder).run([greedy([1] * 250, 100)])["r"]
    assert len(result.token_ids) == 6 and result.finish is not None and result.finish.type == "length"


@pytest.mark.parametrize("steps", range(0, 9))
def test_abort_at_any_stage_frees_everything(folder: Path, steps: int) -> None:
    harness = Harness(folder, slots=100, running=2, budget=20)
    for i in range(4):
        harness.add(greedy([i] * 30, 20, str(i)))
    for _ in range(steps):
        harness.step()
    for i in range(4):
        harness.core.abort(str(i))
        harness.core.abort("unknown")
        harness.core.check_invariants()
    for result in harness.results.values():
        assert result.finish is not None and result.finish.type in ("abort", "length")
    assert not harness.core.has_work and len(harness.results) == 4
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == 100


def test_streams_join_to_the_whole(folder: Path) -> None:
    whole = Harness(folder).run([greedy([5, 6], 40)])["r"]
    request = greedy([5, 6], 40)
    streamed = Harness(folder).run(
        [GenerateRequest(request.input_ids, request.params, stream=True, rid="r")]
    )["r"]
    assert (streamed.text, streamed.token_ids) == (whole.text, whole.token_ids)
    assert streamed.events > 20 and whole.events == 1


def test_a_failing_step_ends_only_its_own_requests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(folder, running=2)
    for i in range(3):
        harness.add(greedy([i] * 10, 5, str(i)))

    def broken(*_: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(harness.core._runner), "forward", broken)
        harness.step()
    failed = [rid for rid, result in harness.results.items() if result.error is not None]
    assert failed == ["0", "1"] and "no memory" in str(harness.results["0"].error)
    assert harness.run([])["2"].token_ids == Harness(folder).run([greedy([2] * 10, 5)])["r"].token_ids


def test_a_receiver_that_raises_harms_nobody(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = Harness(folder)

    def bad(_: object) -> None:
        raise ValueError("client bug")

    harness.core.add(harness.intake.admit(greedy([1], 3, "bad"), bad))
    assert len(harness.run([greedy([1], 3, "good")])["good"].token_ids) == 3
    assert "the receiver of request bad failed" in caplog.text


def test_longest_cached_prefix_goes_first_and_nobody_starves(folder: Path) -> None:
    harness = Harness(folder, running=1)
    harness.run([greedy(list(range(60)), 1, "warm")])
    requests = [greedy([200] * 30, 1, "cold"), greedy([*range(60), 9], 1, "hot")]
    order = list(harness.run(requests))
    assert order == ["warm", "hot", "cold"]
    harness = Harness(folder, running=1)
    harness.add(greedy([200] * 5, 1, "cold"))
    for i in range(150):  # ever new requests with a better prefix
        harness.add(greedy([*range(20), i], 1, str(i)))
        harness.step()
    assert "cold" in harness.results
