"""Scopes of variables and of roles: values, what is open, what comes after an exception.

Marks: b#20, b#21, b#23.
"""

from __future__ import annotations

from typing import Any

import pytest

import sgl_like as sgl
from tests.support.frontend_fake_backend import FakeBackend


def test_a_scope_is_the_text_between_its_ends(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "before "
        with s.var_scope("outer"):
            s += "{" + sgl.gen()
            with s.var_scope("inner"):
                s += ", " + sgl.gen()
            s += "}"
        assert s["outer"] == "{answer 1, answer 2}"
        s += " after"

    state = program()
    assert state["inner"] == ", answer 2"
    assert state.text() == "before {answer 1, answer 2} after"
    assert state.get_meta_info("outer") is None


def test_a_scope_may_span_messages(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with s.var_scope("all"):
            s += sgl.user("hi") + sgl.assistant(sgl.gen("a"))

    assert program()["all"] == "<|user|>hi<|end|><|assistant|>answer 1<|end|>"


def test_b21_a_scope_ends_when_its_block_raises(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with pytest.raises(KeyError, match="mine"), s.var_scope("x"):
            s += "half"
            raise KeyError("mine")
        s += " and more"

    assert program()["x"] == "half"


def test_b21_a_role_ends_when_its_block_raises(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with pytest.raises(KeyError, match="mine"), s.user():
            s += "half"
            raise KeyError("mine")
        s += sgl.assistant("whole")

    assert program().messages() == [
        {"role": "user", "content": "half"},
        {"role": "assistant", "content": "whole"},
    ]


def test_b21_a_message_of_none_is_an_error_and_an_empty_one_is_sgl_user(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with pytest.raises(TypeError, match=r"s\.user\(None\)"):
            s.user(None)
        s += sgl.user() + sgl.assistant(None)

    assert [message["content"] for message in program().messages()] == ["", ""]


def test_b20_an_added_message_is_written_once(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s.user("a")
        s += s.user("b")
        s += s.assistant(sgl.gen("x"))

    assert [message["content"] for message in program().messages()] == ["a", "b", "answer 1"]
    assert len(backend.calls) == 1


def test_begin_and_end_are_the_same_as_a_message(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system_begin() + "a" + sgl.system_end()
        s += sgl.user_begin() + "b" + sgl.user_end()
        s += sgl.assistant_begin()
        s += sgl.gen("x")
        s += sgl.assistant_end()

    assert program().messages() == [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "answer 1"},
    ]


def test_other_roles_are_those_of_the_template(backend: FakeBackend) -> None:
    class WithTools(FakeBackend):
        def role_affixes(self, messages: Any, role: str) -> tuple[str, str]:
            return ("<|tool|>", "<|end|>") if role == "tool" else super().role_affixes(messages, role)

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("?") + sgl.role("tool", "7")
        s.role("tool", "8")
        with s.role("tool"):
            s += "9"

    state = program.run(backend=WithTools())
    assert [message["role"] for message in state.messages()] == ["user", "tool", "tool", "tool"]
    assert state.text() == "<|user|>?<|end|><|tool|>7<|end|><|tool|>8<|end|><|tool|>9<|end|>"
    with pytest.raises(sgl.ProgramError, match="unknown role 'tool'"):
        program().text()


def test_b23_an_open_scope_is_an_error_in_its_own_block_and_never_a_number(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with s.var_scope("x"):
            s += "a"
            assert "x" not in s
            with pytest.raises(sgl.ProgramError, match=r"var_scope\('x'\) is still open"):
                s["x"]
            with pytest.raises(sgl.ProgramError, match="still open"):
                list(s.text_iter("x"))
            fork = s.fork(1)[0]
            with pytest.raises(sgl.ProgramError, match="still open"):
                fork["x"]

    assert program()["x"] == "a"


def test_b23_a_fork_keeps_values_and_meta_info(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with s.var_scope("scope"):
            s += "q: " + sgl.gen("x")
        fork = s.fork(1)[0]
        assert fork["scope"] == "q: answer 1" and fork["x"] == "answer 1"
        assert fork.get_meta_info("x") == s.get_meta_info("x") is not None

    program()


def test_forks_inside_a_scope(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        with s.var_scope("x"):
            s += "a"
            forks = s.fork(2)
            forks += lambda i: f"{i}"
            forks.join("concate_and_append")
            others = s.fork(2)
            others += " lost"
            with others[0].var_scope("own"):
                others[0] += " kept"
            others.join()
            s += "z"

    state = program()
    assert state["x"] == "a01z" == state.text()
    assert state["own"] == [" kept", None]


def test_readers_in_other_threads_wait_for_the_end_and_see_text_as_it_comes(backend: FakeBackend) -> None:
    backend.hold()

    @sgl.function
    def program(s: Any) -> None:
        with s.var_scope("x"):
            s += "a" + sgl.gen("y")
            s["y"]

    state = program.stream()
    chunks = state.text_iter("x")
    assert next(chunks) == "a"
    backend.release()
    rest = list(chunks)
    assert "a" + "".join(rest) == state["x"] == "aanswer 1"


def test_a_failed_scope_says_why(backend: FakeBackend) -> None:
    backend._respond = lambda call: ValueError("broken")

    @sgl.function
    def program(s: Any) -> None:
        with s.var_scope("x"):
            s += "a" + sgl.gen("y")

    state = program()
    with pytest.raises(sgl.ProgramError, match="broken"):
        state["x"]
