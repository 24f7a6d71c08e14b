"""Programs keep what type checkers know of their functions (c#21); mypy reads this file with the rest."""

from __future__ import annotations

import asyncio
from typing import Any, assert_type

import pytest

import sgl_like as sgl
from sgl_like.frontend.function import SglFunction
from tests.support.frontend_fake_backend import FakeBackend


@sgl.function
def add(state: sgl.ProgramState, x: int, *, y: str = "") -> str:
    """Any first parameter."""
    state += f"{x}{y}" + sgl.gen("a")
    return y


@sgl.function
async def wait(s: sgl.ProgramState, x: int) -> float:
    s += f"{x}" + sgl.gen("a")
    await s.aget("a")
    return 0.5


class Assistant:
    """Programs as methods."""

    def __init__(self, name: str) -> None:
        self.name = name

    @sgl.function
    def greet(self, s: sgl.ProgramState, whom: str) -> str:
        """Greet."""
        s += f"{self.name} to {whom}: " + sgl.gen("a")
        return self.name

    @sgl.function()
    async def agreet(self, s: sgl.ProgramState, whom: str) -> str:
        s += f"{self.name} to {whom}: " + sgl.gen("a")
        return str(await s.aget("a"))

    @staticmethod
    @sgl.function
    def alone(s: sgl.ProgramState, whom: str) -> None:
        s += whom + sgl.gen("a")

    borrowed = add


def test_parameters_keep_their_types(backend: FakeBackend) -> None:
    assert_type(add(1, y="z"), sgl.ProgramState)
    assert add(1, y="z").ret_value == "z" and add.__doc__ == "Any first parameter."
    with pytest.raises(TypeError):
        add("1", z=2)  # type: ignore[call-arg, arg-type]
    asyncio.run(wait.arun(1))


def test_methods(backend: FakeBackend) -> None:
    """b: SGLang's programs must name their first parameter ``s``, so methods cannot be programs."""
    ann, bob = Assistant("Ann"), Assistant("Bob")
    assert_type(ann.greet("you"), sgl.ProgramState)
    assert ann.greet("you").text().startswith("Ann to you: answer") and bob.greet("me").ret_value == "Bob"
    assert [state.ret_value for state in bob.greet.run_batch([("x",), {"whom": "y"}])] == ["Bob", "Bob"]
    assert bob.greet.bind(whom="z").run().text().startswith("Bob to z") and bob.greet.__doc__ == "Greet."
    state = asyncio.run(ann.agreet.arun("you"))
    assert state.ret_value == state["a"] and isinstance(Assistant.greet, SglFunction)
    assert ann.alone("x")["a"] and ann.borrowed(1).text().startswith("1"), (
        "only what is defined here is a method"
    )

    @sgl.function
    def outer(s: Any) -> Any:
        return s.call(ann.greet, "inner").ret_value

    assert outer().ret_value == "Ann"


def test_a_method_needs_its_instance(backend: FakeBackend) -> None:
    greet: Any = Assistant.greet
    for call in (greet, greet.run, greet.stream, lambda *args: greet.run_batch([args])):
        with pytest.raises(TypeError, match="greet is a method; call it on an instance"):
            call(Assistant("Ann"), "x")


@pytest.mark.parametrize("name", ["n", "stop", "temperature", "backend", "stream", "timeout", "hooks"])
def test_a_program_may_name_its_parameters_as_it_likes(backend: FakeBackend, name: str) -> None:
    """b#22: upstream's own parallel_sample.py has a parameter ``n``."""
    namespace: dict[str, Any] = {}
    exec(f"def program(s, {name}):\n    s += 'x' + gen('a')\n    return {name}", {"gen": sgl.gen}, namespace)
    program = sgl.function(namespace["program"])
    assert program.run(5).ret_value == program.run(**{name: 5}).ret_value == program.stream(5).ret_value == 5
    assert program.bind(**{name: 4}).run().ret_value == 4
    assert (
        program.bind(**{name: 4}).run(**{name: 5}).ret_value
        == program.bind(**{name: 4}).run(5).ret_value
        == 5
    )
    row = {name: 6}
    assert program.run_batch([row])[0].ret_value == 6 and row == {name: 6}, "a row is not changed"


def test_bound_arguments_of_any_kind(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, a: int, *rest: int, b: int = 0, **more: int) -> Any:
        return a, rest, b, more

    assert program.bind(b=1, c=2)(5).ret_value == (5, (), 1, {"c": 2})
    assert program.bind(b=1, c=2)(5, 6, b=3, c=4).ret_value == (5, (6,), 3, {"c": 4})
