"""What one API key may use: sequences at a time, requests and tokens a minute."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple


class Quota(NamedTuple):
    """Limits of a key; ``None``: none.

    Args:
        max_requests: sequences that run or wait at the same time.
        requests_per_minute: calls.
        tokens_per_minute: prompts and outputs.
    """

    max_requests: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


UNLIMITED = Quota()


class Bucket:
    """Holds a minute's worth, and fills up again in a minute.

    Args:
        per_minute: what fits.
        clock: the time in seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at = clock()

    @property
    def left(self) -> float:
        """What can be taken now; below 0 if more was taken than there was."""
        now = self._clock()
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level

    def take(self, amount: float) -> None:
        """Take something out; a negative amount gives it back."""
        self._level = min(self.per_minute, self.left - amount)

    def wait(self, amount: float) -> float:
        """Seconds until so much is there."""
        return max(0.0, (amount - self.left) * 60 / self.per_minute)


class Account:
    """What a key uses now.

    Args:
        quota: what it may.
        clock: the time in seconds.
    """

    def __init__(self, quota: Quota = UNLIMITED, clock: Callable[[], float] = monotonic) -> None:
        self.quota = quota
        self.sequences = 0
        self.requests = _bucket(quota.requests_per_minute, clock)
        self.tokens = _bucket(quota.tokens_per_minute, clock)

    def headers(self) -> dict[str, str]:
        """OpenAI's headers about what is left."""
        found: dict[str, str] = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                found[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
                found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.left)))
                found[f"x-ratelimit-reset-{name}"] = f"{bucket.wait(bucket.per_minute):.3f}s"
        return found


def _bucket(per_minute: int | None, clock: Callable[[], float]) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, clock)
