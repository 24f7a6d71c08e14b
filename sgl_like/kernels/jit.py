"""Numba with its machine code kept on disk, where there is a disk to write to."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
REASSOCIATE = {"reassoc", "contract", "nsz", "arcp"}
"""Floating-point freedoms that let sums use vector registers; infinities and NaN keep their meaning."""


def compiled(signature: str | None = None, fastmath: set[str] | bool = False) -> Callable[[F], F]:
    """Compile a function so that it runs without the GIL: now for one signature, or on its first calls.

    Machine code is cached beside the source, else in the user's cache directory, or where ``NUMBA_CACHE_DIR`` says.
    If none of them can be written (a read-only home, a full disk) it is compiled anew in each process; a shared
    directory such as /tmp is never used, because another user's code could be run from there. See `mark`.
    """

    def decorate(function: F) -> F:
        njit: Any = numba.njit
        mark(function)
        arguments = (signature,) if signature else ()
        try:
            return cast(F, njit(*arguments, cache=True, nogil=True, fastmath=fastmath)(function))
        except (OSError, RuntimeError) as error:
            logging.getLogger(__name__).info("numba cannot keep its machine code: %s", error)
            return cast(F, njit(*arguments, nogil=True, fastmath=fastmath)(function))

    return decorate


def mark(function: Callable[..., Any]) -> None:
    """Have Numba keep a function's code under a name that changes with the sources around it.

    Numba looks only at the file of the function itself, but its code contains that of others which it calls.
    """
    folder = Path(function.__code__.co_filename).parent
    function.__qualname__ += (
        f"_{zlib.crc32(b'%x %x' % (_digest(folder), _digest(Path(__file__).parent))):08x}"
    )


@cache
def _digest(folder: Path) -> int:
    digest = 0
    for file in sorted(folder.glob("*.py")):
        digest = zlib.crc32(file.read_bytes(), digest)
    return digest
