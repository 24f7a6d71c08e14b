"""Text as it arrives: nothing is lost, whoever reads, whenever."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from sgl_like.frontend.variables import UnknownVariableError
from tests.support.frontend_fake_backend import FakeBackend

LONG = "once upon a time there was a test "


@pytest.fixture
def telling(backend: FakeBackend) -> FakeBackend:
    backend._respond = lambda call: EngineError("boom") if "fail" in call.prompt else LONG
    return backend


@sgl.function
def story(s: Any, word: str = "tell") -> int:
    s += sgl.user(word)
    s += sgl.assistant(sgl.gen("a") + " and " + sgl.gen("b"))
    return 7


def test_pieces_add_up(telling: FakeBackend) -> None:
    telling.hold()
    state = story.stream()
    pieces = state.text_iter()
    whole = [next(pieces)]
    telling.release()
    whole += pieces
    assert len(whole) > 1 and "".join(whole) == state.text()
    for name in ("b", "a", "b"):  # b#2: one after another, when the program has ended
        assert "".join(state.text_iter(name)) == state[name] == LONG
    assert state.ret_value == 7 and state.error() is None


def test_without_stream_the_text_comes_too(telling: FakeBackend) -> None:
    state = story()
    assert list(state.text_iter()) == [state.text()]
    assert list(state.text_iter("a")) == [LONG]


def test_a_slow_consumer_loses_nothing(telling: FakeBackend) -> None:
    """b#1: the consumer takes a piece, and then everything else happens before it asks again."""
    telling.hold()
    state = story.stream()
    pieces = state.text_iter()
    got = [next(pieces)]
    telling.release()
    state.sync()
    got += pieces
    assert "".join(got) == state.text() and LONG in state.text()


def test_many_consumers(telling: FakeBackend) -> None:
    telling.hold()
    state = story.stream()
    results: list[str] = []
    names = [None, "a", "b", None, "b"]
    threads = [
        threading.Thread(target=lambda name=name: results.append("".join(state.text_iter(name))))
        for name in names
    ]
    for thread in threads:
        thread.start()
    telling.release()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([state.text()] * 2 + [LONG] * 3)


def test_reading_before_the_body_gets_there(telling: FakeBackend) -> None:
    may_go = threading.Event()

    @sgl.function
    def late(s: Any) -> None:
        may_go.wait()
        s += "x" + sgl.gen("a")

    state = late.stream()
    reader: list[str] = []
    thread = threading.Thread(target=lambda: reader.append(state["a"]))
    thread.start()
    pieces = state.text_iter("a")
    may_go.set()
    assert "".join(pieces) == LONG
    thread.join()
    assert reader == [LONG]
    with pytest.raises(UnknownVariableError):
        state["nothing"]
    with pytest.raises(UnknownVariableError):
        list(state.text_iter("nothing"))


def test_the_body_can_stream_itself(telling: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> str:
        s += "x" + sgl.gen("a")
        first = "".join(s.text_iter("a"))
        assert "".join(s.text_iter()) == s.text() == "x" + first
        return first

    assert program.stream().ret_value == LONG
    assert program().ret_value == LONG


def test_errors_end_the_stream(telling: FakeBackend) -> None:
    state = story.stream("fail")
    got = []
    with pytest.raises(ProgramError, match="boom"):
        for piece in state.text_iter():
            got.append(piece)
    assert "".join(got) == "<|user|>fail<|end|><|assistant|>half", "what came before the error is seen"
    for name in ("a", "b"):
        with pytest.raises(ProgramError, match="boom"):
            list(state.text_iter(name))


def test_forks_stream_too(telling: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x"
        forks = s.fork(2)
        forks += sgl.gen("a")
        assert ["".join(fork.text_iter("a")) for fork in forks] == [LONG, LONG]
        forks.join()

    state = program.stream()
    assert state["a"] == [LONG, LONG] and "".join(state.text_iter()) == "x"


async def _pieces(state: Any, name: str | None = None) -> list[str]:
    return [piece async for piece in state.text_async_iter(name)]


def test_async_consumers(telling: FakeBackend) -> None:
    async def main() -> None:
        telling.hold()
        states = [story.stream() for _ in range(5)]
        tasks = [asyncio.create_task(_pieces(state, name)) for state in states for name in (None, "b")]
        ticks = 0
        while ticks < 50:  # the loop goes on while everybody waits
            await asyncio.sleep(0)
            ticks += 1
        assert not any(task.done() for task in tasks)
        telling.release()
        for at, got in enumerate(await asyncio.gather(*tasks)):
            state = states[at // 2]
            assert "".join(got) == (state["b"] if at % 2 else state.text())

    asyncio.run(main())


def test_async_errors_and_cancellation(telling: FakeBackend) -> None:
    async def main() -> None:
        with pytest.raises(ProgramError, match="boom"):
            await _pieces(story.stream("fail"))
        telling.hold()
        state = story.stream()
        task = asyncio.create_task(_pieces(state, "b"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        telling.release()
        assert "".join(await _pieces(state, "b")) == LONG

    asyncio.run(main())
    assert not telling.calls[-1].cancelled


def test_run_equals_batch_equals_stream(telling: FakeBackend) -> None:
    [batch] = story.run_batch([{}])
    assert story().text() == story.stream().text() == batch.text()
