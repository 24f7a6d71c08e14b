"""Async programs, and programs run from coroutines: nothing blocks a loop, and no thread belongs to a run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import DeadlineExceeded, EngineError, ProgramError, RequestAborted
from sgl_like.frontend.bodies import workers
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.timers import ManualTimers


@sgl.function
async def chain(s: Any, word: str, steps: int = 3) -> str:
    """Ask again and again."""
    for i in range(steps):
        s += f"{word}{i} " + sgl.gen(f"a{i}")
        s += "=" + await s.aget(f"a{i}")
    return str(await s.aget(f"a{steps - 1}"))


@sgl.function
def plain(s: Any, word: str) -> str:
    s += word + sgl.gen("a")
    return str(s["a"])


@sgl.function
def broken(s: Any, word: str = "") -> None:
    s += "fail" + sgl.gen("a")
    raise LookupError("mine")


@sgl.function
async def broken_async(s: Any, word: str = "") -> None:
    s += "fail" + sgl.gen("a")
    raise LookupError("mine")


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def _pieces(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


def test_an_async_program_runs_from_everywhere(backend: FakeBackend) -> None:
    backend._respond = lambda call: f"r{len(call.ids)}"
    expected = chain("x").text()
    assert expected.count("=r") == 3
    assert chain.run("x").text() == chain.stream("x").text() == expected
    assert [state.text() for state in chain.run_batch([("x",), {"word": "x"}])] == [expected] * 2

    async def main() -> None:
        state = await chain.arun("x")
        assert state.ret_value == state["a2"] and state.text() == expected
        streamed = await chain.arun("x", stream=True)
        assert await streamed.atext() == expected and streamed.ret_value == state.ret_value

    asyncio.run(main())


@pytest.mark.parametrize("program", [broken, broken_async])
def test_errors_of_bodies(backend: FakeBackend, program: Any) -> None:
    with pytest.raises(LookupError, match="mine"):
        program()
    with pytest.raises(LookupError, match="mine"):
        asyncio.run(program.arun())
    state = program.stream()
    assert isinstance(state.error().__cause__, LookupError)

    async def streamed() -> None:
        state = program.astream()
        with pytest.raises(ProgramError, match="mine"):
            await state.atext()
        assert isinstance((await state).error().__cause__, LookupError)

    asyncio.run(streamed())


@pytest.mark.parametrize("program", [chain, plain])
def test_a_hundred_programs_leave_the_loop_free_and_take_no_threads(program: Any) -> None:
    """c#8, b#24. While the model answers nothing, the loop runs whatever else there is; threads do not grow."""
    backend = FakeBackend()
    sgl.set_worker_threads(4)
    backend.hold()
    before = set(threading.enumerate())

    async def main() -> None:
        runs = [asyncio.create_task(program.arun("x", backend=backend)) for _ in range(100)]
        await _until(lambda: len(backend.calls) == (100 if program is chain else 4))
        ticks = 0
        for _ in range(1000):
            await asyncio.sleep(0)
            ticks += 1
        assert ticks == 1000 and not any(run.done() for run in runs)
        new = sorted(thread.name.split("-")[0] for thread in set(threading.enumerate()) - before)
        assert new == ["fake", "sgl", *([] if program is chain else ["sgl"] * 4)], "model, executor, workers"
        backend.release()
        states = await asyncio.gather(*runs)
        assert all(state.error() is None for state in states)

    asyncio.run(main())
    sgl.set_worker_threads(workers.DEFAULT_SIZE)


def test_a_blocking_read_in_an_async_body_is_an_error(backend: FakeBackend) -> None:
    reads: list[tuple[Callable[[Any], Any], str]] = [
        (lambda s: s["a"], r"use: await s.aget\('a'\)"),
        (lambda s: s.get_meta_info("a"), "await s.aget"),
        (lambda s: s.text(), "await s"),
        (lambda s: s.messages(), "await s"),
        (lambda s: s.error(), "await s"),
        (lambda s: list(s.text_iter("a")), "async for"),
        (lambda s: plain("x")["a"], "use: await plain.arun"),
        (lambda s: chain.run("x"), "use: await chain.arun"),
        (lambda s: s.call(chain, "x"), "await s.acall"),
    ]

    @sgl.function
    async def reader(s: Any) -> None:
        s += "x" + sgl.gen("a")
        for read, instead in reads:
            with pytest.raises(ProgramError, match=rf"would block the event loop.*{instead}"):
                read(s)
        backend.release()
        assert (await s)["a"] == s["a"] and s.text() == await s.atext() == "x" + s["a"]
        assert await s.amessages() == [] and await s.aget_meta_info("a") == s.get_meta_info("a") is not None

    for run in (lambda: reader.run().error(), lambda: asyncio.run(reader.arun()).error()):
        backend.hold()
        assert run() is None


def test_streams_of_async_programs(backend: FakeBackend) -> None:
    """b#24: a text that begins later is waited for, with the loop free."""

    @sgl.function
    async def late(s: Any, begin: asyncio.Event) -> None:
        await begin.wait()
        s += "x" + sgl.gen("a")

    async def main() -> None:
        begin = asyncio.Event()
        state = late.astream(begin)
        whole = asyncio.create_task(_pieces(state.text_async_iter()))
        one = asyncio.create_task(_pieces(state.text_async_iter("a")))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not whole.done() and not one.done()
        begin.set()
        assert await one == await state.aget("a") and await whole == await state.atext()

    asyncio.run(main())


def test_tasks_of_a_body_read_as_the_body_does(backend: FakeBackend) -> None:
    """They do not wait for the end of the body, which waits for them."""

    @sgl.function
    async def program(s: Any) -> list[Any]:
        forks = s.fork(3)
        forks += lambda i: f"{i}" + sgl.gen("a")
        texts = await asyncio.gather(*(fork.atext() for fork in forks), s.atext())
        forks.join()
        return [texts, await s.aget("a")]

    async def main() -> None:
        state = await program.astream()
        assert [len(part) for part in state.ret_value] == [4, 3]

    asyncio.run(main())


@pytest.mark.parametrize("program", [chain, plain])
def test_cancelling_the_task_cancels_the_program(backend: FakeBackend, program: Any) -> None:
    backend.hold()

    async def main() -> None:
        run = asyncio.create_task(program.arun("x"))
        await _until(lambda: bool(backend.calls))
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())
    backend.release()
    assert backend.cancelled() == 1


async def _forever(s: Any) -> None:
    await asyncio.Event().wait()


async def _on_a_gen(s: Any) -> None:
    s += "x" + sgl.gen("a")
    await s.aget("a")


@pytest.mark.parametrize("body", [_forever, _on_a_gen])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_cancel_and_timeout_interrupt_an_async_body(
    backend: FakeBackend, body: Callable[[Any], Awaitable[None]], how: str
) -> None:
    """c#14: wherever it awaits; and the task that awaited the run is not left cancelled."""
    backend.hold()
    program: Any = sgl.function(body)  # type: ignore[arg-type]
    cause = RequestAborted if how == "cancel" else DeadlineExceeded

    async def main() -> None:
        state = program.astream(**({"timeout": 0.001} if how == "timeout" else {}))
        await asyncio.sleep(0)
        if how == "cancel":
            state.cancel()
        error = (await state).error()
        assert isinstance(error, ProgramError) and isinstance(error.__cause__, cause)
        if how == "timeout":
            with pytest.raises(ProgramError) as caught:
                await program.arun(timeout=0.001)
            assert isinstance(caught.value.__cause__, DeadlineExceeded)
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0

    asyncio.run(main())
    backend.release()


def test_a_body_that_waits_for_bodies_lends_its_place(backend: FakeBackend) -> None:
    """A pool of one thread, and every way for one body to wait for another."""

    @sgl.function
    def deep(s: Any, depth: int) -> str:
        if depth == 0:
            return "end"
        inner = deep.stream(depth - 1)
        return str(asyncio.run(deep.arun(depth - 1)).ret_value) + str(inner.ret_value)

    sgl.set_worker_threads(1)
    try:
        assert deep.stream(3).ret_value == "end" * 8
        rows = [(1,), (1,)]

        @sgl.function
        def over_a_batch(s: Any) -> list[Any]:
            return [state.ret_value for state in deep.run_batch(rows, num_threads=1)]

        assert over_a_batch.stream().ret_value == ["endend"] * 2
    finally:
        sgl.set_worker_threads(workers.DEFAULT_SIZE)
    with pytest.raises(ValueError, match="at least 1"):
        sgl.set_worker_threads(0)


@pytest.mark.parametrize("program", [chain, plain])
def test_abatch_keeps_order_and_errors(backend: FakeBackend, program: Any) -> None:
    backend._respond = lambda call: EngineError("boom") if "bad" in call.prompt else call.prompt[:2]
    rows: list[Any] = [(f"w{i}",) for i in range(20)]
    rows[7], rows[9] = ("bad",), {"nonsense": 1}

    async def source() -> AsyncIterator[Any]:
        for row in rows:
            yield row

    async def main() -> None:
        with pytest.raises(ProgramError, match="row 9"):  # of a list that is known before anything runs
            program.abatch(rows)
        for given in (iter(rows), source()):
            states = await program.abatch(given, max_concurrency=3, temperature=0)
            failed = [i for i, state in enumerate(states) if state.error() is not None]
            assert failed == [7, 9] and len(states) == 20
            assert states[3].text().startswith("w3") and "row 9" in str(states[9].error())
        seen = []
        with pytest.raises(ProgramError, match="boom"):
            async for state in program.abatch(iter(rows), on_error="raise"):
                seen.append(state)
        assert len(seen) == 7
        for wrong, error in (
            ({"max_concurrency": 0}, ValueError), ({"on_error": "x"}, ValueError), ({"x": 1}, TypeError)
        ):  # fmt: skip
            with pytest.raises(error):
                program.abatch([], **wrong)

    asyncio.run(main())


def test_abatch_runs_so_many_at_a_time_and_reads_rows_as_needed(backend: FakeBackend) -> None:
    backend.hold()
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for i in range(10_000):
            taken += 1
            yield (f"{i}",)

    async def main() -> None:
        batch = aiter(chain.abatch(rows(), max_concurrency=5))
        first = asyncio.create_task(anext(batch))
        await _until(lambda: len(backend.calls) == 5)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(backend.calls) == 5 and taken <= 4 * 5
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        backend.release()
        assert backend.cancelled() == 5, "who stops taking states cancels what runs"
        batch = aiter(chain.abatch(rows(), max_concurrency=2))
        await anext(batch)
        await batch.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


@pytest.mark.parametrize("program", [chain, plain])
def test_abatch_can_what_run_batch_can(backend: FakeBackend, program: Any, tmp_path: Path) -> None:
    """Retries, states as they end, timeouts, and a checkpoint that one has begun and the other continues."""
    timers = ManualTimers(backend, at_once=1)
    failures = [EngineError("busy")]
    backend._respond = lambda call: failures.pop() if failures and "busy" in call.prompt else call.prompt[:2]
    rows = [("busy" if i == 3 else f"w{i}",) for i in range(12)]
    path = tmp_path / "x.jsonl"

    async def main() -> None:
        backend.hold(lambda call: "w0" in call.prompt)
        batch = aiter(
            program.abatch(rows, max_retries=1, as_completed=True, checkpoint=path, max_concurrency=3)
        )
        taken = [await anext(batch) for _ in range(11)]
        assert all(state.error() is None for state in taken)
        assert sorted(state.row or 0 for state in taken) == list(range(1, 12))
        await batch.aclose()  # type: ignore[attr-defined]
        assert backend.cancelled() > 0
        backend.release()
        before = len(backend.calls)
        states = await program.abatch(rows, checkpoint=path)
        assert [state.row for state in states] == list(range(12)) and states[0].text().startswith("w0")
        assert {call.prompt[:2] for call in backend.calls[before:]} == {"w0"}, "only the first row is run"

        backend.hold(lambda call: "slow" in call.prompt)
        late = asyncio.create_task(_all(program.abatch([("slow",), ("x",)], timeout=5, max_concurrency=1)))
        await _until(lambda: bool(timers.waiting()))
        timers.fire()
        slow, quick = await late
        assert "row 0 had not ended after 5 s" in str(slow.error()) and quick.error() is None

    asyncio.run(main())
    before = len(backend.calls)
    assert [state.row for state in program.run_batch(rows, checkpoint=path)] == list(range(12))
    assert len(backend.calls) == before
    backend.release()


async def _all(batch: Any) -> list[sgl.ProgramState]:
    return await batch  # type: ignore[no-any-return]


def test_abatch_goes_on_beside_a_plain_body_that_does_not_notice(backend: FakeBackend) -> None:
    timers = ManualTimers(backend)
    stuck = threading.Event()

    @sgl.function
    def stubborn(s: Any, i: int) -> int:
        if i == 0:
            stuck.wait(timeout=20)
        return i

    async def main() -> None:
        running = asyncio.create_task(
            _all(stubborn.abatch([(i,) for i in range(5)], timeout=5, max_concurrency=1))
        )
        await _until(lambda: bool(timers.waiting()))
        timers.fire()
        states = await running
        assert [state.error() is None for state in states] == [False, True, True, True, True]

    asyncio.run(main())
    stuck.set()
