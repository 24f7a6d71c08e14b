"""``other(x)`` in the body of a program: a run that has not begun, so that it can still become part of this one.

    s += other(x)         runs `other` in the state s, as s.call(other, x) does
    other(x)["answer"]    runs it by itself, as other.run(x) does, when its result is first used
    await other(x)        the same for a coroutine

What is neither added nor used is run at the end of the body, so that no call is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ProgramError
from sgl_like.frontend.bodies.current import current_body
from sgl_like.frontend.state import ProgramState

if TYPE_CHECKING:
    from sgl_like.frontend.function import SglFunction
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["DeferredState", "begin_deferred", "begin_deferred_async"]


class DeferredState(ProgramState):
    """A state that comes into being when it is first used.

    Args:
        program: what is called.
        args: of the call.
        kwargs: of the call.
    """

    def __init__(self, program: SglFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call: tuple[SglFunction[..., Any], tuple[Any, ...], dict[str, Any]] | None = (
            program,
            args,
            kwargs,
        )
        self._failure: BaseException | None = None
        self._beginning = threading.RLock()
        if (body := current_body()) is not None:
            body.deferred.append(self)

    def __getattr__(self, name: str) -> Any:
        """What `ProgramState.__init__` would have set."""
        if name.startswith("__"):
            raise AttributeError(name)
        self._begin()
        if type(self) is DeferredState:
            raise ProgramError("this run is being awaited elsewhere, and is not done yet")
        return object.__getattribute__(self, name)

    def __await__(self) -> Generator[Any, None, ProgramState]:
        if self._call is not None:
            yield from self._begin_async().__await__()
        return (yield from ProgramState.__await__(self))  # of another class by now

    def __getitem__(self, name: str | None) -> Any:
        self._begin()
        return self[name]  # of another class by now, as with the others

    def text(self) -> str:
        """See `ProgramState.text`."""
        self._begin()
        return self.text()

    def messages(self) -> list[dict[str, Any]]:
        """See `ProgramState.messages`."""
        self._begin()
        return self.messages()

    def get_meta_info(self, name: str | None) -> Any:
        """See `ProgramState.get_meta_info`."""
        self._begin()
        return self.get_meta_info(name)

    def _begin(self) -> None:
        """Run the program by itself, unless that is done.

        Raises:
            BaseException: what its body has raised, every time.
        """
        with self._beginning:
            if self._call is not None:
                program, args, kwargs = self._taken()
                try:
                    self._become(program.run(*args, **kwargs))
                except BaseException as error:
                    self._failure = error
            if self._failure is not None:
                raise self._failure

    async def _begin_async(self) -> None:
        program, args, kwargs = self._taken()
        try:
            self._become(await program.arun(*args, **kwargs))
        except BaseException as error:
            self._failure = error
            raise

    def _taken(self) -> tuple[SglFunction[..., Any], tuple[Any, ...], dict[str, Any]]:
        assert self._call is not None, "a call is taken once"
        call, self._call = self._call, None
        return call

    def add_to(self, state: ProgramState) -> bool:
        """Become a part of `state`; false if it has begun by itself before."""
        with self._beginning:
            if self._call is None:
                return False
            program, args, kwargs = self._taken()
        self._become(state.call(program, *args, **kwargs))
        return True

    def _become(self, state: ProgramState) -> None:
        """From here on this is that state."""
        self.__dict__.update(state.__dict__)
        self.__class__ = type(state)  # type: ignore[assignment]


def begin_deferred(body: Interpreter) -> None:
    """Run what has been called in this body, but neither added nor used."""
    for state in _pending(body):
        state._begin()


async def begin_deferred_async(body: Interpreter) -> None:
    """The same for an async body."""
    for state in _pending(body):
        await state


def _pending(body: Interpreter) -> list[DeferredState]:
    states, body.deferred = body.deferred, []
    return [state for state in states if isinstance(state, DeferredState) and state._call is not None]
