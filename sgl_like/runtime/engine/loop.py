"""The engine's thread: takes commands between steps, and steps while there is work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from sgl_like.errors import EngineClosedError
from sgl_like.runtime.engine.core import EngineCore

log = logging.getLogger(__name__)
T = TypeVar("T")
Command = Callable[[EngineCore], None]


class EngineLoop:
    """Runs an `EngineCore` on a daemon thread of its own.

    Args:
        core: the engine; after this, only the thread touches it.
    """

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._inbox: SimpleQueue[Command | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sgl-engine", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def post(self, command: Command) -> None:
        """Have the thread run a command before its next step.

        Raises:
            EngineClosedError: the engine is shut down.
        """
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine has been shut down")
            self._inbox.put(command)

    def call(self, function: Callable[[EngineCore], T]) -> T:
        """Have the thread run a function and wait for its result or exception."""
        done: Future[T] = Future()

        def command(core: EngineCore) -> None:
            try:
                done.set_result(function(core))
            except BaseException as error:
                done.set_exception(error)

        self.post(command)
        return done.result()

    def close(self) -> None:
        """End all requests with an error and stop the thread. May be called twice, and from a request's sink."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            while not self._inbox.empty() or not self._core.has_work:
                command = self._inbox.get()
                if command is None:
                    self._core.fail_all(EngineClosedError("the engine was shut down while the request ran"))
                    return
                try:
                    command(self._core)
                except Exception:
                    log.exception("a command to the engine failed")
            try:
                self._core.step()
            except Exception as error:  # not a single request's fault: end them all, stay alive
                log.exception("the engine's step failed")
                self._core.fail_all(EngineClosedError(f"the engine failed: {error}"))
