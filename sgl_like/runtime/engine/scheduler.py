"""Which requests compute which tokens in the next step.

A running request always has some pending tokens: one after sampling, several after a jump forward, many while its
prompt is being computed. A plan gives each a share under the token budget, in this order:

    1. running requests, those that decode before those that prefill
    2. waiting requests, longest cached prefix first; whoever has waited long goes before all

When slots run out: evict from the tree, then retract the newest running request (its KV stays in the tree while
there is room), until the oldest fits. A request that fits alone therefore always ends.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from sgl_like.runtime.cache.radix_cache import shared_length
from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.request import Request

LOOK_AHEAD = 128
"""Waiting requests that are compared for the order of one step."""
PATIENCE = 100
"""Plans after which a waiting request goes first."""
WORTH_WAITING = 16
"""Tokens of a prefix which another request is computing right now that make it better to wait for it."""
EXPECTED_GROWTH = 0.25
"""Share of their remaining tokens that running requests are assumed to produce, when admitting others."""


class Row(NamedTuple):
    """Some pending tokens of a request, to be computed in this step."""

    request: Request
    new_tokens: int


class Scheduler:
    """The waiting queue, the running requests, and the plan of each step.

    Args:
        memory: the KV slots.
        max_running: most requests in a batch.
        max_tokens: most tokens in a step.
    """

    def __init__(self, memory: KVMemory, max_running: int, max_tokens: int) -> None:
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.retracted_total = 0
        self._memory = memory
        self._max_running = max_running
        self._max_tokens = max_tokens
        self._orders = count()

    def add(self, request: Request) -> None:
        """Queue a new request."""
        request.order = next(self._orders)
        self.waiting.append(request)

    def remove(self, request: Request, keep: bool = True) -> None:
        """A request has ended: forget it and free what it holds. With `keep` its KV stays in the tree."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._memory.detach(request, keep)

    def plan(self) -> list[Row]:
        """The next step's rows; slots for all their tokens are allocated. Empty if there is nothing to do."""
        rows = self._plan_running()
        budget = self._max_tokens - sum(row.new_tokens for row in rows)
        if self.waiting and budget > 0 and len(self.running) < self._max_running:
            self._admit(rows, budget)
        return rows

    def _plan_running(self) -> list[Row]:
        rows: list[Row] = []
        budget = self._max_tokens
        for request in sorted(self.running, key=lambda r: (r.pending > WORTH_WAITING, r.order)):
            share = min(request.pending, budget)
            if request.node is None or share <= 0:  # retracted a moment ago, or no budget left
                continue
            if self._grow(request, share, rows):
                rows.append(Row(request, share))
                budget -= share
        return [row for row in rows if row.request.node is not None]

    def _grow(self, request: Request, share: int, rows: list[Row]) -> bool:
        """Slots for a running request, retracting newer ones as long as there are too few."""
        while not self._memory.grow(request, share):
            victim = max(self.running, key=lambda r: r.order)
            self._retract(victim)
            rows[:] = [row for row in rows if row.request is not victim]
            if victim is request:
                return False
        return True

    def _retract(self, request: Request) -> None:
        """Send a running request back to the queue; what it has sampled stays."""
        self._memory.detach(request)
        self.running.remove(request)
        self.waiting.insert(0, request)
        self.retracted_total += 1

    def _admit(self, rows: list[Row], budget: int) -> None:
        for request in self._by_priority():
            if budget <= 0 or len(self.running) >= self._max_running:
                break
            if self._computed_by_another(request):
                continue
            self._memory.attach(request)
            if self.running and self._memory.available < request.pending + self._expected_growth():
                self._memory.detach(request)
                break
            share = min(request.pending, budget)
            if not self._memory.grow(request, share):
                self._memory.detach(request)
                break
            if request.cached_tokens is None:
                request.cached_tokens = request.shared
            self.waiting.remove(request)
            self.running.append(request)
            rows.append(Row(request, share))
            budget -= share
        for request in self.waiting:
            request.rounds_waited += 1

    def _by_priority(self) -> list[Request]:
        candidates = self.waiting[:LOOK_AHEAD]
        if len(candidates) == 1:
            return candidates
        tree = self._memory.tree

        def rank(request: Request) -> tuple[bool, int, int]:
            if request.rounds_waited > PATIENCE:
                return (False, 0, request.order)
            return (True, -tree.match_length(request.tokens.view()), request.order)

        return sorted(candidates, key=rank)

    def _computed_by_another(self, request: Request) -> bool:
        """Whether a running request is about to compute a good part of this one's uncached prefix."""
        tokens = request.tokens.view()
        cached: int | None = None
        for other in self.running:
            if other.pending <= 1:
                continue
            shared = shared_length(tokens, other.tokens.view())
            if shared < WORTH_WAITING or shared <= other.shared:
                continue
            if cached is None:
                cached = self._memory.tree.match_length(tokens)
            if shared - cached >= WORTH_WAITING:
                return True
        return False

    def _expected_growth(self) -> int:
        rest = sum(r.max_tokens - len(r.tokens) for r in self.running)
        prefill = sum(r.pending for r in self.running if r.pending > 1)
        return int(rest * EXPECTED_GROWTH) + prefill
