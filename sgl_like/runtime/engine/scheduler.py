"""Which requests compute which tokens in the next step.

A running request always has some pending tokens: one after sampling, several after a jump forward, many while its
prompt is being computed. A plan gives each a share under the token budget, in this order:

    1. running requests, those that decode before those that prefill
    2. waiting requests in the order of `WaitingQueue`

What a plan computes of a prompt is put into the tree at once, before the pass that computes it: whoever is admitted
after it in the same plan shares it. So a prefix is computed once, also when all its users arrive together.

When slots run out: evict from the tree, then retract running requests, lowest priority first, then the newest (their
KV stays in the tree while there is room), until the oldest fits. A request that fits alone therefore always ends. A
waiting request also makes running ones of lower priority give way, if it finds no room, no row or no budget.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.queue import WaitingQueue
from sgl_like.runtime.engine.request import Request

FEW_TOKENS = 16
"""Pending tokens up to which a running request counts as decoding."""
EXPECTED_GROWTH = 0.25
"""Share of their remaining tokens that running requests are assumed to produce, when admitting others."""


class Row(NamedTuple):
    """Some pending tokens of a request, to be computed in this step; after all of them a draft of what may follow."""

    request: Request
    new_tokens: int
    draft: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Tokens that go through the model."""
        return self.new_tokens + len(self.draft)


class Scheduler:
    """The waiting queue, the running requests, and the plan of each step.

    Args:
        memory: the KV slots.
        max_running: most requests in a batch.
        max_tokens: most tokens in a step.
        policy: ``"lpm"`` or ``"fcfs"``; see `WaitingQueue`.
    """

    def __init__(self, memory: KVMemory, max_running: int, max_tokens: int, policy: str = "lpm") -> None:
        self.waiting = WaitingQueue(memory.tree, memory.page_size, policy)
        self.running: list[Request] = []
        self.retracted_total = 0
        self.retracted_input_tokens = 0  # computed ones, of prompts
        self.retracted_output_tokens = 0
        self._memory = memory
        self._max_running = max_running
        self._max_tokens = max_tokens
        self._orders = count()

    def add(self, request: Request) -> None:
        """Queue a new request."""
        request.order = next(self._orders)
        self.waiting.add(request)

    def remove(self, request: Request, keep: bool = True) -> None:
        """A request has ended: forget it and free what it holds. With `keep` its KV stays in the tree."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.running.remove(request)
        self._memory.detach(request, keep)

    def plan(self) -> list[Row]:
        """The next step's rows; slots for all their tokens are allocated. Empty if there is nothing to do."""
        self._make_way()
        rows = self._plan_running()
        for row in rows:
            self._share(row)
        budget = self._max_tokens - sum(row.new_tokens for row in rows)
        if self.waiting and budget > 0 and len(self.running) < self._max_running:
            self._admit(rows, budget)
        return rows

    def _make_way(self) -> None:
        """Retract running requests for the sake of a waiting one of higher priority."""
        top = self.waiting.top_priority
        lower = [] if top is None else [r for r in self.running if r.priority < top]
        first = self.waiting.first() if lower else None
        if first is None:
            return
        tokens = first.tokens.view(0, first.match_limit)
        wanted = len(first.tokens) - self._memory.tree.match_length(tokens, first.namespace)
        others = [r for r in self.running if r not in lower]
        freed = sum(len(r.slots) for r in lower)
        if not self._has_place(wanted, others, self._memory.available + freed):
            return  # it would be in vain
        while lower and not self._has_place(wanted, self.running, self._memory.available):
            victim = self._victim()
            self._retract(victim)
            lower.remove(victim)

    def _has_place(self, wanted: int, running: list[Request], available: int) -> bool:
        """Whether a request of so many tokens could be admitted beside some running ones, as far as can be told."""
        return (
            len(running) < self._max_running
            and sum(r.pending for r in running) < self._max_tokens
            and available >= wanted + sum(map(_expected_growth, running))
        )

    def _plan_running(self) -> list[Row]:
        rows: list[Row] = []
        budget = self._max_tokens
        for request in sorted(self.running, key=lambda r: (r.pending > FEW_TOKENS, r.order)):
            share = min(request.pending, budget)
            if request.node is None or share <= 0:  # retracted a moment ago, or no budget left
                continue
            if self._grow(request, share, rows):
                rows.append(Row(request, share))
                budget -= share
        return rows

    def _grow(self, request: Request, share: int, rows: list[Row]) -> bool:
        """Slots for a running request, retracting others as long as there are too few."""
        while not self._memory.grow(request, share):
            victim = self._victim()
            self._retract(victim)
            rows[:] = [row for row in rows if row.request is not victim]
            if victim is request:
                return False
        return True

    def _victim(self) -> Request:
        """The running request that has the least right to go on."""
        return max(self.running, key=lambda r: (-r.priority, r.order))

    def _retract(self, request: Request) -> None:
        """Send a running request back to the queue; what it has sampled stays."""
        self.retracted_input_tokens += min(request.computed, request.prompt_length)
        self.retracted_output_tokens += max(request.computed - request.prompt_length, 0)
        self._memory.detach(request)
        self.running.remove(request)
        self.waiting.put_back(request)
        self.retracted_total += 1

    def _admit(self, rows: list[Row], budget: int) -> None:
        growth = sum(map(_expected_growth, self.running))
        while budget > 0 and len(self.running) < self._max_running:
            request = self.waiting.first()
            if request is None:
                return
            self._memory.attach(request)
            wanted = self._memory.missing(request, request.pending)
            if self.running and self._memory.available < wanted + growth:
                self._memory.detach(request)
                return
            self._memory.load(request)
            share = min(request.pending, budget)
            if not self._memory.grow(request, share):
                self._memory.detach(request)
                return
            if request.cached_tokens is None:
                request.cached_tokens = request.computed
                self._memory.found(request)
            self.waiting.admitted(request)
            self.running.append(request)
            rows.append(Row(request, share))
            self._share(rows[-1])
            budget -= share
            growth += _expected_growth(request)

    def _share(self, row: Row) -> None:
        """Let others use what this row computes of a prompt."""
        if row.request.computed < row.request.prompt_length:
            self._memory.publish_ahead(row.request, row.new_tokens)


def _expected_growth(request: Request) -> int:
    """Slots that a running request will probably need beyond those that it has."""
    tokens = len(request.tokens)
    return max(0, tokens - len(request.slots)) + int((request.max_tokens - tokens) * EXPECTED_GROWTH)
