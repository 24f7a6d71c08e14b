"""Turns on an event loop: many coroutines of programs that may go on at once do so a few at a time.

A step of a program takes some ten microseconds, so a thousand that are taken in one iteration of the loop would hold
up whatever else it runs, a server's other connections say. Between two slices of `SLICE` steps the loop runs what is
due. It is woken once for all that may go on, however many threads say so.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from weakref import WeakKeyDictionary

__all__ = ["SLICE", "finish", "turn"]

SLICE = 32


class _Turns:
    """The turns of one loop, which is kept alive by nothing here but those who wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._called = False  # whether `_run` will be run
        self._begun = 0  # turns taken at once, in this iteration

    def finish(self, future: asyncio.Future[None]) -> None:
        """Have the future done when it is its turn; from any thread."""
        with self._lock:
            self._waiting.append(future)
            called, self._called = self._called, True
        if not called:  # else the loop knows already
            try:
                future.get_loop().call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop is closed by now
                self._waiting.clear()

    async def turn(self) -> None:
        """Wait for a turn, if this iteration has had its share."""
        loop = asyncio.get_running_loop()
        if self._begun == 0:
            loop.call_soon(self._begin_again)
        self._begun += 1
        if self._begun > SLICE:
            future: asyncio.Future[None] = loop.create_future()
            self.finish(future)
            await future

    def _begin_again(self) -> None:
        self._begun = 0

    def _run(self) -> None:
        """Give the next slice of turns; who has one takes it in the loop's next iteration."""
        with self._lock:
            slice_ = [self._waiting.popleft() for _ in range(min(SLICE, len(self._waiting)))]
            again = self._called = bool(self._waiting)
        for future in slice_:
            if not future.done():  # it may have been cancelled
                future.set_result(None)
        if again:
            asyncio.get_running_loop().call_soon(self._run)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
_lock = threading.Lock()


def _turns(loop: asyncio.AbstractEventLoop) -> _Turns:
    with _lock:
        turns = _of_loops.get(loop)
        if turns is None:
            turns = _of_loops[loop] = _Turns()
        return turns


def finish(future: asyncio.Future[None]) -> None:
    """Have a future done when it is its turn; from any thread."""
    _turns(future.get_loop()).finish(future)


async def turn() -> None:
    """Wait for a turn on the running loop, if many others take one right now."""
    await _turns(asyncio.get_running_loop()).turn()
