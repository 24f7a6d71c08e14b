"""How long one request's constraint may keep everybody else waiting, over its whole output.

A single step of a constraint has a limit of its own (`constrain.base.Limits.max_step_seconds`); but a constraint whose
every step takes a tenth of a second would slow down all others for as long as its output is long.
"""

from __future__ import annotations

import logging
from time import thread_time
from types import TracebackType

from sgl_like.errors import ConstraintTooComplex, EngineError, SglError

log = logging.getLogger(__name__)

LONG = 0.01
"""Seconds of the processor; steps that take less do not count."""
STEPS = 2
"""The budget, in longest steps."""


class Patience:
    """Of one request.

    Args:
        step_seconds: what a single step may take.
    """

    __slots__ = ("_begun", "_left", "_limit")

    def __init__(self, step_seconds: float) -> None:
        self._left = self._limit = STEPS * step_seconds
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = thread_time()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What goes wrong with one request's constraint is no matter of others.

        Raises:
            ConstraintTooComplex: the budget is used up, or the constraint nests deeper than Python does.
            EngineError: something that nobody foresaw.
        """
        if isinstance(error, RecursionError):
            raise ConstraintTooComplex("the constraint is too complex: it nests too deeply") from None
        if isinstance(error, Exception) and not isinstance(error, SglError):
            log.error("a constraint failed", exc_info=error)
            raise EngineError("the engine failed with this request's constraint") from error
        took = thread_time() - self._begun
        if took > LONG:
            self._left -= took
            if self._left < 0 and kind is None:
                raise ConstraintTooComplex(
                    "the constraint is too complex: to find what it allows has taken more than "
                    f"{self._limit:g} s of this output"
                )


UNBOUNDED = Patience(float("inf"))
"""For requests without a constraint."""
