"""Who may use the engine now, and who has to come back later.

What counts are sequences (a call with ``n=64`` is 64) and their tokens, prompt and longest output. There is room for
what the engine runs at a time plus `Limits.queue_requests`; beyond, calls are refused with 503 and the time after which
it is worth to try again, as far as the last seconds tell. The check is made before a body is read and again before
anything is submitted; both cost microseconds.

With more than one key, two rules keep a key that floods the server from hurting the others:

- It may fill at most `GREED` times as much of the queue as it leaves free (Choudhury and Hahne, "Dynamic queue length
  thresholds for shared-memory packet switches", 1998), so there is always room for somebody new; beyond, 429.
- What it has in flight beyond its share of the rows that run goes to the engine with a lower priority: others overtake
  it in the queue, and the engine makes it give way where they find no room.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic

from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.server.engine.wire import EngineInfo
from sgl_like.runtime.server.http.errors import ApiError, unavailable
from sgl_like.runtime.server.limits import Limits
from sgl_like.runtime.server.quota import Account, Quota

GREED = 4
QUEUES = 4
"""Sequences that wait for each that may run, if `Limits.queue_requests` does not say."""
LONGEST_RETRY = 60.0
_PRIORITIES = 1 << 20
"""Clients' priorities are cut to these, so that they reach no further than within their own share."""


class Admission:
    """Counts what is in flight.

    Args:
        limits: how much may be.
        quotas: of each key, by its name; all others share what "default" has.
        clock: the time in seconds.
    """

    def __init__(
        self,
        limits: Limits,
        quotas: Mapping[str, Quota] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.sequences = 0
        self.tokens = 0
        self.most_sequences = 0
        self.admitted = 0
        self.ended = 0
        self.rejected: dict[str, int] = {}  # by reason
        self._limits = limits
        self._clock = clock
        self._accounts = {name: Account(quota, clock) for name, quota in (quotas or {}).items()}
        self._shared = len(self._accounts) > 1
        self._anonymous = Account(clock=clock)
        self._ends: deque[float] = deque(maxlen=256)

    def account(self, name: str) -> Account:
        """Of a key, by its name."""
        return self._accounts.get(name, self._anonymous)

    def room(self, info: EngineInfo) -> int:
        """Sequences that may be in flight."""
        queued = self._limits.queue_requests
        if queued is None:  # a call that is allowed at all fits into a server that is idle
            return max((1 + QUEUES) * info.max_running_requests, self._limits.sequences)
        return info.max_running_requests + queued

    def is_full(self, info: EngineInfo) -> bool:
        """Whether no more sequence would be taken."""
        return self.sequences >= self.room(info)

    def check(self, name: str, info: EngineInfo, sequences: int = 1, tokens: int = 0) -> None:
        """Whether a key may have so many more.

        Raises:
            ApiError: 503, or 429 if it is only this key that may not.
        """
        account = self.account(name)
        room, most = self.room(info), account.quota.max_requests
        if most is not None and account.sequences + sequences > most:
            raise self._too_many(
                "max_requests", f"this API key may have {most} sequences at a time", self._wait(info)
            )
        if self.sequences + sequences > room:
            raise self._full("queue_requests", info)
        if self._shared and account.sequences + sequences > GREED * (room - self.sequences):
            raise self._too_many("fair_share", "this API key fills the queue", self._wait(info))
        waiting = self._limits.queue_tokens
        if waiting is not None and self.sequences and self.tokens + tokens > info.kv_slots + waiting:
            raise self._full("queue_tokens", info)
        bucket = account.tokens
        if bucket is not None and tokens > bucket.left:
            raise self._too_many(
                "tokens_per_minute",
                f"this API key may use {bucket.per_minute} tokens a minute; this call may need {tokens}",
                bucket.wait(tokens),
                "tokens",
            )

    def count_request(self, name: str) -> None:
        """A call of a key.

        Raises:
            ApiError: 429: it was one too many.
        """
        bucket = self.account(name).requests
        if bucket is None:
            return
        if bucket.left < 1:
            raise self._too_many(
                "requests_per_minute",
                f"this API key may send {bucket.per_minute} requests a minute",
                bucket.wait(1),
                "requests",
            )
        bucket.take(1)

    def admit(self, name: str, info: EngineInfo, requests: Sequence[GenerateRequest]) -> Ticket:
        """Take in the requests of a call, all or none.

        Raises:
            ApiError: see `check`.
        """
        costs = [cost(request) for request in requests]
        sequences, tokens = sum(places(request) for request in requests), sum(costs)
        self.check(name, info, sequences, tokens)
        account = self.account(name)
        low = self._shared and account.sequences >= self._share(info)
        self.sequences += sequences
        self.tokens += tokens
        account.sequences += sequences
        if account.tokens is not None:
            account.tokens.take(tokens)
        self.most_sequences = max(self.most_sequences, self.sequences)
        self.admitted += len(requests)
        return Ticket(self, account, [self._limited(request, low) for request in requests], costs)

    def release(self, account: Account, request: GenerateRequest, planned: int, used: int) -> None:
        """A request has ended."""
        self.sequences -= places(request)
        self.tokens -= planned
        account.sequences -= places(request)
        self.ended += 1
        self._ends.append(self._clock())
        if account.tokens is not None:
            account.tokens.take(used - planned)

    def _share(self, info: EngineInfo) -> int:
        active = sum(1 for account in self._accounts.values() if account.sequences)
        return max(1, info.max_running_requests // max(2, active))

    def _limited(self, request: GenerateRequest, low: bool) -> GenerateRequest:
        run, priority = self._limits.run_seconds, request.priority
        if self._shared:
            priority = max(-_PRIORITIES, min(_PRIORITIES, priority)) - (2 * _PRIORITIES + 1) * low
        deadline = run if request.deadline is None else min(run, request.deadline)
        start = self._limits.queue_seconds
        return replace(request, deadline=deadline, start_within=start, priority=priority)

    def _wait(self, info: EngineInfo) -> float:
        """Seconds after which what waits now will have begun, if it goes on as lately."""
        ends = self._ends
        waiting = max(1, self.sequences - info.max_running_requests)
        if len(ends) < 2:
            return 1.0
        rate = len(ends) / max(1e-3, self._clock() - ends[0])
        return min(LONGEST_RETRY, max(1.0, math.ceil(waiting / rate)))

    def _full(self, reason: str, info: EngineInfo) -> ApiError:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        return unavailable("the server is busy: its queue is full", self._wait(info), code="queue_full")

    def _too_many(self, reason: str, message: str, wait: float, type: str = "requests") -> ApiError:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        return ApiError(429, message, type=type, code="rate_limit_exceeded", retry_after=wait)


class Ticket:
    """The requests of one call, as admitted. Each has to be given back once.

    Args:
        requests: with the server's deadlines and priority.
        costs: tokens of each.
    """

    __slots__ = ("_account", "_admission", "_costs", "requests")

    def __init__(
        self, admission: Admission, account: Account, requests: list[GenerateRequest], costs: list[int]
    ) -> None:
        self.requests = requests
        self._admission = admission
        self._account = account
        self._costs: list[int | None] = [*costs]

    def release(self, index: int, last: Output | None = None) -> None:
        """A request has ended, with `last`, or was never started."""
        planned, self._costs[index] = self._costs[index], None
        if planned is not None:
            used = 0 if last is None else last.usage.prompt_tokens + last.usage.completion_tokens
            self._admission.release(self._account, self.requests[index], planned, used)


def places(request: GenerateRequest) -> int:
    """Sequences that a request is in the engine."""
    return max(1, len(request.choices))


def cost(request: GenerateRequest) -> int:
    """Tokens that a request may need."""
    if request.choices:
        return len(request.input_ids) + sum(map(len, request.choices))
    return len(request.input_ids) + request.params.max_new_tokens
