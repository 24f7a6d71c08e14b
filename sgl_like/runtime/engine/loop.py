"""The engine's thread: takes commands between steps, and steps while there is work."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from sgl_like.errors import EngineClosedError
from sgl_like.runtime.engine.activity import Activity
from sgl_like.runtime.engine.core import EngineCore

log = logging.getLogger(__name__)
T = TypeVar("T")
Command = Callable[[EngineCore], None]


class EngineLoop:
    """Runs an `EngineCore` on a daemon thread of its own.

    The thread ends with `close`, when the loop is garbage, or before the interpreter exits: a thread that is still
    inside torch while Python is taken down aborts the process.

    Args:
        core: the engine; after this, only the thread touches it.
    """

    def __init__(self, core: EngineCore) -> None:
        self._inbox: SimpleQueue[Command | None] = SimpleQueue()
        self._lock = threading.Lock()
        self.activity = Activity()
        work = (core, self._inbox, self.activity)
        thread = threading.Thread(target=_run, args=work, name="sgl-engine", daemon=True)
        self._stop = weakref.finalize(self, _stop, self._inbox, thread)
        thread.start()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._stop.alive

    def post(self, command: Command) -> None:
        """Have the thread run a command before its next step.

        Raises:
            EngineClosedError: the engine is shut down.
        """
        with self._lock:
            if self.closed:
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
            self._stop()


def _stop(inbox: SimpleQueue[Command | None], thread: threading.Thread) -> None:
    inbox.put(None)
    if threading.current_thread() is not thread:
        thread.join()


def _run(core: EngineCore, inbox: SimpleQueue[Command | None], activity: Activity) -> None:
    while True:
        while not inbox.empty() or not core.has_work:
            command = inbox.get()
            if command is None:
                core.fail_all(EngineClosedError("the engine was shut down while the request ran"))
                try:
                    core.close()
                except Exception:
                    log.exception("the cache was not saved")
                activity.ended()
                return
            activity.began()
            try:
                command(core)
            except Exception:
                log.exception("a command to the engine failed")
            del command  # it may hold the engine, whose end this thread waits for
            activity.ended()
        activity.began()
        try:
            core.step()
        except Exception as error:  # not a single request's fault: end them all, stay alive
            log.exception("the engine's step failed")
            core.fail_all(EngineClosedError(f"the engine failed: {error}"))
        activity.ended()
