"""Constraints that explode (serving.md AT 6, T14): refused, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sgl_like.errors import ConstraintError, ConstraintTooComplex, EngineUnavailable
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.constraints import Constraint, constraint_params
from sgl_like.runtime.server.engine.gate import ConstraintGate
from sgl_like.runtime.server.engine.wire import EngineInfo
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.limits import Limits
from tests.support.constraint_bombs import BOMBS
from tests.support.processes import ROOT, Served, children, is_alive, served, until

TINY = EngineInfo(str(ROOT / "sgl_like/assets/tiny"), 4096, 1024, 10_000, 64, os.getpid())
GOOD = SamplingParams(json_schema='{"type": "object", "properties": {"city": {"type": "string"}}}')
ENDLESS = SamplingParams(**BOMBS["schema not patterns"])
"""Takes longer than any limit here."""


def test_bombs_are_within_the_limits_of_a_body() -> None:
    """All but two, which are there for the worker's sake."""
    large = set()
    for name, params in BOMBS.items():
        ((kind, value),) = params.items()
        try:
            constraint_params([Constraint(kind, kind, value)], Limits())  # type: ignore[arg-type]
        except ApiError:
            large.add(name)
    assert large == {"schema enum keys", "schema nested"}


async def result(gate: ConstraintGate, params: SamplingParams) -> str:
    try:
        await gate.check(params)
    except ConstraintError as error:
        return type(error).__name__
    return "good"


def test_what_takes_too_long_is_refused_at_once_the_second_time() -> None:
    async def run() -> list[int]:
        gate = ConstraintGate(TINY, 0.5)
        assert await result(gate, GOOD) == "good"
        with pytest.raises(ConstraintTooComplex, match=r"more than 0\.5 s to compile"):
            await gate.check(ENDLESS)
        worker = gate.pid
        assert worker is not None
        asked = gate.asked
        with pytest.raises(ConstraintTooComplex, match=r"more than 0\.5 s to compile"):
            await gate.check(ENDLESS)
        assert gate.asked == asked
        assert await result(gate, SamplingParams(regex="[a-z]+")) == "good"
        assert gate.pid == worker
        gate.close()
        return [worker, *children(worker)]

    for pid in asyncio.run(run()):
        until(lambda pid=pid: not is_alive(pid), f"the end of {pid}")  # type: ignore[misc]


def test_what_takes_too_much_memory_is_refused() -> None:
    async def run() -> None:
        gate = ConstraintGate(TINY, 60.0, memory=8 * 1024 * 1024)
        with pytest.raises(ConstraintTooComplex):
            await gate.check(SamplingParams(**BOMBS["schema enum keys"]))
        assert await result(gate, GOOD) == "good"
        gate.close()

    asyncio.run(run())


def test_equal_constraints_that_come_together_are_tried_once() -> None:
    async def run() -> None:
        gate = ConstraintGate(TINY, 5.0)
        assert await asyncio.gather(*(result(gate, GOOD) for _ in range(50))) == ["good"] * 50
        assert gate.asked == 1
        other = SamplingParams(json_schema=GOOD.json_schema, whitespace="any")
        assert await result(gate, other) == "good"
        assert gate.asked == 2
        gate.close()

    asyncio.run(run())


def test_malformed_ones_say_what_is_wrong() -> None:
    async def run() -> None:
        gate = ConstraintGate(TINY, 5.0)
        with pytest.raises(ConstraintError, match="regex"):
            await gate.check(SamplingParams(regex="a("))
        with pytest.raises(ConstraintError, match="stop_regex"):
            await gate.check(SamplingParams(stop_regex="a("))
        gate.close()

    asyncio.run(run())


def test_a_worker_that_dies_is_replaced() -> None:
    async def run() -> None:
        gate = ConstraintGate(TINY, 60.0)
        assert await result(gate, GOOD) == "good"
        waiting = asyncio.create_task(gate.check(ENDLESS))
        while gate.asked < 2:
            await asyncio.sleep(0.01)
        first = gate.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineUnavailable):
            await waiting
        assert await result(gate, SamplingParams(regex="b+")) == "good"
        assert gate.pid != first
        gate.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("--dtype", "float32", "--limit-compile-seconds", "1") as started:
        yield started


def test_all_bombs_at_once_leave_the_server_as_it_was(server: Served) -> None:
    engine, front = server.engine_pid, server.process.pid

    def send(name: str) -> tuple[str, int, str]:
        body = {"prompt": "play", "max_tokens": 300, "temperature": 1.0, **BOMBS[name]}
        status, answer = server.call("POST", "/v1/completions", body)
        return name, status, json.dumps(answer.get("error", ""))

    with ThreadPoolExecutor(len(BOMBS)) as pool:
        found = list(pool.map(send, BOMBS))
    odd = [each for each in found if each[1] not in (200, 400, 503)]
    assert not odd
    assert all("Traceback" not in message and "/sgl_like/" not in message for _, _, message in found)
    by_name = {name: status for name, status, _ in found}
    assert by_name["schema not patterns"] in (400, 503) and by_name["schema multiples"] in (400, 503)
    assert server.engine_pid == engine and server.process.pid == front and server.is_ready()
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    body = {"prompt": "play", "max_tokens": 30, "json_schema": schema}
    status, answer = server.call("POST", "/v1/completions", body)
    assert status == 200
    assert json.loads(answer["choices"][0]["text"])["a"] % 1 == 0


def test_no_process_of_the_worker_outlives_the_server(server: Served) -> None:
    engine = server.engine_pid
    (worker,) = children(engine)
    below = children(worker)
    os.kill(server.process.pid, signal.SIGKILL)
    for pid in (engine, worker, *below):
        until(lambda pid=pid: not is_alive(pid), f"the end of {pid}")  # type: ignore[misc]
