"""Requests that wait, in the order in which they shall run.

    1. larger priority first
    2. requests that were retracted, and those that have been overtaken for too long: first come, first served
    3. longest cached prefix first; requests that share an uncached prefix one after another (`PromptTree`)

Too long is when more than ``PATIENCE + 2 * (longest queue since it came)`` others of its priority were admitted while
it waited: a backlog is worked off in the order that suits the cache, but a stream of newer requests overtakes nobody
for ever. Nothing here looks at all waiting requests; what counts is how many distinct priorities they have.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque

from sgl_like.runtime.cache.radix_cache import Node, RadixCache, Tokens, sequence_of
from sgl_like.runtime.engine.prompt_tree import PromptTree
from sgl_like.runtime.engine.request import Request

PATIENCE = 100
"""Admissions that a waiting request is passed over for, beyond twice the longest queue it has seen."""


class WaitingQueue:
    """The queue; watches the cache.

    Args:
        cache: whose prefixes decide.
        page_size: the cache's.
        policy: ``"lpm"`` as described above, or ``"fcfs"``, which leaves out the third rule.
    """

    def __init__(self, cache: RadixCache, page_size: int, policy: str = "lpm") -> None:
        self._cache = cache
        self._page_size = page_size
        self._lpm = policy == "lpm"
        self.tokens = 0  # most that all of them may become, prompts included
        self._levels: dict[int, _Level] = {}
        self._priorities: list[int] = []  # heap of what is in _levels, negated
        cache.watcher = self

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        return bool(self._priorities)

    @property
    def top_priority(self) -> int | None:
        """The largest priority that waits."""
        return -self._priorities[0] if self._priorities else None

    def __contains__(self, request: Request) -> bool:
        level = self._levels.get(request.priority)
        return level is not None and request in level

    def add(self, request: Request) -> None:
        """Queue a new request."""
        self.tokens += request.max_tokens
        self._level(request.priority).add(request)

    def put_back(self, request: Request) -> None:
        """Queue a request that has run already; it goes before all new ones of its priority."""
        self.tokens += request.max_tokens
        self._level(request.priority).put_back(request)

    def first(self) -> Request | None:
        """The request to run next; it stays."""
        return self._levels[-self._priorities[0]].first() if self._priorities else None

    def admitted(self, request: Request) -> None:
        """A request runs now: it leaves, and has overtaken those that came before it."""
        self._levels[request.priority].admissions += 1
        self.remove(request)

    def remove(self, request: Request) -> None:
        """Forget a request that waits."""
        self.tokens -= request.max_tokens
        level = self._levels[request.priority]
        level.remove(request)
        while self._priorities and not self._levels[-self._priorities[0]]:
            del self._levels[-heapq.heappop(self._priorities)]

    def requests(self) -> list[Request]:
        """All of them, in no useful order (for shutdown and checks)."""
        return [request for level in self._levels.values() for request in level.arrivals]

    def inserted(self, namespace: str, tokens: Tokens) -> None:
        """`CacheWatcher`."""
        for level in self._levels.values():
            level.by_prefix.inserted(namespace, tokens)

    def evicting(self, node: Node) -> None:
        """`CacheWatcher`."""
        if any(level.by_prefix for level in self._levels.values()):
            tokens = sequence_of(node)[0]
            for level in self._levels.values():
                level.by_prefix.evicted(node.namespace, tokens, len(tokens) - len(node.key))

    def check(self) -> None:
        """Assert that all parts agree."""
        assert self.tokens == sum(request.max_tokens for request in self.requests())
        assert sorted(self._priorities) == sorted(-priority for priority in self._levels)
        assert not self._priorities or self._levels[-self._priorities[0]]
        for level in self._levels.values():
            level.check()

    def _level(self, priority: int) -> _Level:
        level = self._levels.get(priority)
        if level is None:
            tree = PromptTree(self._cache, self._page_size)
            level = self._levels[priority] = _Level(tree, self._lpm)
            heapq.heappush(self._priorities, -priority)
        return level


class _Level:
    """Waiting requests of one priority."""

    def __init__(self, by_prefix: PromptTree, lpm: bool) -> None:
        self.arrivals: OrderedDict[Request, int] = (
            OrderedDict()
        )  # with `admissions` when it came, oldest first
        self.by_prefix = by_prefix
        self.admissions = 0
        self._lpm = lpm
        self._returned: list[tuple[int, Request]] = []  # heap by order
        self._lengths: deque[tuple[int, int]] = (
            deque()
        )  # (order, queue length then), falling: the peaks since

    def __len__(self) -> int:
        return len(self.arrivals)

    def __contains__(self, request: Request) -> bool:
        return request in self.arrivals

    def add(self, request: Request) -> None:
        self.arrivals[request] = self.admissions
        if self._lpm:
            self.by_prefix.add(request)
        while self._lengths and self._lengths[-1][1] <= len(self.arrivals):
            self._lengths.pop()
        self._lengths.append((request.order, len(self.arrivals)))

    def put_back(self, request: Request) -> None:
        self.arrivals[request] = self.admissions
        self.arrivals.move_to_end(request, last=False)
        heapq.heappush(self._returned, (request.order, request))

    def remove(self, request: Request) -> None:
        del self.arrivals[request]
        if request in self.by_prefix:
            self.by_prefix.remove(request)
        while self._returned and self._returned[0][1] not in self.arrivals:
            heapq.heappop(self._returned)

    def first(self) -> Request | None:
        if self._returned:
            return self._returned[0][1]
        oldest, since = next(iter(self.arrivals.items()), (None, 0))
        if oldest is None or not self._lpm:
            return oldest
        while self._lengths[0][0] < oldest.order:
            self._lengths.popleft()
        if self.admissions - since > PATIENCE + 2 * self._lengths[0][1]:
            return oldest
        return self.by_prefix.first()

    def check(self) -> None:
        returned = {request for _, request in self._returned} & set(self.arrivals)
        assert len(self.by_prefix) == (len(self.arrivals) - len(returned) if self._lpm else 0)
        self.by_prefix.check()
