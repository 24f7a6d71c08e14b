"""Giving memory that is free back to the operating system."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

__all__ = ["trim"]


def trim() -> None:
    """Give back what malloc keeps of memory that was freed, where it can be asked to: glibc keeps holes in its heap.

    Takes about 1 ms where there is much of it.
    """
    give = _malloc_trim()
    if give is not None:
        give(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no such library, or on Windows: no library without a name
        return None
