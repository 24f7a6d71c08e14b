"""The waiting queue against a naive one that looks at everybody, and that its work does not grow with the queue."""

from __future__ import annotations

import itertools
import random
import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sgl_like.runtime.cache.pages import SlotAllocator
from sgl_like.runtime.cache.radix_cache import RadixCache
from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.queue import PATIENCE, WaitingQueue
from sgl_like.runtime.engine.request import Request
from sgl_like.runtime.engine.scheduler import Scheduler
from tests.support.waiting import run_without_model, waiting_request

prompts = st.lists(st.integers(0, 2), min_size=1, max_size=12)
namespaces = st.sampled_from(["", "", "tenant"])


class QueueAgainstNaive(RuleBasedStateMachine):
    """The cache changes under waiting requests; `check` compares every one of them with the cache itself."""

    @initialize(page=st.sampled_from([1, 2, 4]), slots=st.sampled_from([12, 40]))
    def start(self, page: int, slots: int) -> None:
        self.allocator = SlotAllocator(slots, page)
        self.tree = RadixCache(self.allocator)
        self.queue = WaitingQueue(self.tree, page)
        self.waiting: list[Request] = []
        self.gone: list[Request] = []
        self.orders = 0

    @rule(tokens=prompts, priority=st.sampled_from([0, 0, 0, 1, -1]), namespace=namespaces)
    def add(self, tokens: list[int], priority: int, namespace: str) -> None:
        request = waiting_request(tokens, self.orders, priority, namespace)
        self.orders += 1
        self.queue.add(request)
        self.waiting.append(request)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        request = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.queue.remove(request)

    @precondition(lambda self: self.waiting)
    @rule()
    def admit(self) -> None:
        request = self.queue.first()
        assert request is not None
        self.queue.admitted(request)
        self.waiting.remove(request)
        self.gone.append(request)

    @precondition(lambda self: self.gone)
    @rule()
    def put_back(self) -> None:
        request = self.gone.pop()
        self.queue.put_back(request)
        self.waiting.append(request)
        first = self.queue.first()
        assert first is not None and first.priority >= request.priority

    @rule(tokens=prompts, namespace=namespaces)
    def cache_insert(self, tokens: list[int], namespace: str) -> None:
        page = self.allocator.page_size
        ids = np.array(tokens[: len(tokens) // page * page], dtype=np.int32)
        known = self.tree.match(ids, namespace).slots
        fresh = self.allocator.allocate(len(ids) - len(known))
        if fresh is not None:
            self.tree.insert(ids, np.concatenate((known, fresh)), namespace)

    @rule(wanted=st.integers(1, 8))
    def cache_evict(self, wanted: int) -> None:
        self.tree.evict(wanted)

    @rule(tokens=prompts, keep=st.integers(0, 8), namespace=namespaces)
    def cache_forget(self, tokens: list[int], keep: int, namespace: str) -> None:
        page = self.allocator.page_size
        self.tree.forget(np.array(tokens, dtype=np.int32), keep // page * page, namespace)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.queue.check()
        assert len(self.queue) == len(self.waiting) and set(self.queue.requests()) == set(self.waiting)
        first = self.queue.first()
        if first is None:
            assert not self.waiting
            return
        level = [r for r in self.waiting if r.priority == max(w.priority for w in self.waiting)]
        assert first in level
        returned = [r for r in level if r in self.queue._levels[r.priority].arrivals and not self.is_new(r)]
        if returned:
            assert first is min(returned, key=lambda r: r.order)
        else:
            assert self.cached(first) == max(map(self.cached, level))

    def is_new(self, request: Request) -> bool:
        return request in self.queue._levels[request.priority].by_prefix

    def cached(self, request: Request) -> int:
        return self.tree.match_length(request.tokens.view(0, request.match_limit), request.namespace)


QueueAgainstNaive.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestQueueAgainstNaive = QueueAgainstNaive.TestCase


def drained(queue: WaitingQueue) -> list[Request]:
    out = []
    while (request := queue.first()) is not None:
        queue.admitted(request)
        out.append(request)
    return out


def test_uncached_requests_that_share_a_prefix_come_one_after_another() -> None:
    queue = WaitingQueue(RadixCache(SlotAllocator(10)), 1)
    prompts = [[i % 3, i % 6, i] for i in range(30)]
    for order, prompt in enumerate(prompts):
        queue.add(waiting_request([*prompt, 9], order))
    stems = [tuple(r.tokens.view()[:2].tolist()) for r in drained(queue)]
    changes = sum(a != b for a, b in itertools.pairwise(stems))
    assert changes == len(set(stems)) - 1 == 5


def test_first_come_first_served() -> None:
    queue = WaitingQueue(RadixCache(SlotAllocator(10)), 1, policy="fcfs")
    for order in range(20):
        queue.add(waiting_request([order % 3, 1], order, priority=order % 2))
    assert [r.order for r in drained(queue)] == [*range(1, 20, 2), *range(0, 20, 2)]


@pytest.mark.parametrize("backlog", [0, 50])
def test_a_stream_of_better_requests_overtakes_nobody_for_ever(backlog: int) -> None:
    allocator = SlotAllocator(100)
    tree = RadixCache(allocator)
    slots = allocator.allocate(20)
    assert slots is not None
    tree.insert(np.arange(20, dtype=np.int32), slots)
    queue = WaitingQueue(tree, 1)
    for order in range(backlog):
        queue.add(waiting_request([*range(20), order], order))
    cold = waiting_request([77, 78], backlog)
    queue.add(cold)
    for admissions in range(1000):
        queue.add(waiting_request([*range(20), admissions], backlog + 1 + admissions))
        first = queue.first()
        assert first is not None
        queue.admitted(first)
        if first is cold:
            break
    assert admissions <= PATIENCE + 2 * (backlog + 3)


def test_a_backlog_is_worked_off_by_prefix_however_long_it_is() -> None:
    queue = WaitingQueue(RadixCache(SlotAllocator(10)), 1)
    order = random.Random(0).sample(range(5000), 5000)
    for i, value in enumerate(order):
        queue.add(waiting_request([value % 50, 7, value], i))
    stems = [int(r.tokens.view()[0]) for r in drained(queue)]
    assert sum(a != b for a, b in itertools.pairwise(stems)) == 49


@pytest.mark.parametrize("page", [1, 16, 64])
def test_hit_rate_on_a_shuffled_few_shot_trace_is_that_of_depth_first_order(page: int) -> None:
    """At least 95 % of the best possible, with a cache that holds an eighth of the stems and examples."""
    rng = random.Random(0)
    stems = [
        [*stem, *rng.choices(range(999), k=128)]
        for stem in (rng.choices(range(999), k=64) for _ in range(16))
        for _ in range(4)
    ]
    prompts = [[*stem, *rng.choices(range(999), k=rng.randrange(8, 24))] for stem in stems for _ in range(8)]
    rng.shuffle(prompts)
    known: set[tuple[int, ...]] = set()
    best = 0  # tokens in pages that an earlier prompt has too: what depth-first order saves
    for prompt in sorted(prompts):
        for end in range(page, len(prompt), page):
            best += page * (tuple(prompt[:end]) in known)
            known.add(tuple(prompt[:end]))
    memory = KVMemory(1280, page_size=page)
    scheduler = Scheduler(memory, max_running=4, max_tokens=512)
    for order, prompt in enumerate(prompts):
        scheduler.add(waiting_request(prompt, order))
    assert run_without_model(memory, scheduler) >= 0.95 * best > 0


def steps_of(function: Any, *arguments: Any) -> int:
    """Lines of Python that a call runs."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return lines


def test_work_does_not_grow_with_the_number_waiting() -> None:
    """Adding, choosing, admitting, aborting, and a change in the cache, with 100 and with 10,000 requests."""
    worst: dict[int, list[int]] = {}
    for size in (100, 10_000):
        rng = random.Random(1)
        allocator = SlotAllocator(2000)
        tree = RadixCache(allocator)
        queue = WaitingQueue(tree, 1)
        requests = [
            waiting_request([rng.randrange(9), rng.randrange(9), *rng.choices(range(99), k=10)], i)
            for i in range(size)
        ]
        for request in requests[:-20]:
            queue.add(request)
        worst[size] = [0, 0, 0, 0]
        for request in requests[-20:]:
            counts = [steps_of(queue.add, request), steps_of(queue.first)]
            first = queue.first()
            assert first is not None
            counts.append(steps_of(queue.admitted, first))
            slots = allocator.allocate(len(first.tokens) - tree.match_length(first.tokens.view()))
            assert slots is not None
            known = tree.match(first.tokens.view()).slots
            counts.append(steps_of(tree.insert, first.tokens.view(), np.concatenate((known, slots))))
            steps_of(tree.evict, 3)
            worst[size] = [max(pair) for pair in zip(worst[size], counts, strict=True)]
    for few, many in zip(worst[100], worst[10_000], strict=True):
        assert many <= few + 60, worst


def test_a_queue_that_is_never_empty_keeps_nothing_of_those_that_left() -> None:
    allocator = SlotAllocator(40_000)
    tree = RadixCache(allocator)
    queue = WaitingQueue(tree, 1)
    deep = list(range(500, 540))
    known: list[int] = []
    for order in range(3000):
        prompt = [order % 7, order, order + 1]
        for tokens in (deep, prompt):
            ids = np.array(tokens, dtype=np.int32)
            slots = allocator.allocate(len(ids) - tree.match_length(ids))
            assert slots is not None
            tree.insert(ids, np.concatenate((tree.match(ids).slots, slots)))
        shallow, better = (
            waiting_request([*prompt, 1], 2 * order),
            waiting_request([*deep, order], 2 * order + 1),
        )
        queue.add(better)
        queue.add(shallow)
        queue.remove(shallow)
        known.append(len(queue._levels[0].by_prefix._heap))
        if order:
            first = queue.first()
            assert first is not None
            queue.admitted(first)
    assert max(known) < 200
