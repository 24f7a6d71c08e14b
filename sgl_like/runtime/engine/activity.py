"""What an engine's thread is doing, for those who watch it from other threads. (Needs no torch.)"""

from __future__ import annotations

import time
from collections.abc import Callable


def _nothing() -> None:
    pass


class Activity:
    """Written by the engine's thread, read by anybody.

    Attributes:
        turned: called on the engine's thread after every step and every command; has to be quick and must not raise.
    """

    __slots__ = ("_since", "turned")

    def __init__(self) -> None:
        self.turned: Callable[[], None] = _nothing
        self._since = 0.0

    @property
    def busy_seconds(self) -> float:
        """How long the step or command that runs now has been running; 0 while the thread waits for work."""
        since = self._since
        return 0.0 if since == 0.0 else time.monotonic() - since

    def began(self) -> None:
        """A step or command begins."""
        self._since = time.monotonic()

    def ended(self) -> None:
        """It has ended."""
        self._since = 0.0
        self.turned()
