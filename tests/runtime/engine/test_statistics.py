"""What the engine counts and measures about itself and its requests."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sgl_like.errors import ConstraintError
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.engine.info import read_stats
from sgl_like.runtime.engine.statistics import Histogram
from sgl_like.runtime.protocol import GenerateRequest, Output, Timing
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("statistics"))


def greedy(ids: list[int], new: int, rid: str = "r", **fields: object) -> GenerateRequest:
    params = SamplingParams.from_dict({"max_new_tokens": new, "temperature": 0.0, "ignore_eos": True})
    return replace(GenerateRequest(ids, params, rid=rid), **fields)


def test_a_histogram_counts_values_by_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.5, 100.0):
        histogram.add(value)
    assert histogram.read() == {"bounds": [1.0, 2.0], "counts": [2, 1, 2], "count": 5, "sum": 105.5}


def test_timing_of_each_part(folder: Path) -> None:
    harness = Harness(folder, running=1, budget=10, policy="fcfs")
    requests = [greedy([1] * 25, 4, "a"), greedy([2] * 5, 0, "b"), greedy([3], 9, "late", deadline=8.0)]
    for request in requests:
        harness.add(request)
    while harness.core.has_work:
        harness.step()
        harness.now += 1.0
    # steps at 0, 1, 2 compute the prompt of a; it has its first token at 2 and its fourth at 5
    assert harness.results["a"].timing == Timing(0.0, 2.0, 3.0)
    assert harness.results["b"].timing == Timing(6.0, 0.0, 0.0)
    assert harness.results["late"].timing == Timing(7.0, 0.0, 1.0)
    harness.add(greedy([1], 1, "gone"))
    harness.now += 2.0
    harness.core.abort("gone")
    assert harness.results["gone"].timing == Timing(2.0)
    harness.add(greedy([1] * 100, 1, "half"))
    harness.step()
    harness.now += 0.5
    harness.core.abort("half")
    assert harness.results["half"].timing == Timing(0.0, 0.5)


def test_steps_and_queue(folder: Path) -> None:
    harness = Harness(folder, slots=70, running=8, budget=64)
    for i in range(6):
        harness.add(greedy([i] * 20, 40, str(i)))
    assert read_stats(harness.core)["waiting_tokens"] == 6 * 60
    harness.step()
    stats = read_stats(harness.core)
    running = stats["running_requests"]
    assert stats["waiting_tokens"] == (6 - running) * 60 > 0
    assert (stats["last_step_requests"], stats["last_step_tokens"]) == (running, 20 * running)
    harness.core.abort("5")
    harness.run([])
    stats = read_stats(harness.core)
    assert stats["retracted_requests"] > 0 and stats["retracted_input_tokens"] > 0
    assert stats["waiting_tokens"] == stats["running_tokens"] == 0
    assert (stats["finished_requests"], stats["aborted_requests"], stats["failed_requests"]) == (5, 1, 0)
    assert stats["step_tokens"]["count"] == stats["step_seconds"]["count"] == stats["steps"]
    assert stats["step_tokens"]["sum"] == stats["computed_tokens"]
    assert stats["kv_locked"] == 0 and stats["kv_free"] + stats["kv_evictable"] == 70


def test_an_engines_statistics_cross_between_processes(folder: Path) -> None:
    with Engine(folder, dtype="float32") as engine:
        params = {"max_new_tokens": 4, "temperature": 0}
        for regex in ("[a-c]+", "[a-c]+", "[d-f]+"):
            engine.generate("abc", {**params, "regex": regex})
        with pytest.raises(ConstraintError):
            engine.generate("abc", {**params, "regex": "("})
        stats = engine.stats()
        assert (stats["constraints_compiled"], stats["constraints_found"]) == (2, 1)
        assert stats["constraints_refused"] == 1 and stats["constrained_requests"] == 3
        assert stats["compile_seconds"]["count"] == 2 and stats["compile_seconds"]["sum"] > 0
        assert stats["step_seconds"]["sum"] > 0
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(stats)) == stats
        done: Future[Output] = Future()
        engine.submit(greedy([1, 2, 3], 5), done.set_result)
        timing = done.result().timing
        assert timing is not None and timing.queued_s >= 0
        assert timing.prefill_s is not None and timing.prefill_s > 0
        assert timing.decode_s is not None and timing.decode_s > 0
