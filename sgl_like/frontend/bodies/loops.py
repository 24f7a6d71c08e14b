"""Event loops: the one this code runs on, and one of our own for async bodies that synchronous code runs.

All async programs that are run from synchronous code share one loop, on one daemon thread that starts when it is first
needed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from sgl_like.frontend.bodies.workers import lending_place

__all__ = ["run_on_own_loop", "running_loop", "start_on_own_loop"]

T = TypeVar("T")
_lock = threading.Lock()
_own: asyncio.AbstractEventLoop | None = None


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs this code, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def start_on_own_loop(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run `work` on our own loop."""
    return asyncio.run_coroutine_threadsafe(work, _own_loop())


def run_on_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on our own loop, and block until it is done; an interrupt cancels it. Not to be called there."""
    future = start_on_own_loop(work)
    try:
        with lending_place():
            return future.result()
    except BaseException:
        future.cancel()
        raise


def _own_loop() -> asyncio.AbstractEventLoop:
    global _own
    with _lock:
        if _own is None:
            _own = asyncio.new_event_loop()
            threading.Thread(target=_own.run_forever, name="sgl-loop", daemon=True).start()
        return _own
