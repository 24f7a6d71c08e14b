"""The radix tree of computed prefixes: which KV slots hold which token sequences.

    root ── [12 7 7 3] ──┬── [5 9]          an edge holds several tokens and one KV slot for each;
            slots 0-3    │   slots 4 5      siblings differ in their first token
                         └── [8]            "12 7 7 3 5 9" and "12 7 7 3 8" share four slots
                             slot 6

Requests lock the path to the prefix they use; unlocked leaves can be evicted, least recently used first. A slot
belongs to the tree, to one request, or to nobody; inserting hands slots over to the tree. Namespaces (a tenant's
salt, an adapter) are separate trees over the same slots.

With pages of more than one slot everything goes by whole pages: edges hold pages, siblings differ in their first
page, and what does not fill a page is neither matched nor inserted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import count
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.cache.eviction import EvictionOrder
from sgl_like.runtime.cache.pages import NO_SLOTS, SlotAllocator, Slots

Tokens = NDArray[np.int32]
NO_TOKENS: Tokens = np.empty(0, dtype=np.int32)
REMEMBERED = 50
"""Evictions that are remembered for who looks at the tree."""
HEAD = 24
"""Tokens of each that are."""


class Node:
    """One edge with the node at its end."""

    __slots__ = ("children", "hits", "key", "last_used", "locks", "namespace", "parent", "queued", "slots")

    def __init__(self, key: Tokens, slots: Slots, parent: Node | None, namespace: str) -> None:
        self.key = key
        self.slots = slots
        self.parent = parent
        self.namespace = namespace
        self.children: dict[Hashable, Node] = {}  # by first page
        self.locks = 0
        self.last_used = 0
        self.hits = 0  # requests that found it cached
        self.queued = False  # whether it has an entry in the eviction heap


class Match(NamedTuple):
    """The longest cached prefix of a sequence: its slots, and the node where it ends (for locking)."""

    slots: Slots
    node: Node


class Insertion(NamedTuple):
    """What `RadixCache.insert` did: `known` leading tokens were in the tree already; the caller's slots of those
    which differ from the tree's have been freed. The sequence now ends at `node`, in `slots`.
    """

    known: int
    slots: Slots
    node: Node


class Eviction(NamedTuple):
    """A leaf that had to go: its length, its first `HEAD` tokens, and when (``time.monotonic()``)."""

    namespace: str
    tokens: int
    head: Tokens
    when: float


class CacheWatcher(Protocol):
    """Is told what enters and leaves the tree."""

    def inserted(self, namespace: str, tokens: Tokens) -> None:
        """All of `tokens` is cached now."""
        ...

    def evicting(self, node: Node) -> None:
        """A leaf is about to be removed; `sequence_of` still gives its tokens and slots."""
        ...


class RadixCache:
    """Prefixes of all sequences computed so far, in the slots of one allocator.

    Matching and inserting cost O(tokens), evicting O(log leaves) for each leaf.

    Args:
        allocator: where evicted slots go back to; its page size is the tree's.
        quota: slots that a namespace may have here: of those that have more, the one with the most loses its own
            leaves before anything else is evicted. ``None``: the least recently used leaf goes, whose ever.
    """

    def __init__(self, allocator: SlotAllocator, quota: int | None = None) -> None:
        self._allocator = allocator
        self._page = allocator.page_size
        self._roots: dict[str, Node] = {}
        self._clock = count(1)
        self._order = EvictionOrder(quota)
        self.watcher: CacheWatcher | None = None
        self.evictable_count = 0  # slots in unlocked nodes
        self.locked_count = 0  # slots in locked nodes
        self.evicted_total = 0
        self.evictions: deque[Eviction] = deque(maxlen=REMEMBERED)  # the last ones
        self.node_count = 0

    @property
    def roots(self) -> dict[str, Node]:
        """The root of each namespace that has anything cached."""
        return self._roots

    @property
    def now(self) -> int:
        """A time no earlier than any `Node.last_used`."""
        return next(self._clock)

    def match(self, tokens: Tokens, namespace: str = "", limit: int | None = None) -> Match:
        """The longest cached prefix of ``tokens[:limit]``, in whole pages; marks it as used now and splits an edge if
        it ends within one.
        """
        node, at = self._root(namespace), 0
        end = len(tokens) if limit is None else min(limit, len(tokens))
        now = next(self._clock)
        pieces: list[Slots] = []
        while (child := self._child(node, tokens, at, end)) is not None:
            shared = self._shared(child.key, tokens[at:end])
            if shared < len(child.key):
                child = self._split(child, shared)
            child.last_used = now
            pieces.append(child.slots)
            node, at = child, at + shared
            self._offer(node)
        return Match(np.concatenate(pieces) if pieces else NO_SLOTS, node)

    def match_length(self, tokens: Tokens, namespace: str = "") -> int:
        """Length of the longest cached prefix; changes nothing."""
        root = self._roots.get(namespace)
        if root is None:
            return 0
        node, at, end = root, 0, len(tokens)
        while (child := self._child(node, tokens, at, end)) is not None:
            shared = self._shared(child.key, tokens[at:])
            at += shared
            if shared < len(child.key):
                break
            node = child
        return at

    def insert(self, tokens: Tokens, slots: Slots, namespace: str = "") -> Insertion:
        """Hand a computed sequence over to the tree.

        Args:
            tokens: the sequence, whole pages.
            slots: the slot of each token. Those of a prefix that the tree has already may be the tree's own (from
                `match`) or duplicates; duplicates are freed.
            namespace: which of the separate trees.
        """
        assert len(tokens) == len(slots) and len(tokens) % self._page == 0
        found = self.match(tokens, namespace)
        known = len(found.slots)
        mine = slots[:known]
        self._allocator.release(mine[mine != found.slots])
        node = found.node
        if known < len(tokens):
            node = Node(tokens[known:].copy(), slots[known:].copy(), found.node, namespace)
            node.last_used = next(self._clock)
            found.node.children[self._first_page(node.key, 0)] = node
            if found.node.parent is None:
                self._roots[namespace] = found.node
            self.node_count += 1
            self.evictable_count += len(node.key)
            self._order.changed(namespace, len(node.key))
            self._offer(node)
            if self.watcher is not None:
                self.watcher.inserted(namespace, tokens)
        return Insertion(known, np.concatenate((found.slots, slots[known:])), node)

    def hit(self, node: Node) -> None:
        """Count a request that found everything from the root to `node` cached."""
        for each in path(node):
            each.hits += 1

    def lock(self, node: Node) -> None:
        """Keep everything from the root to `node` from being evicted."""
        for each in path(node):
            if each.locks == 0:
                self.evictable_count -= len(each.key)
                self.locked_count += len(each.key)
            each.locks += 1

    def unlock(self, node: Node) -> None:
        """Undo one `lock` of the same node."""
        for each in path(node):
            assert each.locks > 0, "unlocked more often than locked"
            each.locks -= 1
            if each.locks == 0:
                self.evictable_count += len(each.key)
                self.locked_count -= len(each.key)
                self._offer(each)

    def evict(self, wanted: int, before: Callable[[Node], None] | None = None) -> int:
        """Free at least `wanted` slots if there are so many evictable ones; returns how many were freed.

        Args:
            wanted: number of slots.
            before: called with each leaf before it goes, so that its keys and values can be saved.
        """
        freed = 0
        while freed < wanted and (entry := self._order.pop()) is not None:
            used, _, node = entry
            node.queued = False
            if used != node.last_used:
                self._offer(node)  # used again since: queue it where it belongs now
            elif not (node.locks or node.children or node.parent is None):
                if before is not None:
                    before(node)
                head = node.key[:HEAD].copy()  # not the whole key
                self.evictions.append(Eviction(node.namespace, len(node.key), head, time.monotonic()))
                freed += self._remove(node)
        self.evicted_total += freed
        return freed

    def forget(self, tokens: Tokens, keep: int, namespace: str = "") -> int:
        """Remove everything that goes on from ``tokens[:keep]`` along `tokens`, which nobody may have locked, and
        whatever branches off it; returns the number of slots freed.
        """
        assert keep % self._page == 0
        found = self.match(tokens, namespace, limit=keep)
        child = self._child(found.node, tokens, keep, len(tokens))
        if child is None or len(found.slots) < keep:
            return 0
        doomed = [child]
        for each in doomed:  # grows while it is read: parents first
            doomed += each.children.values()
        assert not any(each.locks for each in doomed), "somebody uses what is to be forgotten"
        return sum(self._remove(each) for each in reversed(doomed))

    def flush(self) -> int:
        """Forget everything that is not locked; returns the number of slots freed."""
        return self.evict(self.evictable_count) if self.evictable_count else 0

    def nodes(self) -> Iterator[Node]:
        """Every node but the roots, parents first."""
        waiting = [child for root in self._roots.values() for child in root.children.values()]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()

    def check(self, locks: Sequence[Node] = ()) -> None:
        """Assert the tree's invariants.

        Args:
            locks: the node of every lock that is held.
        """
        expected: dict[int, int] = {}
        for held in locks:
            for each in path(held):
                expected[id(each)] = expected.get(id(each), 0) + 1
        evictable = locked = nodes = 0
        kept: dict[str, int] = {}
        for node in self.nodes():
            assert len(node.key) == len(node.slots) > 0, "a node with an empty key"
            assert len(node.key) % self._page == 0, "a node with part of a page"
            assert node.parent is not None and node.parent.children[self._first_page(node.key, 0)] is node, (
                "a misplaced node"
            )
            assert node.locks == expected.get(id(node), 0), "lock count differs from the requests below"
            nodes += 1
            assert node.parent.parent is None or node.hits <= node.parent.hits, "a hit passes all nodes above"
            evictable += len(node.key) if not node.locks else 0
            locked += len(node.key) if node.locks else 0
            kept[node.namespace] = kept.get(node.namespace, 0) + len(node.key)
        assert (evictable, locked) == (self.evictable_count, self.locked_count), "sizes have drifted"
        self._order.check(kept)
        assert nodes == self.node_count, "the number of nodes has drifted"

    def _root(self, namespace: str) -> Node:
        """A namespace's root; it is kept only while it has children."""
        return self._roots.get(namespace) or Node(NO_TOKENS, NO_SLOTS, None, namespace)

    def _child(self, node: Node, tokens: Tokens, at: int, end: int) -> Node | None:
        """The child that the page at `at` leads to, if ``tokens[:end]`` has all of that page."""
        return node.children.get(self._first_page(tokens, at)) if at + self._page <= end else None

    def _first_page(self, tokens: Tokens, at: int) -> Hashable:
        return int(tokens[at]) if self._page == 1 else tokens[at : at + self._page].tobytes()

    def _shared(self, a: Tokens, b: Tokens) -> int:
        return shared_length(a, b) // self._page * self._page

    def _split(self, node: Node, at: int) -> Node:
        """Cut an edge; returns the new node that holds its first `at` tokens.

        parent ── [a b c d] node      becomes      parent ── [a b] upper ── [c d] node
        """
        assert node.parent is not None
        upper = Node(node.key[:at], node.slots[:at], node.parent, node.namespace)
        upper.locks, upper.last_used, upper.hits = node.locks, node.last_used, node.hits
        self.node_count += 1
        node.parent.children[self._first_page(node.key, 0)] = upper
        node.key, node.slots, node.parent = node.key[at:], node.slots[at:], upper
        upper.children[self._first_page(node.key, 0)] = node
        return upper

    def _remove(self, node: Node) -> int:
        parent = node.parent
        assert parent is not None
        if self.watcher is not None:
            self.watcher.evicting(node)
        del parent.children[self._first_page(node.key, 0)]
        self._allocator.release(node.slots)
        self.node_count -= 1
        self.evictable_count -= len(node.key)
        self._order.changed(node.namespace, -len(node.key))
        self._offer(parent)
        if parent.parent is None and not parent.children:
            del self._roots[node.namespace]
        node.parent = None
        return len(node.key)

    def _offer(self, node: Node) -> None:
        """Queue a node for eviction if it is an unlocked leaf. One entry per node: a later use is noticed when
        the entry comes up, so the heap is never larger than the tree.
        """
        if node.children or node.locks or node.parent is None or node.queued:
            return
        node.queued = True
        self._order.offer(node)


def sequence_of(node: Node) -> tuple[Tokens, Slots]:
    """Tokens and slots from the root to the end of a node."""
    nodes = list(path(node))
    nodes.reverse()
    if not nodes:
        return NO_TOKENS, NO_SLOTS
    return np.concatenate([each.key for each in nodes]), np.concatenate([each.slots for each in nodes])


def path(node: Node) -> Iterator[Node]:
    """From a node up to, not including, its root."""
    while node.parent is not None:
        yield node
        node = node.parent


def shared_length(a: Tokens, b: Tokens) -> int:
    """Length of the common beginning."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size
