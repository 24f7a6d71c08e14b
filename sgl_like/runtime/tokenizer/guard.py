"""Bounds on what rendering a chat template may cost: a thread cannot be stopped, so the template stops itself.

Every turn of a loop, every piece of output and every operation that can make something large out of something small
looks at the guard. Jinja has no other way to go on for long: `range` is bounded by its sandbox, recursion by Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sgl_like.errors import ChatTemplateError

__all__ = ["GUARD", "Guard", "GuardedEnvironment", "RenderLimits"]

GUARD = "guard!"
"""The variable that is the guard; no template can write such a name."""
_FILTER = "guarded!"
_GROWING = ("*", "**", "%")
_WIDE = re.compile(r"\*|[0-9]{5}")  # in a format


class RenderLimits(NamedTuple):
    """Of one rendering: seconds, and characters of the result and of any text on the way."""

    seconds: float = 2.0
    chars: int = 1024 * 1024


class Guard:
    """Watches one rendering.

    Args:
        limits: what it may take.
    """

    def __init__(self, limits: RenderLimits) -> None:
        self.limits = limits
        self._until = monotonic() + limits.seconds
        self._size = 0

    def turn(self) -> None:
        """Something was done.

        Raises:
            ChatTemplateError: the time is up.
        """
        if monotonic() > self._until:
            raise ChatTemplateError(f"the chat template takes longer than {self.limits.seconds:g} s")

    def add(self, piece: str) -> None:
        """A piece of the result was made.

        Raises:
            ChatTemplateError: it is too long by now, or the time is up.
        """
        self._size += len(piece)
        if self._size > self.limits.chars:
            raise ChatTemplateError(f"the rendered conversation has more than {self.limits.chars} characters")
        self.turn()

    def join(self, pieces: Iterable[str]) -> str:
        """The result."""
        found: list[str] = []
        for piece in pieces:
            self.add(piece)
            found.append(piece)
        return "".join(found)


class GuardedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose loops ask the guard in each turn, and whose operators refuse to make something huge."""

    intercepted_binops = frozenset(_GROWING)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters[_FILTER] = _guarded

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _FILTER, [], [], None, None, lineno=loop.lineno)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See `SandboxedEnvironment`."""
        most = RenderLimits().chars
        if operator == "%":
            too_large = isinstance(left, str) and _WIDE.search(left) is not None
        elif isinstance(left, int) and isinstance(right, int):
            too_large = left.bit_length() * (right if operator == "**" else 1) + right.bit_length() > 256
        else:
            sizes = [len(each) if isinstance(each, str | list | tuple) else each for each in (left, right)]
            too_large = all(isinstance(size, int) for size in sizes) and sizes[0] * sizes[1] > most
        if too_large:
            raise ChatTemplateError(f"chat template: {operator!r} would make something too large")
        return super().call_binop(context, operator, left, right)


@jinja2.pass_context
def _guarded(context: Context, items: Iterable[Any]) -> Iterable[Any]:
    guard = context.get(GUARD)
    return items if guard is None else _Turns(items, guard)


class _Turns:
    """What a loop goes through; as long as what it stands for, if that has a length."""

    def __init__(self, items: Iterable[Any], guard: Guard) -> None:
        self._items = items
        self._guard = guard

    def __iter__(self) -> Iterator[Any]:
        turn = self._guard.turn
        for item in self._items:
            turn()
            yield item

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]
