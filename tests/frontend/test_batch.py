"""run_batch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from sgl_like.frontend.batch import WINDOW
from tests.support.frontend_fake_backend import Call, FakeBackend


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
    assert say.run_batch([]) == []
    assert list(say.run_batch([], generator_style=True)) == []


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


def test_threads_leave(echoing: FakeBackend) -> None:
    say.run_batch([(f"w{i}",) for i in range(30)], num_threads=5)
    _wait_for_threads_to_leave()


def _wait_for_threads_to_leave() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("sgl-say"):
            thread.join(timeout=20)
            assert not thread.is_alive()
