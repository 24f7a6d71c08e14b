"""How the bodies of a batch are run: on threads of a pool, or as tasks of the caller's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from sgl_like.frontend.bodies.bodies import Body
from sgl_like.frontend.bodies.workers import Workers

__all__ = ["Attempt", "Starter", "Tasks", "Threads"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a row.

    Args:
        body: what to run.
        begin: called before; false: it is not to be run any more.
        end: called after; false: another has its place already.
    """

    body: Body
    begin: Callable[[], bool]
    end: Callable[[], bool]


class Starter(Protocol):
    """Runs so many attempts at a time, while others wait."""

    def start(self, attempt: Attempt) -> None:
        """Run it when there is a place. From any thread."""

    def lend(self) -> None:
        """Have one place more, for as long as an attempt does not end that should have."""

    def close(self) -> None:
        """Start nothing more."""


class Threads:
    """Runs attempts on at most `size` threads."""

    def __init__(self, size: int, name: str) -> None:
        self._workers = Workers(size, name)

    def start(self, attempt: Attempt) -> None:
        """See `Starter.start`."""
        self._workers.submit(partial(self._run, attempt))

    def lend(self) -> None:
        """See `Starter.lend`."""
        self._workers.lend(1)

    def close(self) -> None:
        """See `Starter.close`."""
        self._workers.close()

    def _run(self, attempt: Attempt) -> None:
        if attempt.begin():
            attempt.body.run_kept()
            if not attempt.end():
                self._workers.lend(-1)


class Tasks:
    """Runs attempts as tasks, at most `size` at a time, of the event loop in which this is made."""

    def __init__(self, size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(size)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, attempt: Attempt) -> None:
        """See `Starter.start`."""
        with suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._start, attempt)

    def lend(self) -> None:
        """See `Starter.lend`."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._places.release)

    def close(self) -> None:
        """See `Starter.close`. What is waited for in a body is cancelled."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until no task is left."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, attempt: Attempt) -> None:
        if not self._closed:
            task = self._loop.create_task(self._run(attempt))
            self._tasks.add(task)  # the loop has no strong reference to it
            task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        await self._places.acquire()
        if not attempt.begin():
            self._places.release()
            return
        await attempt.body.arun_kept()
        if attempt.end():
            self._places.release()
