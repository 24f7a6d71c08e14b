"""Reading a state: variables, text, the error, and text as it arrives. Every wait here has an end.

A state is *settled* when it has failed, or has nothing queued or in flight and no body that could still add to it.
The body itself does not wait for its own end: for it, nothing queued or in flight is enough.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from typing import Any

from sgl_like.errors import ProgramError
from sgl_like.frontend.bodies.current import in_body_of, refuse_blocking
from sgl_like.frontend.bodies.names import Names
from sgl_like.frontend.bodies.workers import lending_place
from sgl_like.frontend.interpreter import Interpreter
from sgl_like.frontend.variables import UnknownVariableError, Variable

__all__ = ["Reader"]

_INSTEAD = "use: async for ... in s.text_async_iter(...), or s.partial_async_iter(...)"


class Reader:
    """Reads one interpreter, from any thread; `names` are those of the program that reads."""

    def __init__(self, of: Interpreter, names: Names) -> None:
        self._of = of
        self._names = names

    def settle(self) -> None:
        """Block until the state is settled."""
        self._wait(self._settled, "await the state before: await s")

    async def settle_async(self) -> None:
        """The same for a coroutine."""
        await self._wait_async(self._settled)

    def checked(self) -> None:
        """Block until the state is settled.

        Raises:
            ProgramError: it has failed.
        """
        self.settle()
        self._of.raise_error()

    async def checked_async(self) -> None:
        """The same for a coroutine."""
        await self.settle_async()
        self._of.raise_error()

    def body_ended(self) -> None:
        """Block until no body runs apart from this code."""
        self._wait(lambda: not self._body_runs_elsewhere(), "await the state before: await s")

    def has(self, name: str | None) -> bool:
        """Whether the variable has its value now."""
        variable = self._names.variables.get(name)
        return variable is not None and variable.done and variable.error is None

    def variable(self, name: str | None) -> Variable:
        """The variable, with its value. Blocks until it has one; one that has is read even if the state failed later.

        Raises:
            ProgramError: it will never have one.
            UnknownVariableError: the program has no such variable.
        """
        self._wait(lambda: self._decided(name), f"use: await s.aget({name!r})")
        return self._checked_variable(name)

    async def variable_async(self, name: str | None) -> Variable:
        """The same for a coroutine."""
        await self._wait_async(lambda: self._decided(name))
        return self._checked_variable(name)

    def check(self, variable: Variable) -> None:
        """Raise what keeps the variable from its value, if anything does."""
        if variable.error is not None:
            raise variable.error.with_traceback(None)
        if not variable.done:
            self._of.raise_error()
            program, name = self._names.program, variable.name
            what = f"var_scope({name!r}) is still open; its value is there when its block ends"
            raise ProgramError(f"{program}: {what}", program=program, variable=name)

    def awaited(self, name: str | None) -> Variable:
        """The variable, which may still be without a value. Blocks until it is decided that there is one.

        Raises:
            ProgramError, UnknownVariableError: as for `variable`.
        """
        self._wait(lambda: self._known(name), _INSTEAD)
        return self._find(name)

    async def awaited_async(self, name: str | None) -> Variable:
        """`awaited` for a coroutine."""
        await self._wait_async(lambda: self._known(name))
        return self._find(name)

    def text_iter(self, name: str | None, index: int = 0) -> Iterator[str]:
        """Text as it arrives: of the variable, or of the whole state for ``None``. See `ProgramState.text_iter`."""
        yield from self.pieces(None if name is None else self.awaited(name), index)

    async def text_async_iter(self, name: str | None, index: int = 0) -> AsyncIterator[str]:
        """The same for a coroutine."""
        variable = None if name is None else await self.awaited_async(name)
        async for piece in self.pieces_async(variable, index):
            yield piece

    def pieces(self, variable: Variable | None, index: int = 0) -> Iterator[str]:
        """Text as it arrives: of an output of the variable, or of the whole state.

        Raises:
            ProgramError: at its end, if it failed; or there is no output of that number.
        """
        cursor = _Cursor(self, variable, index)
        while True:
            self._wait(cursor.ready, _INSTEAD)
            text, ended = cursor.take()
            if text:
                yield text
            if ended:
                return cursor.check()

    async def pieces_async(self, variable: Variable | None, index: int = 0) -> AsyncIterator[str]:
        """The same for a coroutine."""
        cursor = _Cursor(self, variable, index)
        while True:
            await self._wait_async(cursor.ready)
            text, ended = cursor.take()
            if text:
                yield text
            if ended:
                cursor.check()
                return

    async def events_async_iter(self, name: str | None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """A variable's text as it arrives, with the meta data of each piece.

        A token that ends the output has no text, and what it says belongs to the piece before. So a piece is given when
        the next has come.
        """
        watch = self._of.watch
        await self._wait_async(lambda: self._known(name))
        variable, position = self._find(name), 0
        held: tuple[str, dict[str, Any]] | None = None
        while True:
            await self._wait_async(
                lambda: position < len(variable.events) or self._final(variable)  # noqa: B023
            )
            with watch.holding():
                new, ended = variable.events[position:], self._final(variable)
            position += len(new)
            for piece in new:
                if held is not None and held[0] and piece[0]:
                    yield held
                    held = None
                held = _joined(held, piece)
            if ended:
                if held is not None:
                    yield held
                self.check(variable)
                if position == 0:  # it did not stream
                    yield "".join(variable.chunks), dict(variable.meta or {})
                return

    def _settled(self) -> bool:
        of = self._of
        return of.error is not None or (of.idle and not self._body_runs_elsewhere())

    def _body_runs_elsewhere(self) -> bool:
        return self._of.apart and not in_body_of(self._of)

    def _wait(self, predicate: Callable[[], bool], instead: str) -> None:
        """Block until `predicate` is true, unless this code runs where nobody may block."""
        of = self._of
        if of.watch.holds(predicate):
            return
        program = self._names.program
        refuse_blocking(program, instead, of.loop)
        if of.context.backend.executor.is_current():
            raise ProgramError(
                f"{program}: a hook cannot wait for the program that calls it", program=program
            )
        with lending_place() if of.apart else nullcontext():
            of.watch.wait_for(predicate)

    def _known(self, name: str | None) -> bool:
        """Whether it is decided if there is such a variable."""
        return name in self._names.variables or self._of.error is not None or not self._body_runs_elsewhere()

    def _decided(self, name: str | None) -> bool:
        """Whether it is known what reading the variable gives."""
        variable = self._names.variables.get(name)
        return self._known(name) if variable is None else self._final(variable)

    def _final(self, variable: Variable) -> bool:
        """Whether the variable will not change while this reader waits: an open scope waits for the body, which must
        not wait for itself.
        """
        return variable.done or (
            variable.open and (self._of.error is not None or not self._body_runs_elsewhere())
        )

    async def _wait_async(self, predicate: Callable[[], bool]) -> None:
        """The same for a coroutine, which may wait anywhere."""
        with lending_place() if self._of.apart else nullcontext():
            await self._of.watch.wait_for_async(predicate)

    def _checked_variable(self, name: str | None) -> Variable:
        variable = self._find(name)
        self.check(variable)
        return variable

    def _find(self, name: str | None) -> Variable:
        variable = self._names.variables.get(name)
        if variable is None:
            self._of.raise_error()
            program, known = self._names.program, [repr(key) for key in self._names.variables]
            names = f"known are {', '.join(known)}" if known else "there are none yet"
            raise UnknownVariableError(f"{program}: no variable {name!r}; {names}", program=program)
        return variable


def _joined(
    first: tuple[str, dict[str, Any]] | None, second: tuple[str, dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Two pieces of text with meta data as one: the later counts, and the log-probabilities of both."""
    if first is None:
        return second[0], dict(second[1])
    added = {
        key: [*first[1].get(key, ()), *value]
        for key, value in second[1].items()
        if key.endswith("logprobs") and isinstance(value, list)
    }
    return first[0] + second[0], {**second[1], **added}


class _Cursor:
    """One consumer's place in a text. Text and end are looked at in one moment, so that no tail is lost."""

    def __init__(self, reader: Reader, variable: Variable | None, index: int) -> None:
        self._reader = reader
        self._variable = variable
        self._index = index
        self._position = 0

    def ready(self) -> bool:
        return self._position < len(self._chunks) or self._ended()

    def take(self) -> tuple[str, bool]:
        """What is new, and whether that was the end."""
        with self._reader._of.watch.holding():
            chunks = self._chunks
            text = "".join(chunks[self._position :])
            self._position = len(chunks)
            return text, self._ended()

    def check(self) -> None:
        """Raise the error that ended the text, if one did."""
        if self._variable is None:
            self._reader._of.raise_error()
        else:
            self._reader.check(self._variable)
            count = len(self._variable.streams)
            if not 0 <= self._index < count:
                name, program = self._variable.name, self._reader._of.context.program
                what = f"{name!r} has no output {self._index}: it has {count}, counted from 0"
                raise ProgramError(f"{program}: {what}", program=program, variable=name)

    @property
    def _chunks(self) -> list[str]:
        if self._variable is None:
            return self._reader._of.chunks
        streams = self._variable.streams
        return streams[self._index] if 0 <= self._index < len(streams) else []

    def _ended(self) -> bool:
        return self._reader._settled() if self._variable is None else self._reader._final(self._variable)
