"""Aborts at any stage, failing steps, requests that cannot fit: nothing leaks or hangs, and nobody else notices."""

from __future__ import annotations

import random
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.errors import EngineError, PromptTooLongError
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.interpreted import fewer
from tests.support.small_model import make_model

SLOT = 2 * 2 * 2 * 8 * 4  # bytes of a token's keys and values in the small model
KINDS = ("plain", "plain", "regex", "schema", "choices", "copies", "embed", "logprobs")
SCHEMA = {"type": "object", "properties": {"ab": {"type": "integer"}, "c": {"enum": ["x", "yz"]}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("aborts"))


def requests_of(kind: str, rid: str, ids: list[int], stream: bool) -> list[GenerateRequest]:
    """One of `KINDS`, as a client would make it."""
    values: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.0, "ignore_eos": True}
    fields: dict[str, Any] = {"stream": stream}
    if kind == "regex":
        values["regex"] = "(abc|abd)+x"
    elif kind == "schema":
        values |= {"json_schema": SCHEMA, "max_new_tokens": 30}
    elif kind in ("choices", "embed"):
        values = {"max_new_tokens": 0, "temperature": 0.0}
        fields = {"choices": [(1, 2, 3), (1, 2, 4), (5,)]} if kind == "choices" else {"embed": True}
    elif kind == "logprobs":
        fields["logprobs"] = LogprobParams(0, 2)
    params = SamplingParams.from_dict(values)
    if kind != "copies":
        return [GenerateRequest(ids, params, rid=rid, **fields)]
    many = SamplingParams.from_dict({**values, "temperature": 1.0, "n": 4, "sampling_seed": 7})
    return [GenerateRequest(ids, many.for_copy(i), rid=f"{rid}.{i}", **fields) for i in range(4)]


def workload(rng: random.Random, count: int) -> list[GenerateRequest]:
    stem = [rng.randrange(256) for _ in range(40)]
    out: list[GenerateRequest] = []
    for i in range(count):
        ids = [*stem[: rng.randrange(41)], *(rng.randrange(256) for _ in range(rng.randrange(1, 20)))]
        out += requests_of(rng.choice(KINDS), str(i), ids, rng.random() < 0.5)
    return out


def parts(harness: Harness, rid: str) -> list[str]:
    """What the core calls a request (those with choices are several)."""
    return [each for each in harness.core._requests if each == rid or each.startswith(f"{rid}/")]


@settings(max_examples=fewer(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    slots=st.sampled_from([112, 130, 1000]),
    running=st.integers(1, 12),
    budget=st.sampled_from([5, 17, 64, 500]),
    reuse=st.booleans(),
    page_size=st.sampled_from([1, 1, 16]),
)
def test_aborts_at_any_stage(
    folder: Path, seed: int, slots: int, running: int, budget: int, reuse: bool, page_size: int
) -> None:
    rng = random.Random(seed)
    requests = workload(rng, 12)
    doomed = {request.rid: rng.randrange(25) for request in requests if rng.random() < 0.5}
    harness = Harness(folder, slots, running, budget, reuse, page_size)
    arriving, step = list(requests), 0
    while arriving or harness.core.has_work:
        for request in arriving[: rng.choice([0, 1, 1, 5])]:
            harness.add(request)
            arriving.remove(request)
        for rid in [rid for rid, at in doomed.items() if at <= step and all(r.rid != rid for r in arriving)]:
            del doomed[rid]
            held = {id(r) for r in harness.scheduler.running if r.rid in parts(harness, rid)}
            owned = sum(len(r.slots) - r.shared for r in harness.scheduler.running if id(r) in held)
            before = harness.memory.available
            for part in parts(harness, rid):
                harness.core.abort(part)
            harness.core.check_invariants()  # all of it is free or evictable at once, before the next step
            assert harness.memory.available >= before + owned and not parts(harness, rid)
        harness.step()
        step += 1
    for request in requests:
        result = harness.results[request.rid]
        assert result.finish is not None and result.finish.type in ("stop", "length", "abort")
        if result.finish.type != "abort":
            alone = Harness(folder, slots=200, budget=1000).run([request])[request.rid]
            assert (result.token_ids, result.text) == (alone.token_ids, alone.text)
            for scores, others in zip(result.choice_logprobs or (), alone.choice_logprobs or (), strict=True):
                assert scores == pytest.approx(others, abs=1e-3)
            assert result.embedding == pytest.approx(alone.embedding, abs=1e-4)
    assert harness.core.flush_cache()
    assert harness.memory.allocator.free_count == harness.memory.size


@settings(max_examples=fewer(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    slots=st.sampled_from([112, 1000]),
    where=st.sampled_from(["forward", "last_logits", "score"]),
)
def test_steps_that_fail_end_their_own_requests_only(folder: Path, seed: int, slots: int, where: str) -> None:
    rng = random.Random(seed)
    harness = Harness(folder, slots, running=3, budget=30)
    runner: Any = harness.core._runner
    works = getattr(runner, where)
    failures = 0

    def sometimes(*arguments: Any) -> Any:
        nonlocal failures
        if rng.random() < 0.1:
            failures += 1
            raise MemoryError("cannot allocate 123 bytes")
        return works(*arguments)

    setattr(runner, where, sometimes)
    requests = workload(rng, 12)
    results = harness.run(requests, arrive=lambda: rng.random() < 0.4)
    setattr(runner, where, works)
    failed = 0
    for request in requests:
        result = results[request.rid]
        if result.error is not None:
            failed += 1
            assert isinstance(result.error, EngineError) and "cannot allocate" in str(result.error)
        else:
            alone = Harness(folder, slots=200, budget=1000).run([request])[request.rid]
            assert (result.token_ids, result.text) == (alone.token_ids, alone.text)
    assert bool(failed) == bool(failures)
    assert harness.core.flush_cache() and harness.memory.allocator.free_count == slots


def test_an_engine_survives_failed_allocations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step its requests fail; outside of one, all that are in flight; the next ones are served."""
    params = {"max_new_tokens": 6, "temperature": 0}
    with Engine(folder, dtype="float32") as engine:
        expected = engine.generate("abc", params)["output_ids"]
        assert engine.flush_cache()
        for target, name in (
            ("sgl_like.runtime.engine.runner.ModelRunner", "forward"),
            ("sgl_like.runtime.sampling.masked_logits.MaskedLogits", "sample"),
            ("sgl_like.runtime.engine.memory.KVMemory", "grow"),
            ("sgl_like.runtime.engine.memory.KVMemory", "publish_ahead"),
            ("sgl_like.runtime.engine.scheduler.Scheduler", "plan"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(f"{target}.{name}", _no_memory)
                with pytest.raises(EngineError, match="cannot allocate"):
                    engine.generate("abc", params)
            engine.check_invariants()
            assert engine.generate("abc", params)["output_ids"] == expected
            assert engine.flush_cache()


def _no_memory(*_: object) -> None:
    raise MemoryError("cannot allocate 123 bytes")


def test_prompts_that_never_fit_do_not_hang(tmp_path: Path) -> None:
    folder = make_model(tmp_path, max_position_embeddings=4096)
    params = SamplingParams.from_dict({"max_new_tokens": 1000, "temperature": 0.0, "ignore_eos": True})
    with Engine(folder, dtype="float32", kv_cache_memory=50 * SLOT) as engine:
        results: list[Future[Output]] = []
        for i in range(20):
            with pytest.raises(PromptTooLongError, match="KV pool of 50 allows 49"):
                engine.submit(GenerateRequest([i] * 1000, params), print)
            results.append(Future())
            engine.submit(GenerateRequest([i] * 40, params), results[-1].set_result)
        for done in results:  # cut to what fits, and told so
            output = done.result()
            assert output.finish is not None and output.finish.type == "length"
            assert len(output.token_ids) == 10
        engine.check_invariants()
        assert engine.flush_cache() and engine.stats()["kv_free"] == 50
