"""Values while they are written: what a gen's text amounts to so far, again and again until it is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from sgl_like.errors import OutputError
from sgl_like.frontend.outputs.partial import NOTHING
from sgl_like.frontend.outputs.values import GenText
from sgl_like.frontend.reading import Reader
from sgl_like.frontend.variables import Variable

__all__ = ["partial_async_iter", "partial_iter"]


def partial_iter(reader: Reader, name: str | None, index: int) -> Iterator[Any]:
    """See `ProgramState.partial_iter`."""
    growing = _Growing(reader.awaited(name))
    for piece in reader.pieces(growing.variable, index):
        yield from growing.after(piece)
    yield growing.whole(index)


async def partial_async_iter(reader: Reader, name: str | None, index: int) -> AsyncIterator[Any]:
    """See `ProgramState.partial_async_iter`."""
    growing = _Growing(await reader.awaited_async(name))
    async for piece in reader.pieces_async(growing.variable, index):
        for value in growing.after(piece):
            yield value
    yield growing.whole(index)


class _Growing:
    """One consumer's view of a value.

    Raises:
        OutputError: the variable is not that of a gen with a type.
    """

    def __init__(self, variable: Variable) -> None:
        if variable.output_type is None:
            raise OutputError(
                f"{variable.name!r} has no type to read it as: give its gen a json_schema or a dtype"
            )
        self.variable = variable
        self._output_type = variable.output_type
        self._text = ""
        self._last: Any = NOTHING

    def after(self, piece: str) -> Iterator[Any]:
        """The value, if it has become another one by more text."""
        self._text += piece
        value = self._output_type.parse_partial(self._text)
        if value is not NOTHING and (self._last is NOTHING or value != self._last):
            self._last = value
            yield value

    def whole(self, index: int) -> Any:
        """The value at the end."""
        value: GenText | list[GenText] = self.variable.value
        return (value if isinstance(value, GenText) else value[index]).parsed
