"""What a group of forks can do beside joining (c#19), and what becomes of forks that fail (b#8, b#23)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from tests.support.frontend_fake_backend import Call, FakeBackend


def respond(call: Call) -> str | Exception:
    """The last word of the prompt; an error after "bad"."""
    word = call.prompt.split()[-1]
    return EngineError("boom") if word == "bad" else word


@pytest.fixture(autouse=True)
def _echo(backend: FakeBackend) -> None:
    backend._respond = respond


def forked(s: Any, *words: str) -> Any:
    forks = s.fork(len(words))
    forks += [f" {word}" + sgl.gen("x") for word in words]
    return forks


def test_join_keeps_places_where_a_fork_has_failed() -> None:
    """b#8: three forks give three values, and the one that failed says why."""

    @sgl.function
    def program(s: Any) -> Any:
        s += "start"
        forks = forked(s, "a", "bad", "c")
        forks.join(on_error="return")
        return forks

    state = program()
    assert state["x"] == ["a", None, "c"] and state.error() is None
    errors = state.ret_value.errors()
    assert [error is None for error in errors] == [True, False, True] and "boom" in str(errors[1])


def test_join_raises_by_default_and_names_the_fork() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "start"
        forked(s, "a", "bad").join()

    with pytest.raises(ProgramError, match="fork 1 of 2 failed"):
        program()["x"]
    with pytest.raises(ValueError, match="on_error must be"):
        sgl.function(lambda s: s.fork(1).join(on_error="drop"))()


def test_the_error_of_a_fork_says_once_where_its_prompt_ended() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "a"
        forks = s.fork(2)
        forks += "b" + sgl.gen("x", temperature=-1)
        forks.join()

    error = program(backend=FakeBackend()).error()
    assert error is not None and str(error).startswith(
        "program, join(): fork 0 of 2 failed: program, gen('x'):"
    )
    assert str(error).endswith("(prompt ends with 'ab')") and str(error).count("prompt ends") == 1


def test_texts_of_failed_forks_are_left_out() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "start"
        forked(s, "a", "bad", "c").join("concate_and_append", on_error="return")

    assert program().text() == "start aa cc"


def test_values_of_all_forks_by_name() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "start"
        forks = forked(s, "a", "b")
        assert forks["x"] == ["a", "b"]
        assert [len(forks), len(forks[1:]), forks[-1]["x"]] == [2, 1, "b"]
        with pytest.raises(KeyError, match="no variable 'y'"):
            forks["y"]
        with pytest.raises(IndexError):
            forks[2]
        with pytest.raises(ProgramError, match="boom"):
            forked(s, "a", "bad")["x"]
        forks.join()

    program()


def test_map_runs_side_by_side_and_in_order() -> None:
    @sgl.function
    def program(s: Any) -> list[str]:
        s += "start"
        forks = s.fork(3)
        together = threading.Barrier(3, timeout=30)

        def step(fork: Any, word: str) -> str:
            together.wait()  # none gets past unless all are running
            fork += f" {word}" + sgl.gen("x")
            return str(fork["x"]) + "!"

        with pytest.raises(ValueError, match="iterable 0 has 1 items for 3 forks"):
            forks.map(step, "a")
        result: list[str] = forks.map(step, "abc")
        with pytest.raises(ZeroDivisionError):
            forks.map(lambda fork: 1 / 0)
        return result

    assert program().ret_value == ["a!", "b!", "c!"]


def test_the_best_fork() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "start"
        forks = forked(s, "3", "10", "bad", "10")
        assert forks.best("x") is forks[1], "numbers, not text; of equals the first; failures left out"
        assert forks[:2][0] is forks.best(lambda fork: -float(fork["x"]))
        with pytest.raises(KeyError):
            forks.best("y")
        with pytest.raises(ValueError, match=r"best\('x'\): 'a' is not a number"):
            forked(s, "a").best("x")
        with pytest.raises(ProgramError, match="all 2 forks have failed"):
            forked(s, "bad", "bad").best("x")

    program()


def test_the_kept_fork_is_gone_on_with(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "start" + sgl.gen("before")
        forks = forked(s, "1", "2", "bad")
        forks[1]["note"] = "mine"
        forks.keep(forks.best("x"))
        s += " then" + sgl.gen("after")
        with pytest.raises(ProgramError, match="the fork has been joined"):
            forks += "more"
        with pytest.raises(ProgramError, match="cannot be joined"):
            forks.keep(0)
        with pytest.raises(ValueError, match="one of these forks"):
            forks.keep(s)

    state = program()
    assert state.text() == "startstart 22 thenthen"
    assert (state["x"], state["note"], state["before"], state["after"]) == ("2", "mine", "start", "then")
    assert state.get_meta_info("x") is not None, "meta information comes along"
    assert not state._interpreter.children
    kept = next(call for call in backend.calls if call.prompt.endswith(" 2"))
    last = backend.calls[-1]
    assert last.ids[: len(kept.ids) + 1] == kept.ids + kept.sampled[:1], (
        "as the very tokens that the fork had"
    )


def test_to_keep_a_failed_fork_is_the_parents_error() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "start"
        forked(s, "a", "bad").keep(1)

    assert "fork 1 of 2 failed" in str(program().error())


def test_forks_know_what_was_before_them() -> None:
    """b#23: values and meta information of the parent are there in a fork."""

    @sgl.function
    def program(s: Any) -> None:
        s += "start" + sgl.gen("x")
        fork = s.fork(1)[0]
        assert fork["x"] == "start" and fork.get_meta_info("x") == s.get_meta_info("x") is not None

    program()
