"""When a process collects garbage: not between two tokens.

A full collection looks at every object and stops all threads meanwhile; what constraints keep are hundreds of thousands
of objects, 0.5 s on the machine where this was found. Young ones are collected as ever, which takes a millisecond.
What is free after a full one goes back to the operating system.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from sgl_like.kernels.trim import trim

YOUNG = (10_000, 20, 1_000_000)
"""Allocations until the young are looked at, how often until the middle-aged are, and the old: never by itself."""
SECONDS = 10.0
"""Between two looks whether it can be done."""
LONGEST = 60
"""Looks after which it is done whatever runs."""


async def collect_when_idle(is_busy: Callable[[], bool]) -> None:
    """Take over from now on; does not return.

    Args:
        is_busy: whether somebody would notice.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*YOUNG)
    waited = 0
    while True:
        await asyncio.sleep(SECONDS)
        waited += 1
        if waited >= LONGEST or not is_busy():
            gc.collect()
            trim()
            waited = 0
