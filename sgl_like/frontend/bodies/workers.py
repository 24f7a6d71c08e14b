"""Bounded pools of daemon threads for the bodies of programs.

Not `concurrent.futures.ThreadPoolExecutor`: its threads keep a process alive until every queued job has run, so
Ctrl-C in the middle of a batch would hang. And a body that waits for another body, which may still be in the queue,
would wait for ever in a full pool: here it lends its place for as long (`lending_place`), so that no more than
`size` threads do anything else than wait for others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Workers", "body_workers", "lending_place", "set_worker_threads"]

T = TypeVar("T")
DEFAULT_SIZE = 64


class Workers:
    """At most `size` threads at work; each starts when a job finds no free one.

    Args:
        size: number of places.
        name: of the threads.
        always_lends: a thread lends its place whenever it waits for a program, and not only for other bodies.
    """

    def __init__(self, size: int, name: str, always_lends: bool = False) -> None:
        self.always_lends = always_lends
        self._size = size
        self._name = name
        self._lock = threading.Lock()  # Ctrl-C within Condition.__enter__ would leave it locked
        self._condition = threading.Condition(self._lock)
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._free = 0  # threads that wait for a job
        self._closed = False

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` on a thread of the pool."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)

        with self._lock:
            self._jobs.append(run)
            self._call_thread()
        return future

    def close(self) -> None:
        """Let the threads leave when they have run what was submitted. Does not wait for them."""
        with self._lock:
            self._closed = True
            self._condition.notify_all()

    def lend(self, places: int) -> None:
        """Have so many places more, or fewer if negative."""
        with self._lock:
            self._size += places
            if self._jobs:
                self._call_thread()
            elif self._threads > self._size:
                self._condition.notify()  # one too many, which leaves

    def _call_thread(self) -> None:
        """See that a thread comes for the last job, if one may."""
        if self._free < len(self._jobs) and self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        else:
            self._condition.notify()

    def _work(self) -> None:
        _here.pool = self
        while (job := self._next()) is not None:
            job()
            del job  # or the last state would live as long as the thread

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            self._free += 1
            self._condition.wait_for(lambda: self._jobs or self._closed or self._threads > self._size)
            self._free -= 1
            if self._jobs and self._threads <= self._size:
                return self._jobs.popleft()
            self._threads -= 1
            if self._jobs:
                self._call_thread()  # in its place, if there is one
            return None


class _Here(threading.local):
    pool: Workers | None = None


_here = _Here()
_lock = threading.Lock()
_bodies: Workers | None = None


@contextmanager
def lending_place(always: bool = False) -> Iterator[None]:
    """While this thread waits in this block for other bodies, its pool, if it is of one, may have another thread.

    With `always` it waits for anything of a program, where only threads of pools that always lend do so.
    """
    pool = _here.pool
    if pool is None or pool.always_lends != always:
        yield
        return
    pool.lend(1)
    try:
        yield
    finally:
        pool.lend(-1)


def body_workers() -> Workers:
    """The pool for plain bodies that run apart from their caller: those of ``stream`` and ``arun``."""
    global _bodies
    with _lock:
        if _bodies is None:
            _bodies = Workers(DEFAULT_SIZE, "sgl-body")
        return _bodies


def set_worker_threads(count: int) -> None:
    """Run at most `count` plain bodies at a time of those started by ``stream`` and ``arun`` (64 unless set).

    Async bodies need no thread, and ``run_batch`` has its own ``num_threads``.

    Raises:
        ValueError: `count` is not a positive integer.
    """
    global _bodies
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"the number of worker threads must be at least 1, not {count!r}")
    with _lock:
        before, _bodies = _bodies, Workers(count, "sgl-body")
    if before is not None:
        before.close()
