"""Timeouts, cancellation, and leaving a stream early (c#14)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import DeadlineExceeded, ProgramError, RequestAborted
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model

SOON = 0.001  # a timeout for what would never end


@sgl.function
def endless(s: Any, seconds: float | None = None, forks: int = 0) -> str:
    s += "a b c"
    if forks:
        group = s.fork(forks)
        group += "d" + sgl.gen("a", max_tokens=100_000, ignore_eos=True)
        group.join()
    else:
        s += sgl.gen("a", max_tokens=100_000, ignore_eos=True, timeout=seconds)
    s += "after" + sgl.gen("b")
    return str(s["a"])


def test_a_gen_that_takes_too_long_fails_the_program(backend: FakeBackend) -> None:
    backend.hold()
    with pytest.raises(
        ProgramError, match=r"endless, gen\('a'\): DeadlineExceeded: it was not done after"
    ) as caught:
        endless(SOON)
    cause = caught.value.__cause__
    assert isinstance(cause, DeadlineExceeded) and isinstance(cause, TimeoutError)
    assert caught.value.variable == "a" and backend.cancelled() == len(backend.calls) == 1
    backend.release()


def test_a_run_that_takes_too_long(backend: FakeBackend) -> None:
    backend.hold()
    for forks in (0, 3):
        with pytest.raises(
            ProgramError, match="endless: DeadlineExceeded: the program was not done"
        ) as caught:
            endless.run(forks=forks, timeout=SOON if forks == 0 else 0.05)
        assert isinstance(caught.value.__cause__, DeadlineExceeded)
        assert backend.cancelled() == len(backend.calls)
    backend.release()


def test_what_is_done_in_time_is_not_disturbed(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", timeout=3600) + sgl.select("b", ["1", "2"], timeout=3600)

    assert program.run(timeout=3600).error() is None
    assert not [timer for timer in backend.executor._timers if timer.job is not None], (
        "nothing is left behind"
    )


@pytest.mark.parametrize("wrong", [0, -1, "1", True, float("nan")])
def test_wrong_timeouts(backend: FakeBackend, wrong: Any) -> None:
    for use in (lambda: endless.run(timeout=wrong), lambda: sgl.gen("a", timeout=wrong),
                lambda: sgl.select("a", ["x"], timeout=wrong)):  # fmt: skip
        with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
            use()  # type: ignore[no-untyped-call]


def test_leaving_a_stream_cancels_the_program(backend: FakeBackend) -> None:
    backend.hold()
    for text in endless.stream():
        assert text == "a b c"
        backend.wait_for_calls(1)
        break
    assert backend.cancelled() == 1

    with endless.stream() as state:
        backend.wait_for_calls(2)
    assert state.error() is not None and backend.cancelled() == 2

    async def main() -> None:
        pieces = aiter(endless.astream())
        assert await anext(pieces)
        await asyncio.to_thread(backend.wait_for_calls, 3)
        await pieces.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())
    assert backend.cancelled() == 3
    backend.release()
    whole = endless.stream()
    assert "".join(whole) == whole.text() and whole.error() is None
    with whole:
        pass
    assert whole.error() is None, "what is done is not cancelled"


def test_a_body_in_the_queue_is_not_begun_after_it_was_cancelled(backend: FakeBackend) -> None:
    sgl.set_worker_threads(1)
    try:
        backend.hold()
        first = endless.stream()
        backend.wait_for_calls(1)
        second = endless.stream()
        second.cancel()
        backend.release()
        assert first.error() is None and isinstance(second.error().__cause__, RequestAborted)  # type: ignore[union-attr]
        assert len(backend.calls) == 2, "those of the first"
        with pytest.raises(ProgramError, match="was cancelled"):
            _ = second.ret_value
    finally:
        sgl.set_worker_threads(64)


def test_a_task_that_is_cancelled_before_it_began_ends_its_program(backend: FakeBackend) -> None:
    @sgl.function
    async def program(s: Any) -> None:
        s += "a" + sgl.gen("x")

    async def leave() -> sgl.ProgramState:
        state = program.astream()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return state

    state = asyncio.run(leave())
    with pytest.raises(ProgramError, match="was cancelled"):
        _ = state.ret_value
    assert not backend.calls


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder: Path = make_model(tmp_path_factory.mktemp("stopping"))
    with sgl.Runtime(
        str(folder), dtype="float32", kv_cache_memory=1 << 24, context_length=120_000
    ) as runtime:
        yield runtime


def _stop_by_timeout_of_gen(runtime: sgl.Runtime) -> None:
    with pytest.raises(ProgramError, match="DeadlineExceeded"):
        endless.run(0.05, backend=runtime)


def _stop_by_timeout_of_run(runtime: sgl.Runtime) -> None:
    with pytest.raises(ProgramError, match="DeadlineExceeded"):
        endless.run(forks=3, timeout=0.05, backend=runtime)


def _stop_by_cancel(runtime: sgl.Runtime) -> None:
    state = endless.run(backend=runtime, stream=True)
    next(state.text_iter("a"))
    state.cancel()
    assert isinstance(state.error().__cause__, RequestAborted)  # type: ignore[union-attr]


def _stop_by_leaving(runtime: sgl.Runtime) -> None:
    for count, _ in enumerate(endless.run(backend=runtime, stream=True)):
        if count == 3:
            break


def _stop_by_task(runtime: sgl.Runtime) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(endless.arun(backend=runtime), timeout=0.05)

    asyncio.run(main())


@pytest.mark.parametrize(
    "stop",
    [_stop_by_timeout_of_gen, _stop_by_timeout_of_run, _stop_by_cancel, _stop_by_leaving, _stop_by_task],
)
def test_what_is_stopped_gives_its_kv_back(runtime: sgl.Runtime, stop: Callable[[sgl.Runtime], None]) -> None:
    """Nothing but the cache holds slots afterwards, and the cache can be emptied."""
    stop(runtime)
    while (stats := runtime.engine.stats())["running_requests"] or stats["waiting_requests"]:
        pass  # the step in progress ends, then the aborted requests do
    runtime.engine.check_invariants()
    assert runtime.flush_cache()
    stats = runtime.engine.stats()
    assert stats["kv_free"] == stats["kv_slots"]
