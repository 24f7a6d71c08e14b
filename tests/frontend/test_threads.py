"""The executor and the workers; and everything at once, with threads switching all the time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from sgl_like.frontend.bodies import executor
from sgl_like.frontend.bodies.workers import Workers
from tests.support.frontend_fake_backend import Call, FakeBackend


def test_executor_keeps_order_and_survives_a_bad_job(caplog: pytest.LogCaptureFixture) -> None:
    jobs = executor.Executor("test-executor")
    seen: list[int] = []
    done = threading.Event()
    jobs.post(lambda: seen.append(1 // 0))
    for i in range(100):
        jobs.post(lambda i=i: seen.append(i))  # type: ignore[misc]
    jobs.post(done.set)
    assert done.wait(timeout=20) and seen == list(range(100))
    assert "a job of test-executor failed" in caplog.text


def test_executor_leaves_when_idle_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "IDLE_SECONDS", 0.001)
    jobs = executor.Executor("test-idle")
    for _ in range(3):
        done = threading.Event()
        jobs.post(done.set)
        assert done.wait(timeout=20)
        for thread in threading.enumerate():
            if thread.name == "test-idle":
                thread.join(timeout=20)
                assert not thread.is_alive()


def test_workers_are_bounded_and_hand_back_errors() -> None:
    workers = Workers(3, "test-worker")
    peak = 0

    def job(i: int) -> int:
        nonlocal peak
        peak = max(peak, sum(thread.name.startswith("test-worker") for thread in threading.enumerate()))
        return 10 // i

    futures = [workers.submit(lambda i=i: job(i)) for i in range(50)]  # type: ignore[misc]
    assert isinstance(futures[0].exception(timeout=20), ZeroDivisionError)
    assert [future.result(timeout=20) for future in futures[1:]] == [10 // i for i in range(1, 50)]
    assert peak <= 3
    workers.close()


@pytest.fixture
def restless() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _answer(call: Call) -> str | Exception:
    return EngineError("boom") if "bad" in call.prompt and len(call.ids) % 2 else "w" * (len(call.ids) % 7)


@sgl.function
def everything(s: Any, i: int) -> int:
    s += sgl.user(f"p{i} " + ("bad" if i % 5 == 0 else ""))
    with s.assistant():
        s += sgl.gen("a")
        forks = s.fork(3)
        forks += lambda j: f" {j}" + sgl.gen("b")
        for fork in forks:
            inner = fork.fork(2)
            inner += sgl.gen("d")
            inner.join()
        forks.join("gather_variable" if i % 2 else "concate_and_append")
        s += sgl.select("c", ["x", "yy"])
    return i


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("seed", range(3))
def test_everything_at_once(seed: int) -> None:
    backend = FakeBackend(_answer, seed=seed)
    for i, state in enumerate(
        everything.run_batch([(i,) for i in range(40)], backend=backend, num_threads=8)
    ):
        if state.error() is None:
            assert (state.ret_value, state["c"]) == (i, "x")
        else:
            assert i % 5 == 0 and "boom" in str(state.error())


@pytest.mark.usefixtures("restless")
def test_cancelling_at_any_moment() -> None:
    backend = FakeBackend(_answer)
    states = [everything.run(i, backend=backend, stream=True) for i in range(30)]
    outcomes: list[bool] = []

    def read(state: Any) -> None:
        try:
            outcomes.append("".join(state.text_iter()) == state.text())
        except ProgramError as error:
            outcomes.append(state.error() is error)

    threads = [threading.Thread(target=read, args=(state,)) for state in states]
    threads += [threading.Thread(target=state.cancel) for state in states[::3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert outcomes == [True] * 30


def test_threads_do_not_grow_with_programs_and_forks() -> None:
    """b#25: 200 programs with 4 forks each, all waiting for the model."""
    backend = FakeBackend()

    @sgl.function
    def forking(s: Any, i: int) -> None:
        s += f"p{i}"
        forks = s.fork(4)
        forks += sgl.gen("a")
        forks.join()
        assert len(s["a"]) == 4

    before = threading.active_count()
    states = forking.run_batch([(i,) for i in range(200)], backend=backend, num_threads=6)
    assert all(state.error() is None for state in states)
    assert backend.max_threads <= before + 6 + 2, "workers, the executor and the fake model"
