"""A histogram without locks: everything happens on the event loop.

Values are counted where they fall; sums over the buckets are made when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.utils import floatToGoString

SECONDS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
           1920.0, 7680.0)  # fmt: skip
"""vLLM's buckets of whole requests, as are the others below: one query fits the histograms of both."""

FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
                       20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip

TOKEN_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
                 10.0, 20.0, 40.0, 80.0)  # fmt: skip
"""Two finer ones than vLLM's at the small end, where the embedded model is."""

COUNTS = tuple(float(digit * 10**power) for power in range(7) for digit in (1, 2, 5))

OUTPUTS = (1.0, 2.0, 5.0, 10.0, 20.0)


class Histogram:
    """Counts of values by bucket, and their sum.

    Args:
        bounds: upper ends of the buckets, ascending and each within its bucket; the last one, without an end, is added.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @classmethod
    def of(cls, read: Mapping[str, Any]) -> Histogram:
        """The engine's, as it comes in its statistics: ``bounds``, ``counts`` and ``sum``."""
        made = cls(read["bounds"])
        made.counts, made.sum = list(read["counts"]), read["sum"]
        return made

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, or several equal ones."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus has them: an upper end, and how many values are not above it."""
        ends = [*map(floatToGoString, self.bounds), "+Inf"]
        return [(end, float(count)) for end, count in zip(ends, accumulate(self.counts), strict=True)]

    def __add__(self, other: Histogram) -> Histogram:
        assert self.bounds == other.bounds
        total = Histogram(self.bounds)
        total.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        total.sum = self.sum + other.sum
        return total
