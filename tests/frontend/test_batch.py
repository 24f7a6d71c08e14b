"""run_batch."""

from __future__ import annotations

import asyncio
import signal
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from sgl_like.frontend.batches.batch import WINDOW, BatchOptions
from tests.support.frontend_fake_backend import Call, FakeBackend
from tests.support.instant_backend import InstantBackend


def echo(call: Call) -> str | Exception:
    return EngineError("boom") if "bad" in call.prompt else call.prompt.removeprefix("say ")


@pytest.fixture
def echoing(backend: FakeBackend) -> FakeBackend:
    backend._respond = echo
    return backend


@sgl.function
def say(s: Any, word: str, n: int = 1) -> int:
    s += f"say {word}"
    s += sgl.gen("said")
    if word == "raise":
        raise LookupError("mine")
    return n


def test_order_and_values(echoing: FakeBackend) -> None:
    rows = [{"word": f"w{i}", "n": i} for i in range(150)]
    states = say.run_batch(rows, num_threads=16, temperature=0)
    assert [state["said"] for state in states] == [f"w{i}" for i in range(150)]
    assert [state.ret_value for state in states] == list(range(150))
    assert rows[3] == {"word": "w3", "n": 3}
    assert all(call.params["temperature"] == 0 for call in echoing.calls)
    assert [state["said"] for state in say.run_batch([("a", 2), ["b"]])] == ["a", "b"]
    assert say.bind(word="z").run_batch([{}])[0]["said"] == "z"


def test_no_rows(echoing: FakeBackend) -> None:
    for rows in ([], (), iter(())):
        assert say.run_batch(rows) == []
        states = say.run_batch(rows, generator_style=True, as_completed=True)
        assert iter(states) is states and list(states) == []


def test_rows_run_at_the_same_time(echoing: FakeBackend) -> None:
    meeting = threading.Barrier(6)

    @sgl.function
    def together(s: Any, i: int) -> None:
        meeting.wait(timeout=20)
        s += "x" + sgl.gen("a")

    assert all(state.error() is None for state in together.run_batch([(i,) for i in range(6)]))


def test_errors_stay_in_their_rows(echoing: FakeBackend) -> None:
    words = ["one", "bad", "raise", "two"]
    states = say.run_batch([(word,) for word in words])
    errors = [state.error() for state in states]
    assert [error is None for error in errors] == [True, False, False, True]
    assert isinstance(errors[1], ProgramError) and isinstance(errors[1].__cause__, EngineError)
    assert isinstance(errors[2], ProgramError) and isinstance(errors[2].__cause__, LookupError)
    assert states[3]["said"] == "two"
    with pytest.raises(ProgramError, match="mine"):
        states[2].text()


def test_on_error_raise(echoing: FakeBackend) -> None:
    with pytest.raises(ProgramError, match="boom"):
        say.run_batch([("a",), ("bad",), ("b",)], on_error="raise")
    with pytest.raises(ValueError, match="on_error"):
        say.run_batch([], on_error="ignore")  # type: ignore[call-overload]


def test_rows_of_the_wrong_shape(echoing: FakeBackend) -> None:
    for wrong, named in [
        ({"wrod": "a"}, "wrod"), ({}, "word"), ("ab", "a dict or a tuple"), (("a", 1, 2), "too many"),
        ({"word": "a", "temperature": 0}, "temperature"),
    ]:  # fmt: skip
        with pytest.raises(ProgramError, match=f"row 1: .*{named}"):
            say.run_batch([{"word": "a"}, wrong])
        lazy = say.run_batch(row for row in [{"word": "a"}, wrong, {"word": "b"}])
        assert [state.error() is None for state in lazy] == [True, False, True]
        assert "row 1" in str(lazy[1].error())
    with pytest.raises(TypeError, match="'tempurature'"):
        say.run_batch([], tempurature=0)
    for threads in (0, "many"):
        with pytest.raises(ValueError, match="num_threads"):
            say.run_batch([], num_threads=threads)


def test_a_batch_is_not_a_row(echoing: FakeBackend) -> None:
    for wrong in ({"word": "a"}, "ab", 5, None):
        with pytest.raises(TypeError, match="rows must be a list or an iterator of rows"):
            say.run_batch(wrong)  # type: ignore[call-overload]


def test_rows_are_not_changed(echoing: FakeBackend) -> None:
    """b#22."""
    rows = [{"word": "a", "n": 3}, {"word": "bad"}]
    before = [dict(row) for row in rows]
    bound = say.bind(n=7)
    states = bound.run_batch(rows, max_retries=1, backoff=lambda attempt: 0)
    assert rows == before
    assert states[0].ret_value == 3, "a row's argument comes before one that is bound"


def test_the_body_runs_once_per_row_with_its_own_arguments(echoing: FakeBackend) -> None:
    """b#10: no run with placeholders before the others, which code of the body would see."""
    seen: list[int] = []
    prices = {"a": 1, "b": 2}

    @sgl.function
    def look_up(s: Any, name: str) -> int:
        seen.append(prices[name])  # a placeholder would be a KeyError
        s += "x" + sgl.gen("a")
        return prices[name]

    assert [state.ret_value for state in look_up.run_batch([("a",), ("b",), ("a",)])] == [1, 2, 1]
    assert sorted(seen) == [1, 1, 2]


def test_one_bad_row_costs_no_other(echoing: FakeBackend) -> None:
    """b#6: an exception of one body is in its state, and the other 99 rows are there."""
    states = say.run_batch([("raise" if i == 50 else f"w{i}",) for i in range(100)])
    assert [state.row for state in states if state.error() is not None] == [50]
    assert [state["said"] for state in states if state.row != 50] == [f"w{i}" for i in range(100) if i != 50]


def test_raise_gives_the_first_error_in_row_order_and_cancels_the_rest(echoing: FakeBackend) -> None:
    """b#6."""
    echoing.hold(lambda call: call.prompt in ("say slow bad", "say endless"))

    def release() -> None:
        echoing.wait_for_calls(2)
        echoing.hold(lambda call: call.prompt == "say endless")

    threading.Thread(target=release).start()
    with pytest.raises(ProgramError, match="boom"):
        say.run_batch([("slow bad",), ("raise",), ("endless",)], on_error="raise", num_threads=3)
    assert "say endless" in [call.prompt for call in echoing.calls if call.cancelled]
    echoing.release()
    with pytest.raises(ProgramError, match="mine"):
        list(say.run_batch([("raise",), ("a",)], on_error="raise", as_completed=True, generator_style=True))


def test_as_completed(echoing: FakeBackend) -> None:
    """b#35: a slow row holds nothing back, and each state says whose it is."""
    echoing.hold(lambda call: call.prompt == "say w0")
    states = say.run_batch(
        ({"word": f"w{i}"} for i in range(100)), as_completed=True, generator_style=True, num_threads=2
    )
    taken = [next(states) for _ in range(99)]
    assert all(state["said"] == f"w{state.row}" for state in taken)
    assert sorted(state.row or 0 for state in taken) == list(range(1, 100))
    echoing.release()
    assert [state.row for state in states] == [0]
    rows = [("bad" if i % 5 == 0 else f"w{i}",) for i in range(30)]
    assert {state.row: state.error() is None for state in say.run_batch(rows, as_completed=True)} == {
        i: i % 5 > 0 for i in range(30)
    }
    assert say("alone").row is None


async def _arriving(count: int) -> AsyncIterator[dict[str, Any]]:
    for i in range(count):
        await asyncio.sleep(0)
        yield {"word": f"w{i}"}


def test_rows_of_an_async_iterator(echoing: FakeBackend) -> None:
    assert [state["said"] for state in say.run_batch(_arriving(30))] == [f"w{i}" for i in range(30)]
    states = say.run_batch(_arriving(10**9), generator_style=True, num_threads=2)
    assert [next(states)["said"] for _ in range(20)] == [f"w{i}" for i in range(20)]
    states.close()

    async def inside() -> None:
        say.run_batch(_arriving(1))

    with pytest.raises(RuntimeError, match="would block the event loop"):
        asyncio.run(inside())


def test_a_source_that_breaks(echoing: FakeBackend) -> None:
    def rows() -> Iterator[tuple[str]]:
        yield ("a",)
        yield ("b",)
        raise OSError("the file is gone")

    states = say.run_batch(rows(), generator_style=True, num_threads=1)
    with pytest.raises(OSError, match="gone"):
        list(states)


@pytest.mark.parametrize(
    ("count", "as_completed"),
    [(3_000, False), (3_000, True), pytest.param(100_000, False, marks=pytest.mark.slow)],
)
def test_memory_is_bounded(count: int, as_completed: bool) -> None:
    """c#4, b#35: of any number of rows only those in the window have a state."""
    alive: weakref.WeakSet[sgl.ProgramState] = weakref.WeakSet()
    most = 0

    @sgl.function
    def short(s: Any, i: int) -> int:
        nonlocal most
        alive.add(s)
        most = max(most, len(alive))
        s += "x" + sgl.gen("a")
        return i

    states = short.run_batch(
        ({"i": i} for i in range(count)), backend=InstantBackend(), num_threads=3,
        generator_style=True, as_completed=as_completed,
    )  # fmt: skip
    assert sum(state.ret_value for state in states) == count * (count - 1) // 2
    assert 3 <= most <= 3 * WINDOW + 3, "and what the consumer and the threads hold in their hands"


def test_lazy_rows_are_read_as_needed(echoing: FakeBackend) -> None:
    read = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read
        for i in range(10_000_000):
            read = i + 1
            yield {"word": f"w{i}"}

    states = say.run_batch(rows(), num_threads=3, generator_style=True)
    for taken, state in enumerate(states, start=1):
        assert state["said"] == f"w{taken - 1}"
        assert read <= taken + 3 * WINDOW
        if taken == 100:
            break
    states.close()
    assert read <= 100 + 3 * WINDOW


def test_closing_early_cancels(echoing: FakeBackend) -> None:
    echoing.hold()

    def let_the_first_through() -> None:
        echoing.wait_for_calls(2)
        echoing.hold(lambda call: call.prompt != "say w0")

    threading.Thread(target=let_the_first_through).start()
    states = say.run_batch(({"word": f"w{i}"} for i in range(100)), num_threads=2, generator_style=True)
    assert next(states)["said"] == "w0"
    states.close()
    echoing.release()
    _wait_for_threads_to_leave()
    assert 1 <= echoing.cancelled() <= 2
    assert len(echoing.calls) <= 3, "what waited for a thread never began"


def _interrupt_at(echoing: FakeBackend, calls: int) -> None:
    """Ctrl-C, as soon as so many requests are in flight."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        echoing.wait_for_calls(calls)
        signal.pthread_kill(main, signal.SIGINT)

    echoing.hold()
    threading.Thread(target=interrupt).start()


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_an_interrupt_cancels_what_is_in_flight(echoing: FakeBackend) -> None:
    _interrupt_at(echoing, 4)
    with pytest.raises(KeyboardInterrupt):
        say.run_batch([(f"w{i}",) for i in range(20)], num_threads=4)
    assert echoing.cancelled() == 4
    echoing.release()
    _wait_for_threads_to_leave()
    assert len(echoing.calls) == 4


@pytest.mark.usefixtures("_ctrl_c")
def test_an_interrupt_cancels_a_run(echoing: FakeBackend) -> None:
    _interrupt_at(echoing, 1)
    with pytest.raises(KeyboardInterrupt):
        say("x")
    assert echoing.cancelled() == 1
    echoing.release()


def test_progress_bar(echoing: FakeBackend, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [(f"w{i}",) for i in range(5)] + [("bad",), ("raise",)]
    say.run_batch(rows, progress_bar=True)
    out, err = capfd.readouterr()
    assert "7/7" in err and "say" in err and out == ""


def test_the_progress_bar_is_closed_when_the_batch_breaks_off(echoing: FakeBackend) -> None:
    """b#6."""

    def bars() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if type(thread).__name__ == "_RefreshThread"]

    def rows() -> Iterator[tuple[str]]:
        yield ("a",)
        assert len(bars()) == 1
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone"):
        say.run_batch(rows(), progress_bar=True)
    for bar in bars():
        bar.join(timeout=20)  # it is told to leave, and does at once
        assert not bar.is_alive()


def test_something_around_a_batch(echoing: FakeBackend) -> None:
    """What has to be there before the first row, and until the last has ended."""
    seen: list[Any] = []

    @contextmanager
    def around() -> Iterator[None]:
        seen.append(len(echoing.calls))
        yield
        seen.append(len(echoing.calls))

    batch = say._batch("run_batch", [("a",), ("b",)], None, {}, BatchOptions())
    states = replace(batch, around=around).states()
    assert seen == []
    assert next(states)["said"] == "a" and len(seen) == 1
    assert len(list(states)) == 1 and seen == [0, 2]


def test_threads_leave(echoing: FakeBackend) -> None:
    say.run_batch([(f"w{i}",) for i in range(30)], num_threads=5)
    _wait_for_threads_to_leave()


def _wait_for_threads_to_leave() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("sgl-say"):
            thread.join(timeout=20)
            assert not thread.is_alive()
