"""The one thread of a backend on which program states move on.

Bodies of programs and the engine's callbacks only post jobs here, so a state needs no thread of its own and its
prompt needs no lock: it is only ever touched by this thread. Timeouts are jobs for later on the same thread. It starts
with the first job and leaves after a while without any, so nobody has to shut it down.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Executor", "Timer"]

IDLE_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(order=True, slots=True)
class Timer:
    """A job for later."""

    when: float
    number: int
    job: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Do not run it, if it has not been run; what it holds is let go at once."""
        self.job = None


class Executor:
    """Runs jobs in the order in which they were posted, one at a time, on a daemon thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._timers: list[Timer] = []  # a heap
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # Ctrl-C within Condition.__enter__ would leave it locked
        self._condition = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._waiting = False  # whether the thread waits for a job

    def post(self, job: Callable[[], None]) -> None:
        """Run `job` soon. Never blocks; a job must not block either."""
        with self._lock:
            self._jobs.append(job)
            self._wake()

    def call_later(self, seconds: float, job: Callable[[], None]) -> Timer:
        """Run `job` when so many seconds have passed, unless the timer is cancelled before."""
        timer = Timer(time.monotonic() + seconds, next(self._numbers), job)
        with self._lock:
            while self._timers and self._timers[0].job is None:
                heapq.heappop(self._timers)
            heapq.heappush(self._timers, timer)
            if self._timers[0] is timer:
                self._wake()
        return timer

    def is_current(self) -> bool:
        """Whether this code runs on the executor's thread."""
        return threading.current_thread() is self._thread

    def _wake(self) -> None:
        if self._thread is not None:
            if self._waiting:
                self._condition.notify()
            return
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except (
                Exception
            ):  # jobs turn their failures into a state's error: this is a bug, not a user's mistake
                _log.exception("a job of %s failed", self._name)
            del job  # or the last state would live as long as the thread waits

    def _next(self) -> Callable[[], None] | None:
        """The next job, waiting for one; ``None`` after a while without any and without timers."""
        with self._lock:
            while True:
                if self._timers and (timer := self._timers[0]).when <= time.monotonic():
                    heapq.heappop(self._timers)
                    if timer.job is not None:
                        return timer.job
                elif self._jobs:
                    return self._jobs.popleft()
                elif not self._wait() and not self._jobs and not self._timers:
                    self._thread = None
                    return None

    def _wait(self) -> bool:
        self._waiting = True
        try:
            return self._condition.wait(self._patience())
        finally:
            self._waiting = False

    def _patience(self) -> float:
        return self._timers[0].when - time.monotonic() if self._timers else IDLE_SECONDS
