"""What the prompts of a batch begin with, kept in the cache of the backend while the batch runs.

A backend shares what prompts have in common anyway, as long as it is cached. To keep it means that whatever else runs
meanwhile cannot push it out. What is kept is found by comparing the prompts of the first rows that have ended, which
costs the batch nothing: no body is run for it, and nothing waits. A compiled program knows it before (`compiled`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sgl_like.errors import SglError
from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.bodies.loops import running_loop
from sgl_like.frontend.global_config import global_config

if TYPE_CHECKING:
    from sgl_like.frontend.state import ProgramState

__all__ = ["LEAST", "SharedPrefix", "common_length"]

LEAST = 32
"""Tokens of a prefix that is worth keeping."""

Release = Callable[[], None]


class SharedPrefix:
    """Of one batch.

    Args:
        backend: what runs it.
        known: the prefix, if it is known before the first row. Else it is found.
    """

    def __init__(self, backend: Backend, known: Sequence[int] = ()) -> None:
        self._backend = backend
        self._known = list(known)
        self._first: list[int] | None = None  # the prompt of the first row that has ended
        self._held: Future[Release | None] | None = None
        self._over = not global_config.enable_precache_with_tracing  # nothing is kept any more
        self._lock = threading.Lock()  # rows end on many threads

    @contextmanager
    def held(self) -> Iterator[None]:
        """The batch runs in this block; at its end the prefix is let go."""
        if self._known:
            held = self._hold(self._known)
            if held is not None and running_loop() is None:  # which must not be held up
                held.exception()
        try:
            yield
        finally:
            with self._lock:
                self._over = True
            if self._held is not None:
                self._held.add_done_callback(_release)

    def saw(self, state: ProgramState) -> None:
        """A row has ended. From any thread; does not wait."""
        if self._over or self._held is not None or state._interpreter.error is not None:
            return
        prompt = list(state._interpreter.prompt.ids)
        if not prompt:  # it is restored from a checkpoint, or has generated nothing
            return
        with self._lock:
            first, self._first = self._first, self._first or prompt
        shared = prompt[: common_length(first, prompt)] if first is not None else []
        if len(shared) >= LEAST:
            self._hold(shared)

    def _hold(self, prefix: list[int]) -> Future[Release | None] | None:
        """Have the backend keep `prefix`; ``None`` if another is kept, or the batch is over."""
        with self._lock:
            if self._over or self._held is not None:
                return None
            held: Future[Release | None] = Future()
            self._held = held

        def hold() -> None:
            try:
                held.set_result(self._backend.hold_prefix(prefix))
            except Exception as error:  # too long to keep, say: rows that cannot run either will tell
                held.set_exception(error)

        threading.Thread(target=hold, name="sgl-prefix", daemon=True).start()
        return held


def _release(held: Future[Release | None]) -> None:
    if held.exception() is None and (release := held.result()) is not None:
        with suppress(SglError):  # the backend was shut down
            release()


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many items two sequences have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
