"""Functions of the user that a state waits for, validators and tools, on threads of their own.

They may take long, block, or run programs, so the executor's thread only posts them here. One that waits for a program
lends its place, or programs that tools run within tools could use up all threads and wait for each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sgl_like.frontend.bodies.workers import Workers

__all__ = ["called", "post"]

THREADS = 64
_pool = Workers(THREADS, "sgl-user-code", always_lends=True)


def post(job: Callable[[], None]) -> None:
    """Run `job`, which does not raise, on a thread of the pool. Never blocks."""
    _pool.submit(job)


def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `function` returns; that of a coroutine function runs on an event loop of its own.

    Raises:
        Exception: whatever it raises; for what is no Exception (``sys.exit()``, a cancelled task) a RuntimeError, since
            somebody waits for an answer.
    """
    try:
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            import asyncio

            return asyncio.run(result)
        return result
    except Exception:
        raise
    except BaseException as error:
        name = getattr(function, "__name__", repr(function))
        raise RuntimeError(f"{name} raised {type(error).__name__}: {error}") from error
