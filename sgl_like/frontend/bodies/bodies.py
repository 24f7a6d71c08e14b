"""How the body of a program is run, plain or async, from synchronous code or from a coroutine.

                 from synchronous code                 from a coroutine
    plain body   in the caller's thread; with stream   on a thread of the pool
                 on a thread of the pool
    async body   on our own event loop                 on the caller's loop, in the caller's task;
                                                       with stream in a task of its own

Whichever it is, a run ends when the body has returned and everything it has added is done. An error of the body is
raised to a caller who waits for the run, and kept in the state for one who does not.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sgl_like.errors import DeadlineExceeded, RequestAborted
from sgl_like.frontend.bodies.current import guarding_loop, refuse_blocking, running_body
from sgl_like.frontend.bodies.deferred import begin_deferred, begin_deferred_async
from sgl_like.frontend.bodies.loops import run_on_own_loop, start_on_own_loop
from sgl_like.frontend.bodies.turns import turn
from sgl_like.frontend.bodies.workers import body_workers, lending_place
from sgl_like.frontend.calls import Call
from sgl_like.frontend.global_config import global_config
from sgl_like.frontend.interpreter import Interpreter
from sgl_like.frontend.state import ProgramState

__all__ = ["Body"]

_tasks: set[asyncio.Task[None]] = set()  # event loops keep no strong reference to the tasks they run


@dataclass(frozen=True, slots=True)
class Body:
    """The body of one run.

    Args:
        func: the function.
        is_async: whether it is a coroutine function.
        state: what it adds to.
        call: its arguments.
        timeout: seconds until the run is cancelled.
    """

    func: Callable[..., Any]
    is_async: bool
    state: ProgramState
    call: Call
    timeout: float | None

    def run(self) -> ProgramState:
        """Run it to the end of the run. What the body raises is raised unchanged.

        Raises:
            ProgramError: this code is part of an async body, whose event loop it would block.
        """
        program = self.state._interpreter.context.program
        refuse_blocking(program, f"use: await {program}.arun(...)")
        if self.is_async:
            run_on_own_loop(self._coroutine())
        else:
            self._plain()
        return self.state

    def run_kept(self) -> None:
        """The same; whatever is raised is kept in the state."""
        with suppress(BaseException):
            self.run()

    def start(self) -> ProgramState:
        """Have it run apart from the caller."""
        self.state._interpreter.apart = True
        if self.is_async:
            start_on_own_loop(self._coroutine())
        else:
            self._submit_plain()
        return self.state

    async def arun(self) -> ProgramState:
        """`run` for a coroutine, which may be cancelled."""
        interpreter = self.state._interpreter
        interpreter.loop = asyncio.get_running_loop()
        if self.is_async:
            await self._coroutine()
            return self.state
        try:
            with lending_place():
                await asyncio.wrap_future(self._submit_plain())
        except asyncio.CancelledError:
            interpreter.cancel(RequestAborted("the task of the program was cancelled"))
            raise
        return self.state

    async def arun_kept(self) -> None:
        """`run_kept` for a coroutine; a cancellation of its task is raised."""
        with suppress(Exception):
            await self.arun()

    def astart(self) -> ProgramState:
        """`start` from a coroutine: an async body becomes a task of the running loop."""
        loop = self.state._interpreter.loop = asyncio.get_running_loop()
        if not self.is_async:
            return self.start()
        self.state._interpreter.apart = True
        task = loop.create_task(self.arun_kept())
        _tasks.add(task)
        task.add_done_callback(self._task_ended)
        return self.state

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        _tasks.discard(task)
        if task.cancelled():  # it may not even have begun
            self.state._interpreter.cancel(RequestAborted("the task of the program was cancelled"))
            self.state._interpreter.close("the program has failed")

    def _submit_plain(self) -> Future[None]:
        return body_workers().submit(partial(contextvars.copy_context().run, self._plain))

    def _plain(self) -> None:
        with self._begun():
            value = self.func(self.state, *self.call.args, **self.call.kwargs)
            begin_deferred(self.state._interpreter)
            self.state._finish(value)
            self.state._interpreter.wait()
        self._show()

    async def _coroutine(self) -> None:
        interpreter = self.state._interpreter
        interpreter.loop = asyncio.get_running_loop()
        with self._begun(), guarding_loop(), _interruptible(interpreter):
            await turn()
            value = await self.func(self.state, *self.call.args, **self.call.kwargs)
            await begin_deferred_async(interpreter)
            self.state._finish(value)
            await interpreter.wait_async()
        self._show()

    def _show(self) -> None:
        """Print the text, if that is wanted of all runs."""
        if global_config.verbosity >= 2:
            print("".join(self.state._interpreter.chunks))

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """The body runs in this block. If it raises, or takes too long, the state fails and what is in flight ends."""
        interpreter, timer = self.state._interpreter, None
        if interpreter.error is not None:  # cancelled before it began
            interpreter.close("the program has failed")
            interpreter.raise_error()
        if self.timeout is not None:
            late = DeadlineExceeded(f"the program was not done after {self.timeout} s")
            timer = interpreter.context.backend.executor.call_later(
                self.timeout, partial(interpreter.cancel, late)
            )
        interpreter.context.tell("run_start")
        try:
            with running_body(interpreter):
                yield
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            interpreter.cancel(
                RequestAborted("the task of the program was cancelled") if cancelled else error
            )
            interpreter.close("the program has failed")
            raise
        finally:
            if timer is not None:
                timer.cancel()
            ended = {
                "value": self.state._returned.value,
                "usage": interpreter.usage,
                "error": interpreter.error,
            }
            interpreter.context.tell("run_end", **ended)


@contextmanager
def _interruptible(interpreter: Interpreter) -> Iterator[None]:
    """Let `Interpreter.cancel` interrupt the task that runs this block where it awaits something.

    As with `asyncio.timeout`, the task is told apart from one that others cancel as well: if nobody else has, the
    cancellation becomes the error of the state.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "only coroutines of a task come here"
    before, stopped, ended = task.cancelling(), False, False

    def stop() -> None:
        nonlocal stopped
        if not ended and not stopped:
            stopped = task.cancel()

    def stop_from_anywhere() -> None:
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(stop)

    interpreter.stop_body = stop_from_anywhere
    try:
        yield
    except asyncio.CancelledError:
        if stopped and task.uncancel() <= before:
            interpreter.raise_error()
        raise
    finally:
        ended, interpreter.stop_body = True, None
