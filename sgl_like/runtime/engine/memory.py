"""KV slots of running requests: taken from the cache's tree, from free slots, or by evicting; given back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import count
from typing import Any

import numpy as np

from sgl_like.errors import RequestError
from sgl_like.runtime.cache.host_tier import HostTier
from sgl_like.runtime.cache.pages import SlotAllocator
from sgl_like.runtime.cache.radix_cache import Node, RadixCache, Tokens, path, sequence_of
from sgl_like.runtime.cache.tree_view import view_tree
from sgl_like.runtime.engine.request import Request

log = logging.getLogger(__name__)


class KVMemory:
    """The one place where slots change owner.

    Args:
        size: number of slots.
        reuse: keep finished sequences' KV in the tree.
        page_size: slots that go together; see `runtime/cache/pages.py`.
        host: second tier, where evicted prefixes go.
        quota: share of the slots that a namespace's prefixes may take while others are evicted.
    """

    def __init__(
        self,
        size: int,
        reuse: bool = True,
        page_size: int = 1,
        host: HostTier | None = None,
        quota: float | None = None,
    ) -> None:
        self.allocator = SlotAllocator(size, page_size)
        self.size = self.allocator.size
        self.page_size = page_size
        self.tree = RadixCache(self.allocator, None if quota is None else int(quota * self.allocator.size))
        self.host = host if reuse else None
        self.reuse = reuse
        self._pins: dict[int, Node] = {}  # oldest first
        self._pin_numbers = count()
        self._holders: dict[Node, list[Request]] = {}  # who has locked the path to a node
        self._ahead: list[
            tuple[Tokens, int, str]
        ] = []  # in the tree, but not computed yet: tokens, from, namespace

    @property
    def available(self) -> int:
        """Slots that can be had without touching a running request."""
        return self.allocator.free_count + self.tree.evictable_count

    def missing(self, request: Request, count: int) -> int:
        """Slots to allocate before the request's next `count` tokens can be computed."""
        return self._pages(request.computed + count, up=True) - len(request.slots)

    def attach(self, request: Request) -> None:
        """Give a request the longest cached prefix of its tokens and lock it. What running requests have computed
        and not yet published counts as cached.
        """
        assert request.node is None and len(request.slots) == 0
        tokens, limit = request.tokens.view(), request.match_limit
        match = self.tree.match(tokens, request.namespace, limit)
        while (other := self._going_on(request, match.node, len(match.slots))) is not None:
            self.publish(other)
            match = self.tree.match(tokens, request.namespace, limit)
        request.slots.extend(match.slots)
        request.computed = request.shared = len(match.slots)
        self._hold(request, match.node)

    def found(self, request: Request) -> None:
        """Count what an attached request has found in the tree as used once more."""
        assert request.node is not None
        self.tree.hit(request.node)

    def grow(self, request: Request, count: int) -> bool:
        """Add slots for the request's next `count` tokens, evicting if need be. False if there are too few."""
        if request.computed + count <= len(request.slots):
            return True
        wanted = self.missing(request, count)
        missing = wanted - self.allocator.free_count
        while missing > 0 and self._evict(missing) < missing:
            if not self._pins or any(r is not request for held in self._holders.values() for r in held):
                return False
            self._drop_pin()  # nobody else is left to make room
            missing = wanted - self.allocator.free_count
        slots = self.allocator.allocate(wanted)
        assert slots is not None
        request.slots.extend(slots)
        return True

    def trim(self, request: Request) -> None:
        """Give back slots beyond the last computed token's page: those of rejected drafts."""
        end = self._pages(request.computed, up=True)
        if end < len(request.slots):
            self.allocator.release(request.slots.view(end).copy())
            request.slots.cut(end)

    def load(self, request: Request) -> None:
        """Extend a request's cached prefix by what the second tier has of it, if that is half a block or more."""
        if self.host is None:
            return
        tokens, start = request.tokens.view(), request.computed
        end = self._pages(min(self.host.find(tokens, start, request.namespace), request.match_limit))
        if end - start < self.host.layout.shape[1] // 2 or not self.grow(request, end - start):
            return
        request.computed += self.host.load(tokens, start, request.slots.view(start, end), request.namespace)
        request.computed = done = self._pages(request.computed)
        self.allocator.release(request.slots.view(done).copy())
        request.slots.cut(done)
        self.publish(request)

    def publish(self, request: Request) -> None:
        """Put the request's computed tokens into the tree, so that others can share them, and stay locked."""
        done = self._pages(request.computed)
        if self.reuse and done > request.shared:
            self._insert(request, done)

    def publish_ahead(self, request: Request, count: int) -> None:
        """The same for the `count` tokens that the coming forward pass will compute.

        A pass writes the keys and values of all its new tokens before it reads any (layer by layer), so rows of the
        same pass may already use them. Left for later if some of these tokens are in the tree already: a duplicate
        must not be written into slots that others read.
        """
        done = self._pages(request.computed + count)
        if not self.reuse or done <= request.shared:
            return
        tokens = request.tokens.view(0, done)
        if self.tree.match_length(tokens, request.namespace) == request.shared:
            self._ahead.append((tokens.copy(), request.shared, request.namespace))
            self._insert(request, done)

    def settle(self, computed: bool) -> None:
        """After the forward pass: what was published ahead is there, or, with all its users gone, must be forgotten."""
        if not computed:
            for tokens, start, namespace in self._ahead:
                self.tree.forget(tokens, start, namespace)
        self._ahead.clear()

    def detach(self, request: Request, keep: bool = True) -> None:
        """Take everything from a request; with `keep` its computed tokens stay in the tree."""
        if request.node is None:
            return
        if keep:
            self.publish(request)
        self.allocator.release(request.slots.view(request.shared).copy())
        self._release(request, request.node)
        request.node = None
        request.slots.cut(0)
        request.computed = request.shared = 0

    def flush(self) -> bool:
        """Forget every prefix that nobody uses; whether none is left."""
        self.tree.flush()
        if self.host is not None:
            self.host.clear()
        return self.tree.locked_count == 0

    def view(self, limit: int) -> dict[str, Any]:
        """The tree as `view_tree` shows it."""
        return view_tree(self.tree, limit, {node for end in self._pins.values() for node in path(end)})

    def pin(self, tokens: Tokens, namespace: str = "") -> int:
        """Keep what is cached of some tokens (whole pages) until `unpin`; returns a number for that.

        When a request would find no room even alone, the oldest pins are given up.

        Raises:
            RequestError: more than half of the slots would be pinned.
        """
        match = self.tree.match(tokens, namespace)
        self.tree.lock(match.node)
        number = next(self._pin_numbers)
        self._pins[number] = match.node
        if self.pinned > self.size // 2:
            self.unpin(number)
            raise RequestError(
                f"no room to pin {len(tokens)} tokens: {self.pinned} of {self.size} KV slots are pinned, "
                "and at most half may be"
            )
        return number

    def unpin(self, number: int) -> bool:
        """Let a pinned prefix be evicted again; whether it was still pinned."""
        node = self._pins.pop(number, None)
        if node is not None:
            self.tree.unlock(node)
        return node is not None

    @property
    def pinned(self) -> int:
        """Slots that pins hold."""
        nodes = {id(node): len(node.key) for end in self._pins.values() for node in path(end)}
        return sum(nodes.values())

    def close(self) -> None:
        """At the end: keep what is cached in the second tier."""
        if self.host is not None:
            for node in sorted(self.tree.nodes(), key=lambda node: node.last_used):
                self._save(node, wait=True)
            self.host.close()

    def check(self, running: Iterable[Request]) -> None:
        """Assert that every slot is in exactly one place (design: invariants of the KV slots)."""
        running = list(running)
        self.tree.check([*self._pins.values(), *(r.node for r in running if r.node is not None)])
        assert {id(r) for held in self._holders.values() for r in held} == {id(r) for r in running}
        owned = [r.slots.view(r.shared) for r in running]
        places = [self.allocator.free_slots(), *(node.slots for node in self.tree.nodes()), *owned]
        everything = np.concatenate(places)
        assert len(everything) == self.size, f"{len(everything)} slots accounted for, not {self.size}"
        assert len(np.unique(everything)) == self.size, "a slot is in two places"
        free, own = self.allocator.free_count, sum(map(len, owned))
        assert free + self.tree.evictable_count + self.tree.locked_count + own == self.size

    def _evict(self, wanted: int) -> int:
        return self.tree.evict(wanted, None if self.host is None else self._save)

    def _save(self, node: Node, wait: bool = False) -> None:
        assert self.host is not None
        tokens, slots = sequence_of(node)
        self.host.save(tokens, slots, len(tokens) - len(node.key), node.namespace, wait)

    def _drop_pin(self) -> None:
        number = next(iter(self._pins))
        log.warning("a pinned prefix was given up: a request had no room beside it")
        self.unpin(number)

    def _insert(self, request: Request, done: int) -> None:
        """Hand the request's first `done` tokens over to the tree, and hold the path to their end instead."""
        tokens, slots = request.tokens.view(0, done), request.slots.view(0, done)
        inserted = self.tree.insert(tokens.copy(), slots.copy(), request.namespace)
        slots[:] = inserted.slots
        request.shared = done
        before = request.node
        assert before is not None
        self._hold(request, inserted.node)
        self._release(request, before)

    def _hold(self, request: Request, node: Node) -> None:
        self.tree.lock(node)
        self._holders.setdefault(node, []).append(request)
        request.node = node

    def _release(self, request: Request, node: Node) -> None:
        self.tree.unlock(node)
        held = self._holders[node]
        held.remove(request)
        if not held:
            del self._holders[node]

    def _going_on(self, request: Request, node: Node, at: int) -> Request | None:
        """A request whose own computed tokens, which are not in the tree, go on where the match of another ended."""
        end = at + self.page_size
        if not self.reuse or end > request.match_limit:
            return None
        page = request.tokens.view(at, end)
        for other in self._holders.get(node, ()):
            if other.shared == at and other.computed >= end and (other.tokens.view(at, end) == page).all():
                return other
        return None

    def _pages(self, count: int, up: bool = False) -> int:
        """`count` rounded to whole pages, down or up."""
        return (count + (self.page_size - 1 if up else 0)) // self.page_size * self.page_size
