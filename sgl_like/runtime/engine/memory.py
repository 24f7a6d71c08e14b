"""KV slots of running requests: taken from the cache's tree, from free slots, or by evicting; given back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sgl_like.runtime.cache.kv_pool import SlotAllocator
from sgl_like.runtime.cache.radix_cache import RadixCache
from sgl_like.runtime.engine.request import Request


class KVMemory:
    """The one place where slots change owner.

    Args:
        size: number of slots.
        reuse: keep finished sequences' KV in the tree.
    """

    def __init__(self, size: int, reuse: bool = True) -> None:
        self.size = size
        self.allocator = SlotAllocator(size)
        self.tree = RadixCache(self.allocator)
        self._reuse = reuse

    @property
    def available(self) -> int:
        """Slots that can be had without touching a running request."""
        return self.allocator.free_count + self.tree.evictable_count

    def attach(self, request: Request) -> None:
        """Give a request the longest cached prefix of its tokens and lock it."""
        assert request.node is None and len(request.slots) == 0
        match = self.tree.match(request.tokens.view(), limit=request.match_limit)
        self.tree.lock(match.node)
        request.node = match.node
        request.slots.extend(match.slots)
        request.computed = request.shared = len(match.slots)

    def grow(self, request: Request, count: int) -> bool:
        """Add `count` slots for the request's next tokens, evicting if need be. False if there are too few."""
        missing = count - self.allocator.free_count
        if missing > 0:
            self.tree.evict(missing)
        slots = self.allocator.allocate(count)
        if slots is None:
            return False
        request.slots.extend(slots)
        return True

    def publish(self, request: Request) -> None:
        """Put the request's computed tokens into the tree, so that others can share them, and stay locked."""
        if not self._reuse or request.computed == request.shared:
            return
        assert request.node is not None
        done = request.computed
        inserted = self.tree.insert(request.tokens.view(0, done).copy(), request.slots.view(0, done).copy())
        self.tree.lock(inserted.node)
        self.tree.unlock(request.node)
        request.node, request.shared = inserted.node, done
        request.slots.view(0, done)[:] = inserted.slots

    def detach(self, request: Request, keep: bool = True) -> None:
        """Take everything from a request; with `keep` its computed tokens stay in the tree."""
        if request.node is None:
            return
        if keep:
            self.publish(request)
        self.allocator.release(request.slots.view(request.shared).copy())
        self.tree.unlock(request.node)
        request.node = None
        request.slots.cut(0)
        request.computed = request.shared = 0

    def check(self, running: Iterable[Request]) -> None:
        """Assert that every slot is in exactly one place (design: invariants of the KV slots)."""
        running = list(running)
        self.tree.check([r.node for r in running if r.node is not None])
        owned = [r.slots.view(r.shared) for r in running]
        places = [self.allocator.free_slots(), *(node.slots for node in self.tree.nodes()), *owned]
        everything = np.concatenate(places)
        assert len(everything) == self.size, f"{len(everything)} slots accounted for, not {self.size}"
        assert len(np.unique(everything)) == self.size, "a slot is in two places"
        free, own = self.allocator.free_count, sum(map(len, owned))
        assert free + self.tree.evictable_count + self.tree.locked_count + own == self.size
