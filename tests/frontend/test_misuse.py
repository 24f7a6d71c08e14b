"""What careless programs give: an error that says which argument is wrong, and no thread that dies of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import ProgramError, SamplingParamsError
from tests.support.frontend_fake_backend import FakeBackend


@sgl.function
def one(s: Any) -> str:
    s += "a" + sgl.gen("x")
    return str(s["x"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: sgl.gen(["a", "b"]), r"name must be a string, not \['a', 'b'\]"),
        (lambda: sgl.select(["a", "b"]), r"name must be a string, not \['a', 'b'\]"),
        (lambda: sgl.gen("x", dtype=[]), r"dtype must be int, float, str or bool, not \[\]"),
        (
            lambda: sgl.SamplingParams(stop_token_ids=1.5),
            "stop_token_ids must be a list of token ids, not 1.5",
        ),
    ],
)
def test_arguments_of_gens(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(SamplingParamsError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backoff": 3}, "backoff must be a function of the attempt's number, not 3"),
        ({"checkpoint": 3}, "checkpoint must be the path of a file, not 3"),
    ],
)
def test_options_of_batches(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        one.run_batch([{}], **options)


@pytest.mark.parametrize("seed", ["x", 1.5, True])
def test_seeds(seed: Any, backend: FakeBackend) -> None:
    error = one.run_batch([{}], seed=seed)[0].error()
    assert error is not None and f"seed must be an integer, not {seed!r}" in str(error)


def test_what_is_no_program_cannot_be_called(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s.call(len)

    with pytest.raises(TypeError, match=r"s\.call\(\) needs a program .* not <built-in function len>"):
        program()


@pytest.mark.parametrize("size", [0, "2", 2.0])
def test_sizes_of_forks(size: Any, backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s.fork(size)

    with pytest.raises(ValueError, match=f"a fork needs at least 1 copy, not {size!r}"):
        program()


class Wrong(sgl.ChoicesSamplingMethod):
    def __call__(self, **_: Any) -> Any:
        return "x"


def test_what_choice_methods_return(backend: FakeBackend) -> None:
    @sgl.function
    def choose(s: Any) -> None:
        s += "a" + sgl.select("c", ["x", "y"], choices_method=Wrong())

    with pytest.raises(ProgramError, match="a choices_method must return a ChoicesDecision, not 'x'"):
        _ = choose()["c"]


def exits(*_: Any, **__: Any) -> Any:
    raise SystemExit(3)


class Exits(sgl.ChoicesSamplingMethod):
    __call__ = exits


def test_code_that_exits_on_the_executors_thread_fails_its_program_alone(backend: FakeBackend) -> None:
    @sgl.function
    def choose(s: Any) -> None:
        s += "a" + sgl.select("c", ["x", "y"], choices_method=Exits())

    with pytest.raises(ProgramError, match=r"choose, select\('c'\): SystemExit: 3"):
        choose()["c"]
    for event in ("run_start", "gen_start", "gen_end", "run_end"):
        assert one(hooks={event: exits})["x"].startswith("answer")
