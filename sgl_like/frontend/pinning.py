"""``pinned``: a state's prefix stays cached while a block adds to it, and its forks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sgl_like.frontend.operations.pin import Hold, Pin, Unpin
from sgl_like.frontend.state import ProgramState

__all__ = ["pinned"]


@contextmanager
def pinned(state: ProgramState) -> Iterator[ProgramState]:
    """``with sgl.pinned(s): ...``: what `s` has so far stays in the prefix cache until what the block adds is done.

    Whatever else runs meanwhile cannot push it out. Nothing blocks: it is computed and pinned when the program gets
    there. A backend that keeps no prefixes takes no notice.

    If the prefix would take more than half of the cache, the state fails with a RequestError.
    """
    hold = Hold()
    state._interpreter.enqueue(Pin(hold))
    try:
        yield state
    finally:
        state._interpreter.enqueue(Unpin(hold))
