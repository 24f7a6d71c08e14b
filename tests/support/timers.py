"""Timers that fire when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.bodies.executor import Timer


class ManualTimers:
    """Stands in for the timers of a backend's executor.

    Args:
        backend: whose executor.
        at_once: timers of up to so many seconds fire as soon as they are set.
    """

    def __init__(self, backend: Backend, at_once: float = 0.0) -> None:
        self.seconds: list[float] = []
        self._executor = backend.executor
        self._at_once = at_once
        self._timers: list[Timer] = []
        self._set = threading.Condition()
        backend.executor.call_later = self._call_later  # type: ignore[method-assign]

    def fire(self, count: int = 1) -> None:
        """When `count` timers are set and not cancelled, have the first go off."""
        with self._set:
            assert self._set.wait_for(lambda: len(self.waiting()) >= count, timeout=20)
            timer = self.waiting()[0]
            self._timers.remove(timer)
        assert timer.job is not None
        self._executor.post(timer.job)

    def waiting(self) -> list[Timer]:
        """Timers that were neither fired nor cancelled."""
        return [timer for timer in self._timers if timer.job is not None]

    def _call_later(self, seconds: float, job: Callable[[], None]) -> Timer:
        timer = Timer(seconds, len(self.seconds), job)
        with self._set:
            self.seconds.append(seconds)
            if seconds > self._at_once:
                self._timers.append(timer)
            self._set.notify_all()
        if seconds <= self._at_once:
            self._executor.post(job)
        return timer
