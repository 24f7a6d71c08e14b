"""The one thread of a backend on which program states move on.

Bodies of programs and the engine's callbacks only post jobs here, so a state needs no thread of its own and its
prompt needs no lock: it is only ever touched by this thread. The thread starts with the first job and leaves
after a while without any, so nobody has to shut it down.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Executor"]

IDLE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Executor:
    """Runs jobs in the order in which they were posted, one at a time, on a daemon thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._condition = threading.Condition()
        self._running = False

    def post(self, job: Callable[[], None]) -> None:
        """Run `job` soon. Never blocks; a job must not block either."""
        with self._condition:
            self._jobs.append(job)
            if self._running:
                self._condition.notify()
                return
            self._running = True
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._condition.wait_for(lambda: bool(self._jobs), timeout=IDLE_SECONDS):
                    self._running = False
                    return
                job = self._jobs.popleft()
            try:
                job()
            except (
                Exception
            ):  # jobs turn their failures into a state's error; this is a bug, not a user's mistake
                _log.exception("a job of %s failed", self._name)
