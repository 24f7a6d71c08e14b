"""`ProgramState`: the ``s`` of a program."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sgl_like.errors import ProgramError, RequestAborted
from sgl_like.frontend.api import role_message
from sgl_like.frontend.blocks import copy_block, role_block, var_block
from sgl_like.frontend.bodies.names import Names
from sgl_like.frontend.expr import Expr, flatten
from sgl_like.frontend.forks import ProgramStateGroup
from sgl_like.frontend.interpreter import Interpreter
from sgl_like.frontend.outputs.partial_reading import partial_async_iter, partial_iter
from sgl_like.frontend.reading import Reader
from sgl_like.frontend.variables import Variable
from sgl_like.frontend.view.shown import view
from sgl_like.runtime.protocol import Usage

if TYPE_CHECKING:
    from sgl_like.frontend.function import SglFunction

__all__ = ["ProgramState"]


class _Unset:
    """Stands for "no argument", where ``None`` would be a mistake worth an error."""


class Submitted:
    """What ``s.user("x")`` returns: already added, so ``s += s.user("x")`` adds nothing more."""

    def __init__(self, state: ProgramState) -> None:
        self.state = state


class ProgramState:
    """The conversation of one run, or of one fork: text and generations are added to it, results read from it.

    Adding (``s += "..." + sgl.gen("x")``) returns at once; reading blocks until what is read is there. If something
    fails, what was queued after it is dropped, and every later read of text, messages or a variable without a
    value raises one `ProgramError`, chained to its cause. A state may be read from any number of threads.
    """

    def __init__(self, interpreter: Interpreter, names: Names | None = None) -> None:
        self._interpreter = interpreter
        self._names = names or interpreter.names
        self._reader = Reader(interpreter, self._names)
        self._returned = Variable(None)  # what the body returned
        self.row: int | None = None
        """Which row of a batch this is the state of, counted from 0."""

    # -- adding -------------------------------------------------------------------------------------------------

    def __iadd__(self, other: str | Expr | Submitted | ProgramState) -> ProgramState:
        """Add text, an expression, or what another program does: ``s += other(x)`` is ``s.call(other, x)``.

        Raises:
            TypeError: it is none of these.
            ProgramError: messages are nested, or the program has ended.
        """
        if isinstance(other, ProgramState):
            return self._add_program(other)
        if isinstance(other, Submitted):
            if other.state is not self:
                raise TypeError(
                    "s.user(...) has added its message to another state already; use sgl.user(...) here"
                )
            return self
        self._interpreter.submit(flatten(other), self._names)
        return self

    def _add_program(self, other: ProgramState) -> ProgramState:
        from sgl_like.frontend.bodies.deferred import DeferredState

        if not isinstance(other, DeferredState) or not other.add_to(self):
            raise TypeError(
                "this program has run by itself already; to run it in this state, write"
                " s += program(...) in one line, or s.call(program, ...)"
            )
        return self

    def call(self, program: SglFunction[..., Any], *args: Any, **kwargs: Any) -> ProgramState:
        """Run the body of another program here, as if it stood in this one; it sees this prompt and adds to it.

        Args:
            program: the other program.
            *args: its arguments.
            **kwargs: its arguments; also sampling parameters, as defaults for its gens.

        Returns:
            A state for what it has done: its variables, and what it returned as ``ret_value``. Its variables do not
            mix with those of this program, where ``"x"`` of it has the name ``"program.x"``.

        Raises:
            TypeError: the arguments do not fit the program.
            ProgramError: it is async, and this is an async body: use `acall`.
            Exception: what its body raises.
        """
        from sgl_like.frontend.bodies.nested import call_inside

        return call_inside(self, program, args, kwargs)

    async def acall(self, program: SglFunction[..., Any], *args: Any, **kwargs: Any) -> ProgramState:
        """`call` for an async body; `program` may be plain or async."""
        from sgl_like.frontend.bodies.nested import acall_inside

        return await acall_inside(self, program, args, kwargs)

    def system(self, expr: str | Expr | type[_Unset] = _Unset) -> Any:
        """Add a system message; without an argument, a context manager: ``with s.system(): s += ...``."""
        return self._message("system", expr)

    def user(self, expr: str | Expr | type[_Unset] = _Unset) -> Any:
        """Add a user message; without an argument, a context manager: ``with s.user(): s += ...``."""
        return self._message("user", expr)

    def assistant(self, expr: str | Expr | type[_Unset] = _Unset) -> Any:
        """Add an assistant message; without an argument, a context manager."""
        return self._message("assistant", expr)

    def role(self, role: str, expr: str | Expr | type[_Unset] = _Unset) -> Any:
        """Add a message of any role that the chat template has, such as ``"tool"``; or see `user`."""
        return self._message(role, expr)

    def _message(self, role: str, expr: Any) -> Any:
        if expr is _Unset:
            return role_block(self, role)
        if expr is None:
            raise TypeError(f's.{role}(None): give the content, or nothing for "with s.{role}():"')
        self._interpreter.submit(role_message(role, expr).nodes, self._names)
        return Submitted(self)

    def var_scope(self, name: str) -> AbstractContextManager[ProgramState]:
        """``with s.var_scope("x"): ...``: ``s["x"]`` is all the text that is added in the block, markup included.

        Readers elsewhere wait for the end of the block; ``s["x"]`` in the block itself is a ProgramError. A fork made
        in the block has a text of its own, part of the value only if it is joined by ``concate_and_append``.
        """
        return var_block(self, name)

    def fork(self, size: int = 1, position_ids_offset: Any = None) -> ProgramStateGroup:
        """`size` copies of this state as it is after what has been added so far. They run side by side.

        `position_ids_offset` is for programs of SGLang's that give it, and has no effect there either.

        Raises:
            ValueError: `size` is not a number of at least 1.
        """
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"a fork needs at least 1 copy, not {size!r}")
        return ProgramStateGroup(
            [type(self)(child) for child in self._interpreter.fork(size, self._names)], self
        )

    def copy(self) -> AbstractContextManager[ProgramState]:
        """A fork of one, joined at the end of the block; its variables arrive as lists of one."""
        return copy_block(self)

    # -- reading ------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str | None) -> Any:
        """The value of a variable; that of an unnamed gen is ``s[None]``. Blocks until it is there.

        That of a gen is a `GenText`, a str that knows its ``parsed`` value, and with ``n`` a list of them.

        Raises:
            ProgramError: it will never be there; the cause is chained.
            UnknownVariableError: there is no such variable (also a KeyError).
        """
        return self._reader.variable(name).value

    def __setitem__(self, name: str | None, value: Any) -> None:
        self._interpreter.assign(name, value, self._names)

    def __contains__(self, name: str | None) -> bool:
        """Whether the variable has its value now; does not wait."""
        return self._reader.has(name)

    def get_var(self, name: str | None) -> Any:
        """The same as ``s[name]``."""
        return self[name]

    def set_var(self, name: str | None, value: Any) -> None:
        """The same as ``s[name] = value``."""
        self[name] = value

    def get_meta_info(self, name: str | None) -> Any:
        """A dict of token counts, finish reason and so on of a gen or select; ``None`` for other variables. Blocks.

        Raises:
            ProgramError, UnknownVariableError: as for ``s[name]``.
        """
        meta = self._reader.variable(name).meta
        return None if meta is None else dict(meta)

    async def aget(self, name: str | None) -> Any:
        """``s[name]`` for a coroutine: waiting leaves the event loop free.

        Raises:
            ProgramError, UnknownVariableError: as for ``s[name]``.
        """
        return (await self._reader.variable_async(name)).value

    async def aget_meta_info(self, name: str | None) -> dict[str, Any] | None:
        """`get_meta_info` for a coroutine."""
        meta = (await self._reader.variable_async(name)).meta
        return None if meta is None else dict(meta)

    async def atext(self) -> str:
        """`text` for a coroutine."""
        await self._reader.checked_async()
        return "".join(self._interpreter.chunks)

    async def amessages(self) -> list[dict[str, str]]:
        """`messages` for a coroutine."""
        await self._reader.checked_async()
        return [dict(message) for message in self._interpreter.prompt.messages]

    def __await__(self) -> Generator[Any, None, ProgramState]:
        """``await s`` is `sync` for a coroutine: when it goes on, everything added before is done and can be read."""
        yield from self._reader.settle_async().__await__()
        return self

    def text(self) -> str:
        """The whole text, with the markup of the chat template. Blocks until everything added is done.

        Raises:
            ProgramError: something failed.
        """
        self._reader.checked()
        return "".join(self._interpreter.chunks)

    def messages(self) -> list[dict[str, Any]]:
        """The completed messages, in OpenAI's format (with images a content is a list of parts). Blocks until
        everything added is done.

        Raises:
            ProgramError: something failed.
        """
        self._reader.checked()
        return [dict(message) for message in self._interpreter.prompt.messages]

    def error(self) -> ProgramError | None:
        """What failed, or ``None``. Blocks until everything added is done; does not raise."""
        self._reader.settle()
        return self._interpreter.error

    def sync(self) -> ProgramState:
        """Block until everything added is done. Does not raise."""
        self._reader.settle()
        return self

    def text_iter(self, var_name: str | None = None, *, index: int = 0) -> Iterator[str]:
        """The text, or that of one variable, in pieces as they arrive, from its beginning whenever this is called.

        Joined, the pieces are exactly ``s.text()`` or ``s[var_name]``, however slow the consumer, and for any
        number of them. A run without ``stream=True`` has one piece per finished operation. With ``n`` outputs,
        `index` says which; each has a stream of its own.

        Raises:
            ProgramError: after the text there is, if something failed; or there is no such output.
            UnknownVariableError: there is no such variable.
        """
        return self._reader.text_iter(var_name, index)

    @overload
    def text_async_iter(
        self, var_name: str | None = None, return_meta_data: Literal[False] = False, *, index: int = 0
    ) -> AsyncIterator[str]: ...

    @overload
    def text_async_iter(
        self, var_name: str | None, return_meta_data: Literal[True]
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]: ...

    def text_async_iter(
        self, var_name: str | None = None, return_meta_data: bool = False, *, index: int = 0
    ) -> AsyncIterator[Any]:
        """`text_iter` for ``async for``; waiting leaves the event loop free.

        With `return_meta_data` it gives pairs of a piece and its meta data: as `get_meta_info`, but with the counts
        so far and the log-probabilities of this piece alone (``output_token_logprobs_length`` counts those so far).
        Every piece has text, if the output has any; so it is given when the next has come.

        Raises:
            ValueError: meta data is wanted, but of no variable.
        """
        if not return_meta_data:
            return self._reader.text_async_iter(var_name, index)
        if var_name is None:
            raise ValueError("text_async_iter(return_meta_data=True) needs the name of a variable")
        return self._reader.events_async_iter(var_name)

    def partial_iter(self, var_name: str | None = None, *, index: int = 0) -> Iterator[Any]:
        """The value of a gen with a type while it is written: every time as far as it is there, at last ``parsed``.

        Models and dataclasses have their default or ``None`` in a field that is still to come; dicts do not have
        the key. Strings grow; numbers come when they are whole. Text that is cut in the middle raises nothing
        before the end.

        Raises:
            ProgramError, UnknownVariableError: as for `text_iter`.
            OutputError: the gen has no type, or at the end: see `GenText.parsed`.
        """
        return partial_iter(self._reader, var_name, index)

    def partial_async_iter(self, var_name: str | None = None, *, index: int = 0) -> AsyncIterator[Any]:
        """`partial_iter` for ``async for``."""
        return partial_async_iter(self._reader, var_name, index)

    @property
    def ret_value(self) -> Any:
        """What the body returned. Blocks while it runs in another thread.

        Raises:
            ProgramError: the body failed.
        """
        self._reader.body_ended()
        if not self._returned.done:
            self._interpreter.raise_error()
        elif self._returned.error is not None:
            raise self._returned.error.with_traceback(None)
        return self._returned.value

    @property
    def usage(self) -> Usage:
        """Tokens of everything done so far, in this state and its forks."""
        return self._interpreter.usage

    def trace(self, wait: bool = True) -> dict[str, Any]:
        """What this state and its forks did, as data that `json.dumps` writes: texts, their tokens and where each came
        from, gens and selects with their probabilities, usage and times, errors (`frontend/view/format.py`).

        Args:
            wait: until everything added is done. Without, what there is so far.
        """
        return view(self).traces(wait)[0].to_json()

    def save_trace(self, path: str | Path, wait: bool = True) -> None:
        """Write `trace` to a file, which ``sgl-like view`` makes a page of.

        Raises:
            OSError: it cannot be written.
        """
        Path(path).write_text(json.dumps(self.trace(wait)) + "\n", encoding="utf-8")

    def show(self, *, probabilities: bool = False, wait: bool = True) -> None:
        """Print what this state and its forks did; see `View.show`."""
        view(self).show(probabilities=probabilities, wait=wait)

    def _repr_html_(self) -> str:
        return view(self)._repr_html_()

    # -- control ------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop what is queued and in flight, here and in the forks; later reads raise ProgramError.

        An async body is interrupted where it awaits, a plain one at its next read. Does nothing if all is done.
        """
        self._interpreter.cancel(RequestAborted("the program was cancelled"))

    def __enter__(self) -> ProgramState:
        return self

    def __exit__(self, *_: object) -> None:
        """``with f.stream(x) as s: ...`` cancels what is not done at the end of the block."""
        self.cancel()

    def __iter__(self) -> Iterator[str]:
        """``for text in f.stream(x): ...`` is `text_iter`, but to leave the loop early cancels the program."""
        with self:
            yield from self.text_iter()

    async def __aiter__(self) -> AsyncIterator[str]:
        """``async for text in f.astream(x): ...``, in the same way."""
        with self:
            async for text in self.text_async_iter():
                yield text

    def _return(self, ret_value: Any) -> None:
        self._returned.finish(ret_value)

    def _finish(self, ret_value: Any) -> None:
        self._return(ret_value)
        self._interpreter.close("the program has ended")

    def __repr__(self) -> str:
        return f"ProgramState({''.join(self._interpreter.chunks)})"
