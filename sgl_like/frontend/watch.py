"""Waiting for a change, from threads and from coroutines alike.

A program state has one `Watch`: everything about it that somebody may wait for (a variable, more text, an error,
the end) is changed inside ``changing()``, and every waiter looks at its own predicate again. One lock per state
is plenty: a state has few waiters, and they are only woken by its own changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sgl_like.frontend.workers import lending_place

__all__ = ["Watch"]


class _Waiter(NamedTuple):
    """A coroutine that waits. Its predicate is evaluated as if by itself: in its context."""

    predicate: Callable[[], bool]
    context: contextvars.Context
    woken: asyncio.Future[None]


class Watch:
    """A condition variable that also wakes coroutines."""

    def __init__(self) -> None:
        self.lock = (
            threading.RLock()
        )  # held for a look at several things; Ctrl-C within Condition.__enter__ would leave it locked
        self._condition = threading.Condition(self.lock)
        self._waiters: list[_Waiter] = []

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for a change, then wake everybody who waits."""
        with self.lock:
            yield
            self._condition.notify_all()
            if self._waiters:
                self._wake()

    def _wake(self) -> None:
        """Wake those coroutines that have what they wait for, which costs more than to look."""
        waiting = []
        for waiter in self._waiters:
            if waiter.context.run(waiter.predicate):
                _finish(waiter.woken)
            else:
                waiting.append(waiter)
        self._waiters = waiting

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the lock to look at several things at one moment."""
        with self.lock:
            yield

    def holds(self, predicate: Callable[[], bool]) -> bool:
        """Whether `predicate`, evaluated under the lock, is true now."""
        with self.lock:
            return predicate()

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Block this thread until `predicate`, evaluated under the lock, is true."""
        with lending_place(always=True), self.lock:
            self._condition.wait_for(predicate)

    async def wait_for_async(self, predicate: Callable[[], bool]) -> None:
        """The same for a coroutine; its event loop stays free."""
        woken = self._woken_unless(predicate)
        while woken is not None:
            await woken
            woken = self._woken_unless(predicate)

    def _woken_unless(self, predicate: Callable[[], bool]) -> asyncio.Future[None] | None:
        """A future that is done when `predicate` has become true; ``None`` if it is already."""
        with self.lock:
            if predicate():
                return None
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters = [waiter for waiter in self._waiters if not waiter.woken.cancelled()]
            self._waiters.append(_Waiter(predicate, contextvars.copy_context(), woken))
        return woken


class _Finisher:
    """Finishes futures of one loop from other threads; wakes the loop once for all that are finished meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: list[asyncio.Future[None]] = []

    def finish(self, future: asyncio.Future[None]) -> None:
        """Have the future done soon; from any thread."""
        with self._lock:
            self._futures.append(future)
            first = len(self._futures) == 1
        if first:  # else the loop knows already
            try:
                future.get_loop().call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop is closed by now
                self._take()

    def _take(self) -> list[asyncio.Future[None]]:
        with self._lock:
            futures, self._futures = self._futures, []
        return futures

    def _run(self) -> None:
        for future in self._take():
            if not future.done():  # it may have been cancelled
                future.set_result(None)


_finishers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Finisher] = WeakKeyDictionary()
_finishers_lock = threading.Lock()


def _finish(future: asyncio.Future[None]) -> None:
    with _finishers_lock:
        finisher = _finishers.setdefault(future.get_loop(), _Finisher())
    finisher.finish(future)
