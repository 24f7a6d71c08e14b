"""``pinned``: keep what a state has so far in the backend's prefix cache, while something else goes on.

Both ends are operations, so that the prompt is the one of that place in the program. The backend's work is done on
a thread of its own: the executor must not wait for it. The last token of the prompt may still merge with text to come;
it is not pinned, and nothing about the prompt changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sgl_like.errors import ProgramError
from sgl_like.frontend.operations.base import Operation

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["Hold", "Pin", "Unpin"]


class Hold:
    """What a `Pin` got from the backend, until an `Unpin` or a failure lets it go, whichever comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._release: Callable[[], None] | None = None
        self._over = False

    def keep(self, release: Callable[[], None] | None) -> None:
        """The backend holds the prefix until `release` is called."""
        with self._lock:
            if not self._over:
                self._release = release
                return
        if release is not None:
            release()

    def end(self) -> None:
        """Let it go, now or as soon as it is there. May be called twice."""
        with self._lock:
            self._over, release, self._release = True, self._release, None
        if release is not None:
            release()


class _Apart(Operation):
    """Does something on a thread of its own."""

    def __init__(self, label: str, hold: Hold) -> None:
        super().__init__(label)
        self._hold = hold

    def _begin(self, at: Interpreter, job: Callable[[], None]) -> None:
        _apart(partial(self._run, at, job))

    def _run(self, at: Interpreter, job: Callable[[], None]) -> None:
        failure: Exception | None = None
        try:
            job()
        except Exception as error:
            failure = error
        at.guarded(self, self._done, failure)

    def _done(self, at: Interpreter, failure: Exception | None) -> None:
        if failure is not None:
            raise failure
        at.finish(self)

    def cancel(self, error: ProgramError) -> None:
        """The state has failed: nothing is pinned any more."""
        _apart(self._hold.end)

    drop = cancel


class Pin(_Apart):
    """Have the backend keep the prompt."""

    def __init__(self, hold: Hold) -> None:
        super().__init__("pinned()", hold)

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        backend = at.context.backend
        ids = at.prompt.continued(backend, at.prompt.settle(backend))[:-1]
        if not ids:
            return True
        self._begin(at, lambda: self._hold.keep(backend.hold_prefix(ids)))
        return False


class Unpin(_Apart):
    """Let it go."""

    def __init__(self, hold: Hold) -> None:
        super().__init__("end of pinned()", hold)

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        self._begin(at, self._hold.end)
        return False


def _apart(job: Callable[[], None]) -> None:
    threading.Thread(target=job, name="sgl-pin", daemon=True).start()
