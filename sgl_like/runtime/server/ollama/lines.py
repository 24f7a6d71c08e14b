"""Ollama's streams: one JSON object in each line, the last one with counts and durations."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from sgl_like.runtime.protocol import FinishReason, Usage

MEDIA = ("application/json", "application/x-ndjson")
"""Types of answers, whole and streamed."""
HEADERS = {"Content-Type": MEDIA[1]}


class Clock:
    """Times of a call in nanoseconds, as its last line tells them.

    Args:
        received: when the call came, by `perf_counter`.
    """

    def __init__(self, received: float) -> None:
        self._received = received
        self._sent = perf_counter()
        self._first = self._sent

    def first(self) -> None:
        """The first output has come."""
        self._first = perf_counter()

    def durations(self) -> dict[str, int]:
        """Up to now. A model is loaded already, so ``load_duration`` is what it took to read the request."""
        now = perf_counter()
        times = {
            "total_duration": now - self._received,
            "load_duration": self._sent - self._received,
            "prompt_eval_duration": self._first - self._sent,
            "eval_duration": now - self._first,
        }
        return {name: max(1, round(seconds * 1e9)) for name, seconds in times.items()}


def done_reason(finish: FinishReason) -> str:
    """Why an answer ended: ``"stop"``, ``"length"``, or ``"abort"`` if the server stops."""
    return finish.type


def counts(usage: Usage) -> dict[str, int]:
    """Token counts under Ollama's names."""
    return {"prompt_eval_count": usage.prompt_tokens, "eval_count": usage.completion_tokens}


def last_line(finish: FinishReason, usage: Usage, clock: Clock) -> dict[str, Any]:
    """What only the last line has."""
    return {"done": True, "done_reason": done_reason(finish), **clock.durations(), **counts(usage)}
