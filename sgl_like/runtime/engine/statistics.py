"""What an engine counts since its start: numbers, and histograms of durations and sizes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMPILE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STEP_TOKENS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)


class Histogram:
    """Counts of values by bucket. An addition costs a binary search.

    Args:
        bounds: upper ends of the buckets, ascending; a value on one is below it. One bucket more has no end.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> dict[str, Any]:
        """``{"bounds", "counts", "count", "sum"}``; ``counts`` are of the single buckets, not cumulative."""
        counts = list(self._counts)
        return {"bounds": list(self._bounds), "counts": counts, "count": sum(counts), "sum": self._sum}


@dataclass(slots=True)
class EngineStats:
    """Counts since the start."""

    steps: int = 0
    computed_tokens: int = 0
    sampled_tokens: int = 0
    forced_tokens: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    cached_tokens: int = 0
    prompt_tokens: int = 0
    finished_requests: int = 0
    aborted_requests: int = 0
    failed_requests: int = 0
    constrained_requests: int = 0
    last_step_requests: int = 0
    last_step_tokens: int = 0
    step_seconds: Histogram = field(default_factory=lambda: Histogram(STEP_SECONDS))
    step_tokens: Histogram = field(default_factory=lambda: Histogram(STEP_TOKENS))
