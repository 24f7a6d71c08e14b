"""A bounded pool of daemon threads for the bodies of programs.

Not `concurrent.futures.ThreadPoolExecutor`: its threads keep a process alive until every queued job has run, so
Ctrl-C in the middle of a batch would hang.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["Workers", "in_thread"]

T = TypeVar("T")


class Workers:
    """At most `size` threads; each starts when a job finds no free one."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(0)  # threads that wait for a job
        self._started = 0

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` on a thread of the pool. To be called from one thread."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)

        if not self._free.acquire(blocking=False) and self._started < self._size:
            self._started += 1
            in_thread(self._work, f"{self._name}-{self._started}")
        self._jobs.put(run)
        return future

    def close(self) -> None:
        """Let the threads leave when they have run what was submitted. Does not wait for them."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or the last state would live as long as the thread
            self._free.release()


def in_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread that runs `target`."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
