"""``@function``, which makes a program of a function or a method; the types of its parameters are kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from sgl_like.frontend.function import SglFunction
from sgl_like.frontend.state import ProgramState

__all__ = ["function"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", contravariant=True)


class SglMethod(Protocol[T, P, R]):
    """A program that is defined in a class, as type checkers see it: a program of each instance."""

    @overload
    def __get__(self, instance: None, owner: type) -> SglMethod[T, P, R]: ...

    @overload
    def __get__(self, instance: T, owner: type | None = ...) -> SglFunction[P, R]: ...


class Decorator(Protocol):
    """What ``@function(...)`` decorates with."""

    @overload
    def __call__(self, func: Callable[Concatenate[ProgramState, P], R], /) -> SglFunction[P, R]: ...

    @overload
    def __call__(self, func: Callable[Concatenate[T, ProgramState, P], R], /) -> SglMethod[T, P, R]: ...


@overload
def function(func: Callable[Concatenate[ProgramState, P], R], /) -> SglFunction[P, R]: ...


@overload
def function(func: Callable[Concatenate[T, ProgramState, P], R], /) -> SglMethod[T, P, R]: ...


@overload
def function(*, num_api_spec_tokens: int | None = ...) -> Decorator: ...


def function(func: Callable[..., Any] | None = None, num_api_spec_tokens: int | None = None) -> Any:
    """Make a program of a function whose first parameter, of any name, is the state. It may be ``async def``.

    In a class it makes a program of a method: ``def answer(self, s, question)`` is run as ``obj.answer(question)``.

    Args:
        func: the body.
        num_api_spec_tokens: for backends that are paid by the request (`sgl_like.OpenAI` and others that take text):
            tokens to ask for at a time, so that one request can serve several gens. Others take no notice.

    Raises:
        TypeError: it has no such parameter, or is a generator.
        ValueError: `num_api_spec_tokens` is not at least 1.
    """
    if func is None:
        return partial(SglFunction, num_api_spec_tokens=num_api_spec_tokens)
    return SglFunction(func, num_api_spec_tokens=num_api_spec_tokens)
