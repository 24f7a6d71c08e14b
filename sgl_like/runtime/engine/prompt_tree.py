"""The prompts of waiting requests as a radix tree that knows how much of each is cached.

    root ──┬── [sys .......] c ──┬── [doc A] c ──── [question 1]    c: cached, so all requests below hang on the deepest
           │                     │            └──── [question 2]       such node of their path: 1 and 2 on "doc A",
           │                     └── [doc B] ────── [question 3]       3 on "sys", 4 on the root
           └── [other] ──── [4]

Edges are cut where the cache's prefixes end, so an edge is cached whole or not at all, and hold whole pages like the
cache's own. When a prefix enters or leaves
the cache, its edge changes side and takes everything below it along; no request is looked at. What hangs deepest is at
the top of a heap. The cost of adding, removing, choosing, and of a change in the cache is that of walking one prompt,
however many wait.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from itertools import count

from sgl_like.runtime.cache.radix_cache import NO_TOKENS, RadixCache, Tokens, shared_length
from sgl_like.runtime.engine.request import Request


class PromptNode:
    """One edge with the node at its end."""

    __slots__ = (
        "cached", "cached_children", "depth", "hanging", "key", "other_children", "parent", "queued", "requests",
        "size",
    )  # fmt: skip

    def __init__(self, key: Tokens, parent: PromptNode | None, cached: bool) -> None:
        self.key = key
        self.parent = parent
        self.cached = cached
        self.depth: int = len(key) + (parent.depth if parent is not None else 0)  # tokens from the root
        self.cached_children: dict[Hashable, PromptNode] = {}  # by first page
        self.other_children: OrderedDict[Hashable, PromptNode] = OrderedDict()
        self.requests: OrderedDict[Request, None] = OrderedDict()  # whose prompts end here
        self.size = 0  # requests here and below
        self.hanging = 0  # those of them that no deeper node has cached
        self.queued = False


class PromptTree:
    """Waiting requests in the order of their longest cached prefix.

    Among equals, those that share more of their prompt come one after another, and else the first come first.

    Args:
        cache: whose prefixes count; `inserted` and `evicted` have to be called when it changes.
        page_size: the cache's.
    """

    def __init__(self, cache: RadixCache, page_size: int) -> None:
        self._cache = cache
        self._page = page_size
        self._roots: dict[str, PromptNode] = {}
        self._ends: dict[Request, PromptNode] = {}
        self._heap: list[tuple[int, int, PromptNode]] = []  # (-depth, tie-breaker, node)
        self._ties = count()

    def __len__(self) -> int:
        return len(self._ends)

    def __contains__(self, request: Request) -> bool:
        return request in self._ends

    def add(self, request: Request) -> None:
        """Take a request in; its tokens must not change while it waits."""
        tokens = self._tokens(request)
        cached = self._cache.match_length(tokens, request.namespace)
        root = self._roots.get(request.namespace)
        if root is None:
            root = self._roots[request.namespace] = PromptNode(NO_TOKENS, None, True)
        end = self._grow(root, tokens, cached)
        end.requests[request] = None
        self._ends[request] = end
        holder: PromptNode | None = None
        for node in _path(end):
            node.size += 1
            if holder is None and node.cached:
                holder = node
        assert holder is not None
        self._hang(holder, 1)

    def remove(self, request: Request) -> None:
        """Forget a request that waits."""
        end = self._ends.pop(request)
        del end.requests[request]
        holder = None
        for node in _path(end):
            node.size -= 1
            if holder is None and node.cached:
                holder = node
                node.hanging -= 1
            if node.size == 0:
                if node.parent is None:
                    del self._roots[request.namespace]
                else:
                    self._take_out(node.parent, node)

    def first(self) -> Request | None:
        """The request to run next; it stays."""
        node = self._top()
        if node is None:
            return None
        while (
            not node.requests
        ):  # a node without requests has children, and this one has some that are not cached
            node = next(iter(node.other_children.values()))
        return next(iter(node.requests))

    def cached_length(self, request: Request) -> int:
        """How much of a waiting request's prompt is cached, tokens."""
        return next(node.depth for node in _path(self._ends[request]) if node.cached)

    def inserted(self, namespace: str, tokens: Tokens) -> None:
        """All of `tokens` is cached now."""
        node = self._roots.get(namespace)
        at = 0
        while node is not None and at < len(tokens):
            child = self._child(node, tokens, at)
            if child is None:
                return
            shared = self._shared(child.key, tokens[at:])
            if shared < len(child.key):
                if not child.cached:
                    self._mark(self._split(child, shared))
                return
            if not child.cached:
                self._mark(child)
            node, at = child, child.depth

    def evicted(self, namespace: str, tokens: Tokens, start: int) -> None:
        """What goes on from ``tokens[:start]`` along `tokens` is cached no longer."""
        node = self._roots.get(namespace)
        gone: list[PromptNode] = []
        at = 0
        while node is not None and at < len(tokens):
            child = self._child(node, tokens, at)
            if child is None or not child.cached or self._shared(child.key, tokens[at:]) < len(child.key):
                break
            if at < start < child.depth:
                child = self._split(child, start - at)
            elif child.depth > start:
                gone.append(child)
            node, at = child, child.depth
        for each in reversed(gone):
            self._unmark(each)

    def check(self) -> None:
        """Assert that the tree says about every request what the cache says, and that its counts are right."""
        hanging: dict[int, int] = {}
        for request, end in self._ends.items():
            cached = self._cache.match_length(self._tokens(request), request.namespace)
            assert self.cached_length(request) == cached
            holder = next(node for node in _path(end) if node.cached)
            hanging[id(holder)] = hanging.get(id(holder), 0) + 1
        nodes = list(self._roots.values())
        for node in nodes:
            children = [*node.cached_children.values(), *node.other_children.values()]
            assert node.hanging == hanging.get(id(node), 0) and (node.queued or not node.hanging)
            assert node.size == len(node.requests) + sum(child.size for child in children) > 0
            assert all(child.cached for child in node.cached_children.values())
            assert not any(child.cached for child in node.other_children.values())
            assert node.cached or not node.cached_children
            nodes += children

    def _grow(self, root: PromptNode, tokens: Tokens, cached: int) -> PromptNode:
        """The node where `tokens` end, made if need be; what is new is cut where its cached part ends."""
        node, at = root, 0
        while at < len(tokens):
            child = self._child(node, tokens, at)
            if child is None:
                end = cached if at < cached else len(tokens)
                child = PromptNode(tokens[at:end], node, end <= cached)
                self._put(node, child)
            else:
                shared = self._shared(child.key, tokens[at:])
                if shared < len(child.key):
                    child = self._split(child, shared)
            node, at = child, child.depth
        return node

    def _split(self, node: PromptNode, at: int) -> PromptNode:
        """Cut an edge; returns the new node that holds its first `at` tokens."""
        parent = node.parent
        assert parent is not None
        upper = PromptNode(node.key[:at], parent, node.cached)
        upper.size = node.size
        self._put(parent, upper)  # in the same place: the order of siblings is that of their coming
        node.key, node.parent = node.key[at:], upper
        self._put(upper, node)
        return upper

    def _mark(self, node: PromptNode) -> None:
        """A child of a cached node is cached as well."""
        parent = node.parent
        assert parent is not None and parent.cached and not node.cached
        self._take_out(parent, node)
        node.cached = True
        self._put(parent, node)
        parent.hanging -= node.size
        self._hang(node, node.size)

    def _unmark(self, node: PromptNode) -> None:
        """A cached node without cached children is cached no longer."""
        parent = node.parent
        assert parent is not None and not node.cached_children and node.hanging == node.size
        self._take_out(parent, node)
        node.cached, node.hanging = False, 0
        self._put(parent, node)
        self._hang(parent, node.size)

    def _hang(self, node: PromptNode, more: int) -> None:
        node.hanging += more
        if not node.queued:
            node.queued = True
            heapq.heappush(self._heap, (-node.depth, next(self._ties), node))
            if len(self._heap) > 4 * len(self._ends) + 100:
                self._clean()

    def _clean(self) -> None:
        """Drop heap entries on whose nodes nothing hangs any more; the others are no more than the requests."""
        for _, _, node in self._heap:
            node.queued = node.hanging > 0
        self._heap = [entry for entry in self._heap if entry[2].queued]
        heapq.heapify(self._heap)

    def _top(self) -> PromptNode | None:
        """The deepest cached node on which something hangs."""
        while self._heap:
            node = self._heap[0][2]
            if node.hanging:
                return node
            heapq.heappop(self._heap)
            node.queued = False
        return None

    def _tokens(self, request: Request) -> Tokens:
        """What of a request may come from the cache."""
        return request.tokens.view(0, request.rank_limit // self._page * self._page)

    def _child(self, node: PromptNode, tokens: Tokens, at: int) -> PromptNode | None:
        first = self._first_page(tokens, at)
        return node.cached_children.get(first) or node.other_children.get(first)

    def _put(self, parent: PromptNode, child: PromptNode) -> None:
        side = parent.cached_children if child.cached else parent.other_children
        side[self._first_page(child.key, 0)] = child

    def _take_out(self, parent: PromptNode, child: PromptNode) -> None:
        side = parent.cached_children if child.cached else parent.other_children
        del side[self._first_page(child.key, 0)]

    def _first_page(self, tokens: Tokens, at: int) -> Hashable:
        return int(tokens[at]) if self._page == 1 else tokens[at : at + self._page].tobytes()

    def _shared(self, a: Tokens, b: Tokens) -> int:
        return shared_length(a, b) // self._page * self._page


def _path(node: PromptNode | None) -> list[PromptNode]:
    """From a node up to and with its root."""
    out = []
    while node is not None:
        out.append(node)
        node = node.parent
    return out
