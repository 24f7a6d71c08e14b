"""Programs in programs: one prompt, names of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from sgl_like.frontend.variables import UnknownVariableError
from tests.support.frontend_fake_backend import FakeBackend


@sgl.function
def think(s: Any, topic: str, times: int = 1) -> str:
    """Two gens and a value."""
    for _ in range(times):
        s += f"[{topic}:" + sgl.gen("thought") + "]"
    s["note"] = topic
    return str(s["thought"])


@sgl.function
async def athink(s: Any, topic: str) -> str:
    s += f"[{topic}:" + sgl.gen("thought") + "]"
    return str(await s.aget("thought"))


def test_a_called_program_goes_on_with_the_callers_prompt(backend: FakeBackend) -> None:
    """c#16"""

    @sgl.function
    def outer(s: Any) -> Any:
        with s.user():
            s += "Begin "
            first = s.call(think, "one")
            s += f" {first.ret_value} "
            second = s.call(think, topic="two", times=2, temperature=0.25)
        return first, second

    state = outer.run(temperature=0.5)
    first, second = state.ret_value
    assert state.text() == "<|user|>Begin [one:answer 1] answer 1 [two:answer 2][two:answer 3]<|end|>"
    assert [call.prompt for call in backend.calls][1] == state.text().split("answer 2")[0]
    assert backend.calls[1].ids[: len(backend.calls[0].ids)] == backend.calls[0].ids, "the same KV"
    assert [call.params["temperature"] for call in backend.calls] == [0.5, 0.25, 0.25]
    assert (first["thought"], second["thought"], second.ret_value) == ("answer 1", "answer 3", "answer 3")
    assert second["note"] == "two" and first.get_meta_info("thought") is not None


def test_added_calls(backend: FakeBackend) -> None:
    """c#16: ``s += sub(x)``."""

    @sgl.function
    def outer(s: Any) -> Any:
        s += "Begin "
        s += think("one")
        called = think("two")
        assert len(backend.calls) <= 1, "it waits for what becomes of it"
        s += called
        return called["thought"], called.ret_value

    state = outer()
    assert state.text() == "Begin [one:answer 1][two:answer 2]" and state.ret_value == (
        "answer 2",
        "answer 2",
    )


def test_names_do_not_clobber_each_other(backend: FakeBackend) -> None:
    @sgl.function
    def inner(s: Any) -> None:
        with pytest.raises(UnknownVariableError, match=r"outer > inner: no variable 'mine'"):
            s["mine"]
        s += sgl.gen("a")
        s.call(think, "deep")
        s["b"] = 1

    @sgl.function
    def outer(s: Any) -> Any:
        s += "x" + sgl.gen("a") + sgl.gen()
        s["mine"] = 0
        s.call(inner)
        s.call(inner)

    state = outer()
    assert (state["a"], state[None], state["inner.a"], state["inner.b"]) == (
        "answer 1",
        "answer 2",
        "answer 5",
        1,
    )
    assert state["inner.think.thought"] == "answer 6"
    with pytest.raises(
        UnknownVariableError, match=r"known are 'a', None, 'mine', 'inner.a', 'inner.think.thought'"
    ):
        state["b"]


def test_calls_in_forks_and_forks_in_calls(backend: FakeBackend) -> None:
    @sgl.function
    def spread(s: Any) -> list[str]:
        forks = s.fork(2)
        forks += lambda i: f"{i}" + sgl.gen("a")
        forks.join()
        return list(s["a"])

    @sgl.function
    def outer(s: Any) -> Any:
        s += "x"
        forks = s.fork(2)
        for i, fork in enumerate(forks):
            fork.call(think, f"t{i}")
        forks.join()
        return s.call(spread).ret_value

    state = outer()
    assert len(state["think.thought"]) == 2 and state["think.note"] == ["t0", "t1"]
    assert state["spread.a"] == state.ret_value and len(state.ret_value) == 2
    streamed = outer.stream()
    assert "".join(streamed.text_iter()) == streamed.text() == "x"


def test_async_and_plain_programs_call_each_other(backend: FakeBackend) -> None:
    @sgl.function
    def plain_outer(s: Any) -> Any:
        s += "x"
        s += athink("one")
        return s.call(athink, "two").ret_value

    @sgl.function
    async def async_outer(s: Any) -> Any:
        s += "x"
        one = await s.acall(athink, "one")
        two = await s.acall(think, "two")
        alone = await athink("alone")
        assert alone.text() == f"[alone:{alone['thought']}]"
        return [one.ret_value, two.ret_value, one["thought"], two["thought"]]

    assert plain_outer().ret_value == "answer 2"
    one, two, *again = async_outer().ret_value
    assert [one, two] == again == ["answer 3", "answer 4"]

    async def main() -> Any:
        return (await plain_outer.arun()).text(), (await async_outer()).text()

    plain, asynchronous = asyncio.run(main())
    assert plain.startswith("x[one:answer") and asynchronous.startswith("x[one:answer")


def test_a_call_closes_what_it_has_opened_and_adds_nothing_later(backend: FakeBackend) -> None:
    @sgl.function
    def open_ended(s: Any) -> Any:
        s += sgl.user_begin() + "hi"
        return s

    @sgl.function
    def outer(s: Any) -> None:
        inner = s.call(open_ended).ret_value
        s += sgl.assistant("ho")
        with pytest.raises(ProgramError, match="open_ended has ended"):
            inner += "late"

    assert [message["content"] for message in outer().messages()] == ["hi", "ho"]


def test_failures_of_called_programs(backend: FakeBackend) -> None:
    backend._respond = lambda call: EngineError("boom") if "bad" in call.prompt else "fine"

    @sgl.function
    def outer(s: Any, topic: str) -> None:
        s += "x"
        s.call(think, topic)

    with pytest.raises(ProgramError, match=r"outer > think, gen\('thought'\): EngineError: boom") as caught:
        outer("bad")
    assert caught.value.program == "outer > think" and caught.value.variable == "thought"
    for arguments, wrong in [(((),), {"nonsense": 1}), ((), {})]:

        @sgl.function
        def mistaken(s: Any, arguments: Any = arguments, wrong: Any = wrong) -> None:
            s.call(think, *arguments, **wrong)

        with pytest.raises(TypeError, match=r"think\(\)"):
            mistaken()

    @sgl.function
    def optioned(s: Any, option: Any) -> None:
        s.call(think, "x", **option)

    for option in ({"stream": True}, {"backend": backend}, {"seed": 1}, {"timeout": 1}):
        with pytest.raises(TypeError, match=f"{next(iter(option))} is an option of the whole run"):
            optioned(option)


def test_a_call_that_is_neither_added_nor_used_runs_at_the_end(backend: FakeBackend) -> None:
    seen: list[str] = []

    @sgl.function
    def noted(s: Any, word: str) -> None:
        seen.append(word)
        s += "y" + sgl.gen("a")
        if word == "bad":
            raise LookupError("mine")

    @sgl.function
    def outer(s: Any, word: str) -> None:
        noted(word)
        seen.append("outer")

    @sgl.function
    async def async_outer(s: Any, word: str) -> None:
        noted(word)
        seen.append("outer")

    for program in (outer, async_outer):
        assert program("fine").text() == "" and seen == ["outer", "fine"], "it is a run of its own"
        with pytest.raises(LookupError, match="mine"):
            program("bad")
        seen.clear()


def test_a_run_of_its_own_cannot_be_added_later(backend: FakeBackend) -> None:
    ran = think("alone")

    @sgl.function
    def outer(s: Any) -> None:
        with pytest.raises(TypeError, match=r"has run by itself already.*s\.call"):
            s += ran
        used = think("used")
        assert used["thought"]
        with pytest.raises(TypeError, match="has run by itself already"):
            s += used

    outer()


def test_a_deferred_call_checks_its_arguments_at_once_and_fails_every_time(backend: FakeBackend) -> None:
    @sgl.function
    def failing(s: Any) -> None:
        raise LookupError("mine")

    @sgl.function
    def outer(s: Any) -> None:
        with pytest.raises(TypeError, match=r"think\(\)"):
            think()
        called = failing()
        for _ in range(2):
            with pytest.raises(LookupError, match="mine"):
                called.text()

    outer()


def test_traces_see_called_programs(backend: FakeBackend) -> None:
    @sgl.function
    def outer(s: Any) -> None:
        s += "Begin "
        s += think("one")
        s += s.call(think, "two").ret_value

    trace = str(outer.graph())
    assert "'[one:'" in trace and "'[two:'" in trace and trace.count("gen('thought')") == 2
