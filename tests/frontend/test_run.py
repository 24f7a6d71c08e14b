"""Running a program: arguments, variables, roles, parameters."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import ProgramError, SamplingParamsError
from sgl_like.frontend.variables import UnknownVariableError
from tests.support.frontend_fake_backend import FakeBackend


@sgl.function
def ask(state: Any, question: str, n: int = 1) -> str:
    """Ask."""
    state += sgl.user(question)
    state += sgl.assistant("A: " + sgl.gen("answer") + "!")
    return question * n


def test_values_text_and_messages(backend: FakeBackend) -> None:
    state = ask("Why?")
    assert state["answer"] == "answer 1"
    assert state.text() == "<|user|>Why?<|end|><|assistant|>A: answer 1!<|end|>"
    assert state.messages() == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "A: answer 1!"},
    ]
    assert state.error() is None and state.sync() is state
    assert state.usage.completion_tokens == len("answer 1") + 1
    meta = state.get_meta_info("answer")
    assert meta is not None and meta["finish_reason"]["type"] == "stop" and meta["prompt_tokens"] > 3


def test_decorated_function_keeps_its_face() -> None:
    assert ask.__name__ == "ask" and ask.__doc__ == "Ask."
    assert list(inspect.signature(ask).parameters) == ["question", "n"]
    assert ask.func is ask.__wrapped__  # type: ignore[attr-defined]


def test_called_decorator(backend: FakeBackend) -> None:
    @sgl.function()
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a")

    assert program()["a"] == "answer 1"


def test_programs_own_parameters_win(backend: FakeBackend) -> None:
    assert ask.run("q", n=3).ret_value == "qqq"
    assert ask.run(question="q", temperature=0.25).ret_value == "q"
    assert backend.calls[-1].params["temperature"] == 0.25
    assert backend.calls[-1].params["max_new_tokens"] == 128


def test_bind(backend: FakeBackend) -> None:
    """b#22: what is given at the call overrides what is bound."""
    bound = ask.bind(n=2)
    assert bound("q").ret_value == "qq"
    assert bound("q", n=3).ret_value == "qqq"
    assert ask.bind(question="z")("y").ret_value == "y"
    assert ask("q").ret_value == "q"
    with pytest.raises(TypeError, match="nonsense"):
        ask.bind(nonsense=1)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("q",), {"question": "q"}), (("q",), {"tempurature": 1})]
)
def test_wrong_arguments(backend: FakeBackend, args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match=r"ask\(\)"):
        ask.run(*args, **kwargs)
    assert not backend.calls


def test_not_every_function_is_a_program() -> None:
    with pytest.raises(TypeError, match="first parameter"):
        sgl.function(lambda: None)  # type: ignore[arg-type,misc]

    def yielding(s: Any) -> Any:
        yield 1

    async def yielding_async(s: Any) -> Any:
        yield 1

    for program in (yielding, yielding_async):
        with pytest.raises(TypeError, match="cannot yield"):
            sgl.function(program)


def test_gen_overrides_the_run(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a") + sgl.gen("b", max_tokens=5, temperature=0, stop=["."])

    program.run(max_new_tokens=7, stop="\n", temperature=0.5)
    first, second = (call.params for call in backend.calls)
    assert (first["max_new_tokens"], first["stop"], first["temperature"]) == (7, "\n", 0.5)
    assert (second["max_new_tokens"], second["stop"], second["temperature"]) == (5, (".",), 0)


@pytest.mark.parametrize(
    ("given", "named"),
    [({"frequency_penalty": 0.5}, "frequency_penalty"), ({"min_tokens": 3}, "min_new_tokens"),
     ({"return_logprob": True}, "return_logprob"), ({"stop_regex": "a"}, "stop_regex")],
)  # fmt: skip
def test_what_the_backend_lacks_is_an_error(backend: FakeBackend, given: dict[str, Any], named: str) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", **given)

    error = program().error()
    assert error is not None and named in str(error) and "FakeBackend" in str(error)
    assert isinstance(error.__cause__, SamplingParamsError) and not backend.calls


def test_neutral_values_are_accepted(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", min_tokens=0, n=1, frequency_penalty=0.0, return_logprob=False, stop_regex=[])

    assert program.run(n=1, presence_penalty=0)["a"] == "answer 1"


def test_dtype_is_a_regex_and_stops(backend: FakeBackend) -> None:
    backend._respond = lambda call: "42 apples"

    @sgl.function
    def program(s: Any, stop: Any) -> None:
        s += "x" + sgl.gen("a", dtype=int, stop=stop)

    for stop, expected in [(None, (" ", "\n")), (";", (";", " ", "\n")), ([";"], (";", " ", "\n"))]:
        assert program(stop)["a"] == "42"
        assert backend.calls[-1].params["stop"] == expected
        assert "[0-9]" in backend.calls[-1].params["regex"]


def test_seed_of_a_run_differs_by_place_and_repeats(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a") + sgl.gen("b", seed=5)
        forks = s.fork(2)
        forks += sgl.gen("c")
        forks.join()

    def seeds() -> set[int]:
        before = len(backend.calls)
        program.run(seed=1).sync()
        return {call.params["seed"] for call in backend.calls[before:]}

    first = seeds()
    assert len(first) == 4 and 5 in first and first == seeds()
    program.run().sync()
    assert "seed" not in backend.calls[-1].params


def test_names(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        assert "a" not in s
        s += "x" + sgl.gen("a")
        assert s["a"] == "answer 1" and "a" in s
        s += sgl.gen("a")
        s += sgl.gen()
        s["k"] = [1]

    state = program()
    assert state["a"] == "answer 2", "the newest gen of a name is what is read"
    assert state[None] == "answer 3" and None in state
    assert state["k"] == [1] and state.get_meta_info("k") is None
    with pytest.raises(UnknownVariableError, match=r"no variable 'z'; known are 'a', None, 'k'") as caught:
        state["z"]
    assert isinstance(caught.value, KeyError) and isinstance(caught.value, ProgramError)


def test_an_assignment_comes_after_what_was_queued(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a")
        s["a"] = "mine"

    assert program()["a"] == "mine"


def test_roles_as_blocks_and_calls(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s.system("be brief")
        s += s.user("once")
        with s.assistant():
            s += "A"
            s += sgl.gen("a")
        s += sgl.user_begin() + "open"

    state = program()
    roles = [(message["role"], message["content"]) for message in state.messages()]
    assert roles == [
        ("system", "be brief"), ("user", "once"), ("assistant", "Aanswer 1"), ("user", "open"),
    ]  # fmt: skip
    assert state.text().endswith("open<|end|>"), "a role left open is closed at the end"


def test_a_role_block_closes_when_its_body_raises(backend: FakeBackend) -> None:
    """b#21"""

    @sgl.function
    def program(s: Any) -> None:
        with pytest.raises(ZeroDivisionError), s.user():
            s += "a"
            raise ZeroDivisionError
        s += sgl.assistant("b")

    assert [message["role"] for message in program().messages()] == ["user", "assistant"]


def test_misuse_of_roles(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, other: Any) -> None:
        with (
            s.assistant(),
            pytest.raises(ProgramError, match="the user message cannot begin inside the assistant"),
        ):
            s += "never" + sgl.user("x")
        with pytest.raises(ProgramError, match="no user message to end: no message is open"):
            s += sgl.user_end()
        with pytest.raises(TypeError, match="None"):
            s.user(None)
        with pytest.raises(TypeError, match="another state"):
            s += other
        for wrong in (None, 3, ["a"]):
            with pytest.raises(TypeError, match="a string or an expression"):
                s += wrong

    other = ask("q")
    other_message = type("S", (), {})
    from sgl_like.frontend.state import Submitted

    other_message = Submitted(other)
    assert program(other_message).text() == "<|assistant|><|end|>"


def test_unknown_role_fails_the_state(backend: FakeBackend) -> None:
    from sgl_like.frontend.api import role_message

    @sgl.function
    def program(s: Any) -> None:
        s += role_message("tool", "x")

    assert "ChatTemplateError: unknown role 'tool'" in str(program().error())


def test_nothing_can_be_added_after_the_end(backend: FakeBackend) -> None:
    state = ask("q")
    with pytest.raises(ProgramError, match="the program has ended"):
        state += "more"
    assert state.text().endswith("<|end|>")


def test_run_waits_for_what_the_body_queued(backend: FakeBackend) -> None:
    state = ask("q")
    assert "answer" in state, "known without waiting"


def test_empty_prompt(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("a")

    assert "the prompt is empty" in str(program().error())
    assert program.run(backend=FakeBackend(bos="<|bos|>"))["a"] == "answer 1"


def test_programs_can_call_programs(backend: FakeBackend) -> None:
    @sgl.function
    def outer(s: Any) -> None:
        s += ask("inner")["answer"]

    assert outer().text() == "answer 1"
