"""Numba, compiled at import and kept on disk, where there is a disk to write to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(signature: str) -> Callable[[F], F]:
    """Compile a function for one signature, without the GIL.

    Machine code is cached beside the source, else in the user's cache directory, or where ``NUMBA_CACHE_DIR`` says.
    If none of them can be written (read-only home, full disk) it is compiled anew in each process; a shared
    directory such as /tmp is never used, because cached code of another user would be run.
    """

    def decorate(function: F) -> F:
        try:
            return cast(F, numba.njit(signature, cache=True, nogil=True)(function))
        except (OSError, RuntimeError) as error:
            logging.getLogger(__name__).info("numba cannot keep its machine code: %s", error)
            return cast(F, numba.njit(signature, nogil=True)(function))

    return decorate
