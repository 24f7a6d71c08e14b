"""Errors never hang and never vanish (c#1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError, PromptTooLongError, RequestAborted, SamplingParamsError
from tests.support.frontend_fake_backend import Call, FakeBackend


def failing(call: Call) -> str | Exception:
    if "refuse" in call.prompt:
        return PromptTooLongError("too long")
    return EngineError("boom") if "fail" in call.prompt else f"ok {len(call.ids)}"


@pytest.fixture
def broken(backend: FakeBackend) -> FakeBackend:
    backend._respond = failing
    return backend


@sgl.function
def two(s: Any, word: str) -> None:
    s += "first" + sgl.gen("a")
    s += word + sgl.gen("b")
    s += "after" + sgl.gen("c")


@pytest.mark.parametrize(("word", "cause"), [("fail", EngineError), ("refuse", PromptTooLongError)])
def test_one_error_for_every_reader(broken: FakeBackend, word: str, cause: type[Exception]) -> None:
    """b#4: the error names cause, node, variable and prompt; no bare KeyError."""
    state = two(word)
    error = state.error()
    assert isinstance(error, ProgramError) and isinstance(error.__cause__, cause)
    assert (error.program, error.node, error.variable) == ("two", "gen('b')", "b")
    assert error.prompt_tail == "first" + state["a"] + word
    assert (
        "two, gen('b')" in str(error)
        and cause.__name__ in str(error)
        and repr(error.prompt_tail) in str(error)
    )
    readers = [
        lambda: state["b"],
        lambda: state["c"],
        lambda: state["unknown"],
        lambda: state.get_meta_info("b"),
        state.text,
        state.messages,
        lambda: list(state.text_iter()),
        lambda: list(state.text_iter("b")),
        lambda: asyncio.run(_collect(state)),
    ]
    for read in readers * 2:
        with pytest.raises(ProgramError) as caught:
            read()
        assert caught.value is error
    assert "b" not in state and state.sync() is state
    assert state["a"].startswith("ok"), "what was there before the failure stays"
    assert len(broken.calls) == 2, "what was queued after the failure is dropped"


async def _collect(state: Any) -> list[str]:
    return [chunk async for chunk in state.text_async_iter("c")]


def test_adding_after_an_error_does_not_hang(broken: FakeBackend) -> None:
    """b#3"""

    @sgl.function
    def program(s: Any) -> None:
        s += "fail" + sgl.gen("a")
        assert s.error() is not None
        for _ in range(3):
            s += sgl.user("more" + sgl.gen("b"))
            with pytest.raises(ProgramError, match="boom"):
                s["b"]
        forks = s.fork(2)
        forks += "x" + sgl.gen("c")
        assert all(fork.error() is s.error() for fork in forks)
        forks.join()
        with pytest.raises(ProgramError, match="boom"):
            s["c"]

    assert "boom" in str(program().error())


def test_error_is_known_right_after_sync(broken: FakeBackend) -> None:
    """b#5"""
    for _ in range(200):
        assert two("fail").sync()._interpreter.error is not None


def test_invalid_values_become_the_states_error(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", temperature=-1)

    error = program().error()
    assert error is not None and isinstance(error.__cause__, SamplingParamsError)


def test_what_the_body_raises_is_raised_unchanged(backend: FakeBackend) -> None:
    """b#7: kept in the state of a stream, too."""

    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        program()

    state = program.run(stream=True)
    error = state.error()
    assert error is not None and isinstance(error.__cause__, LookupError)
    assert "program: LookupError: mine" in str(error)
    with pytest.raises(ProgramError, match="mine"):
        state.ret_value  # noqa: B018


def test_a_failed_read_in_the_body_is_the_states_error(broken: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> str:
        s += "fail" + sgl.gen("a")
        return str(s["a"])

    with pytest.raises(ProgramError, match="boom") as caught:
        program()
    assert isinstance(caught.value.__cause__, EngineError)
    state = program.stream()
    assert isinstance(state.error().__cause__, EngineError), "wrapped once, not twice"  # type: ignore[union-attr]


def test_a_broken_backend_fails_the_state(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*args: Any, **options: Any) -> list[int]:
        raise RuntimeError("tokenizer is gone")

    monkeypatch.setattr(backend, "encode", encode)
    assert "RuntimeError: tokenizer is gone" in str(two("x").error())


def test_cancel(backend: FakeBackend) -> None:
    backend.hold()
    state = two.run("x", stream=True)
    backend.wait_for_calls(1)
    state.cancel()
    error = state.error()
    assert error is not None and isinstance(error.__cause__, RequestAborted)
    assert backend.cancelled() == 1
    backend.release()
    with pytest.raises(ProgramError, match="cancelled"):
        state["b"]


def test_cancel_reaches_forks(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x"
        forks = s.fork(3)
        forks += sgl.gen("a")
        forks.join()
        s += sgl.gen("b")

    backend.hold()
    state = program.stream()
    backend.wait_for_calls(3)
    state.cancel()
    assert state.error() is not None and backend.cancelled() == 3
    backend.release()
