"""fork, join and copy."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from tests.support.frontend_fake_backend import Call, FakeBackend


def echo(call: Call) -> str | Exception:
    return EngineError("boom") if "bad" in call.prompt else call.prompt[-3:]


@pytest.fixture
def echoing(backend: FakeBackend) -> FakeBackend:
    backend._respond = echo
    return backend


def test_children_start_after_what_was_queued(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "start" + sgl.gen("a")
        forks = s.fork(2)
        s += " parent goes on"
        forks += [" one" + sgl.gen("b"), " two" + sgl.gen("b")]
        assert len(forks) == 2 and [fork["b"] for fork in forks] == ["one", "two"]
        assert forks[0].text() == "startart oneone" and forks[1]["a"] == "art"
        assert forks[0].get_meta_info("b")["prompt_tokens"] > 0
        forks.join()
        assert s["b"] == ["one", "two"] and s["a"] == "art"

    state = program()
    assert state.text() == "startart parent goes on"
    first, *rest = echoing.calls
    kept = first.ids + first.sampled[:-1]
    assert all(call.ids[: len(kept)] == kept for call in rest), "forks share the exact prefix"
    assert state.usage.completion_tokens == 3 * 4


def test_additions_to_all(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        forks = s.fork(3)
        forks += "all"
        forks += lambda i: f" {i}" + sgl.gen("n")
        assert [fork.text() for fork in forks] == [f"all {i}l {i}" for i in range(3)]
        with pytest.raises(ValueError, match="1 expressions for 3 forks"):
            forks += ["x"]
        with pytest.raises(TypeError, match="not int"):
            forks += 3
        with pytest.raises(TypeError, match="cannot be replaced"):
            forks[0] = s
        with pytest.raises(ValueError, match="at least 1"):
            s.fork(0)
        with pytest.raises(ValueError, match="mode must be"):
            forks.join("merge")

    assert program().error() is None


def test_forks_in_an_open_message(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with s.user():
            s += "Q"
            forks = s.fork(2)
            for i, fork in enumerate(forks):
                fork += f" part{i}" + sgl.gen("p")
                with pytest.raises(ProgramError, match="cannot begin inside the user"):
                    fork += sgl.user("x")
            forks.join("concate_and_append")
            s += " end"
        s += sgl.assistant(sgl.gen("a"))

    state = program()
    assert state.messages()[0]["content"] == "Q part0rt0 part1rt1 end"
    assert state.text().startswith("<|user|>Q part0rt0 part1rt1 end<|end|><|assistant|>")
    one, two, last = (call for call in sorted(echoing.calls, key=lambda call: len(call.ids)))
    for part in (one, two):
        assert _contains(last.ids, part.sampled[:-1]), "appended text keeps the ids that were sampled"


def _contains(ids: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(ids[at : at + len(part)] == part for at in range(len(ids)))


def test_append_needs_the_same_message(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with s.user():
            forks = s.fork(1)
            forks += "x" + sgl.user_end()
            forks.join("concate_and_append")

    assert "fork 0 and its parent must be in the message they parted in" in str(program().error())

    @sgl.function
    def whole_messages(s: Any) -> None:
        s += sgl.user("q")
        forks = s.fork(2)
        forks += lambda i: sgl.assistant(f"a{i}")
        forks.join("concate_and_append")

    assert [message["content"] for message in whole_messages().messages()] == ["q", "a0", "a1"]


def test_joined_lists_stay_aligned(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("old")
        forks = s.fork(3)
        forks[0] += sgl.gen("a")
        forks[2] += sgl.gen("a") + sgl.gen("b")
        forks[1]["note"] = 7
        forks.join()

    state = program()
    assert [value is None for value in state["a"]] == [False, True, False]
    assert [value is None for value in state["b"]] == [True, True, False]
    assert state["note"] == [None, 7, None]
    assert isinstance(state["old"], str), "what a fork inherited is not gathered"


def test_joins_in_a_loop_bring_new_values(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        for i in range(3):
            forks = s.fork(1)
            forks += f"round{i}" + sgl.gen("v")
            forks.join()
            assert s["v"] == [f"nd{i}"]

    assert program().error() is None


def test_nested_joins_nest_lists(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        outer = s.fork(2)
        for i, fork in enumerate(outer):
            inner = fork.fork(2)
            inner += lambda j, i=i: f"leaf{i}{j}" + sgl.gen("v")
            inner.join()
        outer.join()

    assert program()["v"] == [["f00", "f01"], ["f10", "f11"]]


def test_a_failed_fork_fails_the_join(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        forks = s.fork(3)
        forks += [word + sgl.gen("a") for word in ("good", "bad", "fine")]
        forks.join()
        s += "after" + sgl.gen("z")

    state = program()
    error = state.error()
    assert error is not None and "fork 1 of 3 failed" in str(error) and "boom" in str(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, EngineError):
        cause = cause.__cause__
    assert cause is not None, "the chain leads to the backend's error"
    for name in ("a", "z"):
        with pytest.raises(ProgramError, match="fork 1 of 3"):
            state[name]


def test_a_failure_before_the_fork_reaches_the_children(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        echoing.hold()
        s += "bad" + sgl.gen("a")
        forks = s.fork(2)
        forks += "x" + sgl.gen("b")
        nested = forks[0].fork(1)
        echoing.release()
        for state in (*forks, *nested):
            with pytest.raises(ProgramError, match="boom"):
                state.text()
        with pytest.raises(ProgramError, match="boom"):
            forks[0]["b"]
        with pytest.raises(ProgramError, match="boom"):
            forks[0]["a"]

    assert program().error() is not None


def test_a_joined_fork_can_be_read_but_not_continued(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        forks = s.fork(2)
        forks += "x" + sgl.gen("a")
        forks.join()
        assert forks[0]["a"] == "x"
        for use in (lambda: forks.__iadd__("y"), lambda: forks[0].fork(2), forks.join):
            with pytest.raises(ProgramError, match="the fork has been joined"):
                use()

    assert program()["a"] == ["x", "x"]


def test_copy(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "abc"
        with s.copy() as t:
            t += "def" + sgl.gen("v")
        with pytest.raises(ZeroDivisionError), s.copy() as t:
            t += "x" + sgl.gen("w")
            raise ZeroDivisionError
        assert t.error() is not None

    state = program()
    assert state["v"] == ["def"] and "w" not in state and state.text() == "abc"


def test_forks_need_no_threads(echoing: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, i: int) -> None:
        s += f"p{i}"
        forks = s.fork(4)
        forks += lambda j: f" f{j}" + sgl.gen("a") + sgl.gen("b")
        forks.join()

    before = threading.active_count()
    states = program.run_batch([(i,) for i in range(200)], num_threads=8)
    assert all(len(state["b"]) == 4 for state in states)
    assert echoing.max_threads <= before + 8 + 2, "workers, the executor and the backend's own"
