"""The one thread of this process that waits for servers: an event loop that all remote backends share.

It starts with the first request. A process forked from one that has a loop starts its own: threads do not survive a
fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

__all__ = ["run", "start", "start_closing"]

T = TypeVar("T")


class Closable(Protocol):
    """What has connections to close."""

    async def close(self) -> None:
        """Close them; may be called again."""


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = 0  # process that the loop was started in


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Have the loop run `work`; to cancel the future cancels it."""
    return asyncio.run_coroutine_threadsafe(work, _running_loop())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Have the loop run `work`, and wait for what it returns. Not to be called on the loop's own thread."""
    return start(work).result()


def start_closing(resource: Closable) -> None:
    """Have the loop close `resource`, if a loop runs; nobody waits for it."""
    with _lock:
        if _loop is not None and _owner == os.getpid():
            asyncio.run_coroutine_threadsafe(resource.close(), _loop)


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _owner
    with _lock:
        if _loop is None or _owner != os.getpid():
            _loop, _owner = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="sgl-remote", daemon=True).start()
        return _loop
