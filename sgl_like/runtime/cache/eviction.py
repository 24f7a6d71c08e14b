"""Which leaf of the cache goes next: the least recently used one, of those that have more than their share first.

Without a quota there is one heap of leaves. With one, each namespace has its own, and a heap of their tops says where
the least recently used leaf of all is. Entries are looked at when they come up: whoever pops one finds out whether its
node was used again, and offers it anew. So are the tops: one that is no longer its heap's first is passed over.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgl_like.runtime.cache.radix_cache import Node

Entry = tuple[int, int, "Node"]
"""`Node.last_used` when it was offered, a tie-breaker, and the node."""


class EvictionOrder:
    """Nodes in the order in which they are to be looked at for eviction; O(log nodes) for each operation.

    Args:
        quota: slots that a namespace may have while others are evicted; ``None`` for no quota.
    """

    def __init__(self, quota: int | None = None) -> None:
        self._quota = quota
        self._heaps: dict[str, list[Entry]] = {}  # by namespace, or one for all
        self._tops: list[tuple[int, int, str]] = []  # of each heap, among outdated ones
        self._kept: dict[str, int] = {}  # slots of each namespace, locked ones too
        self._over: set[str] = set()  # never more than 1 / quota of them
        self._ties = count()

    def offer(self, node: Node) -> None:
        """Queue a node, as of its last use."""
        group = "" if self._quota is None else node.namespace
        heap = self._heaps.setdefault(group, [])
        entry = (node.last_used, next(self._ties), node)
        heapq.heappush(heap, entry)
        if heap[0] is entry:
            self._show(group)

    def pop(self) -> Entry | None:
        """The next node to look at leaves the queue. ``None``: it is empty."""
        group = self._oldest() if (over := self._largest_over()) is None else over
        if group is None:
            return None
        heap = self._heaps[group]
        entry = heapq.heappop(heap)
        if heap:
            self._show(group)
        else:
            del self._heaps[group]
        return entry

    def changed(self, namespace: str, by: int) -> None:
        """A namespace has so many slots more (or less) than before."""
        if self._quota is None:
            return
        kept = self._kept.get(namespace, 0) + by
        if kept:
            self._kept[namespace] = kept
        else:
            self._kept.pop(namespace, None)
        if kept > self._quota:
            self._over.add(namespace)
        else:
            self._over.discard(namespace)

    def check(self, kept: dict[str, int]) -> None:
        """Assert that the counts are right.

        Args:
            kept: slots of each namespace that has any.
        """
        if self._quota is not None:
            assert kept == self._kept, "the slots of a namespace have drifted"
            assert self._over == {name for name, slots in kept.items() if slots > self._quota}
        assert len(self._tops) <= 2 * len(self._heaps) + 100

    def _largest_over(self) -> str | None:
        """The namespace that is over its quota by most, of those that have anything to look at."""
        over = [name for name in self._over if name in self._heaps]
        return max(over, key=lambda name: (self._kept[name], name)) if over else None

    def _oldest(self) -> str | None:
        """The one whose first entry is the least recently used."""
        while self._tops:
            used, tie, group = self._tops[0]
            heap = self._heaps.get(group)
            if heap is not None and heap[0][:2] == (used, tie):
                return group
            heapq.heappop(self._tops)
        return None

    def _show(self, group: str) -> None:
        """A heap has another first entry."""
        if len(self._tops) > 2 * len(self._heaps) + 64:  # most of them are outdated
            self._tops = [(*heap[0][:2], name) for name, heap in self._heaps.items()]
            heapq.heapify(self._tops)
        else:
            used, tie, _ = self._heaps[group][0]
            heapq.heappush(self._tops, (used, tie, group))
