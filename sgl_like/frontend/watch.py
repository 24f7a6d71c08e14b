"""Waiting for a change, from threads and from coroutines alike.

A program state has one `Watch`: everything about it that somebody may wait for (a variable, more text, an error,
the end) is changed inside ``changing()``, and every waiter looks at its own predicate again. One lock per state
is plenty: a state has few waiters, and they are only woken by its own changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from sgl_like.frontend.workers import lending_place

__all__ = ["Watch"]


class Watch:
    """A condition variable that also wakes coroutines."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # Ctrl-C within Condition.__enter__ would leave it locked
        self._condition = threading.Condition(self._lock)
        self._wakers: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for a change, then wake everybody who waits."""
        with self._lock:
            yield
            self._condition.notify_all()
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the lock to look at several things at one moment."""
        with self._lock:
            yield

    def holds(self, predicate: Callable[[], bool]) -> bool:
        """Whether `predicate`, evaluated under the lock, is true now."""
        with self._lock:
            return predicate()

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Block this thread until `predicate`, evaluated under the lock, is true."""
        with lending_place(always=True), self._condition:
            self._condition.wait_for(predicate)

    async def wait_for_async(self, predicate: Callable[[], bool]) -> None:
        """The same for a coroutine; its event loop stays free."""
        while (woken := self._woken_unless(predicate)) is not None:
            await woken

    def _woken_unless(self, predicate: Callable[[], bool]) -> asyncio.Future[None] | None:
        """A future that is done at the next change; ``None`` if `predicate` is true already."""
        with self._lock:
            if predicate():
                return None
            loop = asyncio.get_running_loop()
            woken: asyncio.Future[None] = loop.create_future()
            self._wakers.append(lambda: _call(loop, woken))
        return woken


def _call(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
    """Finish `woken`, from any thread; nobody waits if it was cancelled or the loop is closed."""

    def finish() -> None:
        if not woken.done():
            woken.set_result(None)

    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(finish)
