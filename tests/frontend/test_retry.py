"""run_batch: another attempt, and rows that take too long."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import (
    DeadlineExceeded,
    EngineClosedError,
    EngineError,
    ProgramError,
    RemoteAuthenticationError,
    RemoteRateLimitError,
    RemoteRequestError,
    RequestAborted,
    RequestError,
)
from sgl_like.frontend.batches.retry import exponential_backoff, is_transient
from tests.support.frontend_fake_backend import Call, FakeBackend
from tests.support.timers import ManualTimers


class Busy(RequestError):
    transient = True


def caused(cause: BaseException) -> ProgramError:
    error = ProgramError("failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("out of memory"), True), (DeadlineExceeded("late"), True), (ConnectionResetError(), True),
        (TimeoutError(), True), (Busy("429"), True), (EngineClosedError("shut down"), False),
        (RequestAborted("cancelled"), False), (RequestError("bad"), False), (LookupError("mine"), False),
        (FileNotFoundError(), False), (caused(LookupError()), False), (caused(caused(TimeoutError())), True),
        (RemoteRateLimitError("429"), True), (RemoteRequestError("400"), False),
        (RemoteAuthenticationError("401"), False), (None, False),
    ],
)  # fmt: skip
def test_what_is_transient(error: BaseException | None, expected: bool) -> None:
    assert is_transient(error) is expected
    assert error is None or is_transient(caused(error)) is expected


def test_backoff_grows_to_a_limit() -> None:
    for attempt, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (10**6, 30.0)]:
        drawn = [exponential_backoff(attempt) for _ in range(100)]
        assert longest / 2 <= min(drawn) < max(drawn) <= longest


class Unreliable:
    """Answers a prompt, but only at its n-th attempt if the prompt says so."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, call: Call) -> str | Exception:
        self.asked[call.prompt] += 1
        if "refused" in call.prompt:
            return RequestError("no such thing")
        needed = int(call.prompt.split()[-1])
        return "done" if self.asked[call.prompt] >= needed else EngineError("busy")


@sgl.function
def ask(s: Any, what: str, ran: list[str]) -> None:
    ran.append(what)
    s += what
    s += sgl.gen("a")


def test_a_transient_failure_is_tried_again(backend: FakeBackend) -> None:
    """c#4."""
    timers = ManualTimers(backend, at_once=100)
    unreliable = backend._respond = Unreliable()
    ran: list[str] = []
    words = ["needs 1", "needs 3", "refused", "needs 4"]
    states = ask.bind(ran=ran).run_batch(
        [(word,) for word in words], num_threads=1, max_retries=2, backoff=lambda attempt: 10.0 * attempt
    )
    assert [state.error() is None for state in states] == [True, True, False, False]
    assert states[1]["a"] == "done" and [state.row for state in states] == [0, 1, 2, 3]
    assert "busy" in str(states[3].error())
    assert Counter(ran) == {"needs 1": 1, "needs 3": 3, "refused": 1, "needs 4": 3} == unreliable.asked
    assert sorted(timers.seconds) == [10.0, 10.0, 20.0, 20.0]


def test_nothing_is_tried_again_unless_asked(backend: FakeBackend) -> None:
    """b#10: user code runs once for a row."""
    backend._respond = Unreliable()
    ran: list[str] = []
    states = ask.bind(ran=ran).run_batch([("needs 2",), ("needs 1",)])
    assert [state.error() is None for state in states] == [False, True]
    assert sorted(ran) == ["needs 1", "needs 2"]


def test_other_rows_go_on_while_one_waits(backend: FakeBackend) -> None:
    timers = ManualTimers(backend)
    backend._respond = Unreliable()
    rows = [("needs 2",), *(("needs 1",) for _ in range(20))]
    states = ask.bind(ran=[]).run_batch(
        iter(rows), num_threads=1, max_retries=1, as_completed=True, generator_style=True
    )
    # the window has 4 places, one of which the first row keeps
    assert [next(states).row for _ in range(20)] == list(range(1, 21))
    timers.fire()
    last = next(states)
    assert (last.row, last["a"]) == (0, "done")
    assert list(states) == []


def test_closing_while_a_row_waits_for_another_attempt(backend: FakeBackend) -> None:
    timers = ManualTimers(backend)
    backend._respond = Unreliable()
    states = ask.bind(ran=[]).run_batch(
        [("needs 1",), ("needs 2",)], num_threads=1, max_retries=1, generator_style=True
    )
    assert next(states)["a"] == "done"
    with timers._set:
        assert timers._set.wait_for(lambda: len(timers.waiting()) == 1, timeout=20)
    states.close()
    assert timers.waiting() == []
    assert len(backend.calls) == 2


def test_a_broken_backoff_ends_the_batch(backend: FakeBackend) -> None:
    backend._respond = Unreliable()
    with pytest.raises(ZeroDivisionError):
        ask.bind(ran=[]).run_batch([("needs 2",)], max_retries=1, backoff=lambda attempt: 1 / 0)


def test_a_row_that_takes_too_long(backend: FakeBackend) -> None:
    """c#4, c#14: the request is cancelled, and the other rows are not affected."""
    timers = ManualTimers(backend)
    backend.hold(lambda call: "slow" in call.prompt)

    @sgl.function
    def wait(s: Any, word: str) -> str:
        s += word + sgl.gen("a")
        return str(s["a"])

    firing = threading.Thread(target=timers.fire)
    firing.start()
    states = wait.run_batch([("slow",)], timeout=5, num_threads=1)
    firing.join()
    error = states[0].error()
    assert isinstance(error, ProgramError) and isinstance(error.__cause__, DeadlineExceeded)
    assert "row 0 had not ended after 5 s" in str(error)
    for read in (states[0].text, lambda: states[0]["a"], lambda: states[0].ret_value):
        with pytest.raises(ProgramError, match="had not ended"):
            read()
    assert backend.cancelled() == 1
    assert timers.seconds == [5]
    assert [state.error() for state in wait.run_batch([("x",), ("y",)], timeout=5)] == [None, None]
    assert timers.waiting() == [], "timers of rows that ended are cancelled"
    backend.release()


def test_what_ran_out_of_time_may_be_tried_again(backend: FakeBackend) -> None:
    timers = ManualTimers(backend, at_once=1)
    backend.hold(lambda call: call is backend.calls[0])
    firing = threading.Thread(target=timers.fire)
    firing.start()
    states = ask.bind(ran=[]).run_batch([("x",)], timeout=5, max_retries=1)
    firing.join()
    assert states[0]["a"] == "answer 2"
    assert len(timers.seconds) == 3 and timers.seconds[::2] == [5, 5] and timers.seconds[1] <= 0.5
    backend.release()


def test_a_body_that_does_not_notice_costs_a_thread_and_not_the_batch(backend: FakeBackend) -> None:
    timers = ManualTimers(backend)
    stuck = threading.Event()
    returned = threading.Event()

    @sgl.function
    def stubborn(s: Any, i: int) -> int:
        if i == 0:
            stuck.wait(timeout=20)
            returned.set()
        s += "x" + sgl.gen("a")
        return i

    firing = threading.Thread(target=timers.fire)
    firing.start()
    states = stubborn.run_batch([(i,) for i in range(12)], timeout=5, num_threads=1)
    firing.join()
    assert not returned.is_set()
    assert [state.error() is None for state in states] == [False, *[True] * 11]
    assert [state.ret_value for state in states[1:]] == list(range(1, 12))
    with pytest.raises(ProgramError, match="had not ended"):
        _ = states[0].ret_value
    stuck.set()
    assert returned.wait(timeout=20)
    for thread in threading.enumerate():
        if thread.name.startswith("sgl-stubborn"):
            thread.join(timeout=20)
            assert not thread.is_alive()
    assert len(backend.calls) == 11, "a state whose time was up takes nothing more"


def test_options_out_of_range(backend: FakeBackend) -> None:
    for option in ({"timeout": 0}, {"timeout": -1}, {"max_retries": -1}, {"max_retries": 1.5}):
        with pytest.raises(ValueError, match=next(iter(option))):
            ask.run_batch([], **option)  # type: ignore[call-overload]
