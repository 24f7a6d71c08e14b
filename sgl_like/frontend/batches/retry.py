"""Which failures another attempt may get past, and how long to wait before it.

Only what failed from outside is worth a second attempt: the engine or a connection broke, or time ran out. What a
program asks for (a parameter, a schema, a prompt too long) is refused again, and an exception of its own code is a bug
to be seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from sgl_like.errors import (
    EngineClosedError,
    EngineError,
    RemoteAuthenticationError,
    RequestAborted,
    RequestError,
)

__all__ = ["Backoff", "exponential_backoff", "is_transient"]

Backoff = Callable[[int], float]
"""Seconds to wait before attempt number 1, 2, ... after the first."""

_FIRST, _LONGEST = 0.5, 30.0
_BROKEN = (EngineError, ConnectionError, TimeoutError)
_FINAL = (EngineClosedError, RequestAborted, RequestError, RemoteAuthenticationError)


def exponential_backoff(attempt: int) -> float:
    """Up to half a second, then twice as long each time, up to half a minute. At least half of it is waited; the rest
    is drawn, so that rows that failed together do not come back together.
    """
    longest = min(_FIRST * 2 ** min(attempt - 1, 16), _LONGEST)
    return random.uniform(longest / 2, longest)


def is_transient(error: BaseException | None) -> bool:
    """Whether `error`, or what caused it, can be gone at another attempt.

    An exception with an attribute ``transient`` says so itself. Otherwise an `EngineError` is transient, unless the
    engine was shut down, the request cancelled, or refused as it is; and so are ConnectionError and TimeoutError, also
    from the code of the program. The first in the chain of causes that is known either way decides.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        said = getattr(error, "transient", None)
        if isinstance(said, bool):
            return said
        if isinstance(error, (*_FINAL, *_BROKEN)):
            return not isinstance(error, _FINAL)
        error = error.__cause__
    return False
