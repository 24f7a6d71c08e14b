"""Waiting for a change, from threads and from coroutines alike.

A program state has one `Watch`: everything about it that somebody may wait for (a variable, more text, an error,
the end) is changed inside ``changing()``, or, where that is done often, under the lock and before ``changed()``. Every
waiter looks at its own predicate again. One lock per state is plenty: a state has few waiters, and they are only woken
by its own changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgl_like.frontend.bodies.turns import finish
from sgl_like.frontend.bodies.workers import lending_place

__all__ = ["Watch"]

MAIN_THREAD_LOOKS_UP = 0.5
"""Seconds after which a waiting main thread looks for signals: one that comes just before it begins to wait does not
wake it, and Ctrl-C would be lost."""


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
        self._condition: threading.Condition | None = None  # once a thread has waited
        self._waiters: list[_Waiter] = []

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for a change, then wake everybody who waits."""
        with self.lock:
            yield
            self.changed()

    def changed(self) -> None:
        """Wake everybody who waits; to be called while the lock is held, after the change."""
        if self._condition is not None:
            self._condition.notify_all()
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        """Wake those coroutines that have what they wait for, which costs more than to look."""
        waiting = []
        for waiter in self._waiters:
            if waiter.context.run(waiter.predicate):
                finish(waiter.woken)
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
        in_main = threading.current_thread() is threading.main_thread()
        with lending_place(always=True), self.lock:
            if self._condition is None:
                self._condition = threading.Condition(self.lock)
            while not self._condition.wait_for(predicate, MAIN_THREAD_LOOKS_UP if in_main else None):
                pass

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
