"""200,000 random operations on the radix tree against a dict of prefixes, with its exact order of eviction."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from sgl_like.runtime.cache.pages import SlotAllocator
from sgl_like.runtime.cache.radix_cache import Match, Node, RadixCache, Tokens, sequence_of

OPERATIONS = 200_000
Prefix = tuple[int, ...]  # one symbol for each page


class Fuzz:
    """A tree and what it should hold: for each namespace and prefix the slots of its last page."""

    def __init__(self, page: int, pages: int, seed: int, quota: int | None = None) -> None:
        self.rng = random.Random(seed)
        self.page = page
        self.allocator = SlotAllocator(page * pages + page // 2, page)
        self.tree = RadixCache(self.allocator, quota)
        self.quota = quota
        names = ("", "tenant", "gone soon")
        self.pages: dict[str, dict[Prefix, list[int]]] = {name: {} for name in names}
        self.held: list[Match] = []

    def sequence(self) -> tuple[str, Prefix, Tokens]:
        """A namespace, page symbols, and tokens; pages of different symbols differ in their last token only."""
        rng = self.rng
        prefix = tuple(rng.choices(range(3), k=rng.randrange(9)))
        tokens = [t for symbol in prefix for t in (*([5] * (self.page - 1)), symbol)]
        tail = [5] * rng.randrange(self.page)
        namespace = rng.choice(["", "", "tenant", "gone soon"])
        return namespace, prefix, np.array(tokens + tail, dtype=np.int32)

    def found(self, namespace: str, prefix: Prefix) -> list[int]:
        out: list[int] = []
        for end in range(1, len(prefix) + 1):
            slots = self.pages[namespace].get(prefix[:end])
            if slots is None:
                break
            out += slots
        return out

    def step(self) -> None:
        actions = (
            (self.insert, 30), (self.match, 25), (self.lock, 10), (self.unlock, 11), (self.evict, 6),
            (self.forget, 2), (self.flush, 0.1),
        )  # fmt: skip
        action = self.rng.choices([a for a, _ in actions], [w for _, w in actions])[0]
        action()
        total = self.allocator.free_count + self.tree.evictable_count + self.tree.locked_count
        assert total == self.allocator.size

    def insert(self) -> None:
        namespace, prefix, tokens = self.sequence()
        tokens = tokens[: len(prefix) * self.page]
        match = self.tree.match(tokens, namespace)
        known = self.found(namespace, prefix)
        assert match.slots.tolist() == known
        reused = known if self.rng.random() < 0.7 else known[: self.rng.randrange(len(known) + 1)]
        reused = reused[: len(reused) // self.page * self.page]  # the rest was computed again
        fresh = self.allocator.allocate(len(tokens) - len(reused))
        if fresh is None:
            return
        free = self.allocator.free_count
        done = self.tree.insert(tokens, np.concatenate((match.slots[: len(reused)], fresh)), namespace)
        assert done.known == len(known)
        assert self.allocator.free_count == free + len(known) - len(reused)
        slots = done.slots.tolist()
        assert slots[: len(known)] == known
        for end in range(1, len(prefix) + 1):
            self.pages[namespace][prefix[:end]] = slots[(end - 1) * self.page : end * self.page]

    def match(self) -> None:
        namespace, prefix, tokens = self.sequence()
        assert self.tree.match_length(tokens, namespace) == len(self.found(namespace, prefix))
        limit = self.rng.randrange(len(tokens) + 2)
        match = self.tree.match(tokens, namespace, limit)
        assert match.slots.tolist() == self.found(namespace, prefix[: limit // self.page])
        assert sequence_of(match.node)[1].tolist() == match.slots.tolist()

    def lock(self) -> None:
        if len(self.held) < 6:
            namespace, _, tokens = self.sequence()
            self.held.append(self.tree.match(tokens, namespace))
            self.tree.lock(self.held[-1].node)

    def unlock(self) -> None:
        if self.held:
            self.tree.unlock(self.held.pop(self.rng.randrange(len(self.held))).node)

    def evict(self) -> None:
        wanted = self.rng.randrange(1, 6 * self.page)
        expected = self.expected_evictions(wanted)
        freed: list[int] = []
        count = self.tree.evict(wanted, lambda node: freed.extend(node.slots.tolist()))
        assert freed == expected and count == len(freed)
        self.drop(set(freed))

    def expected_evictions(self, wanted: int) -> list[int]:
        """Unlocked leaves, least recently used first, until there are enough; those of the namespace that has most
        as long as that is more than the quota.
        """
        children = {id(node): len(node.children) for node in self.tree.nodes()}
        kept: Counter[str] = Counter()
        leaves: dict[str, list[tuple[int, Node]]] = {name: [] for name in self.pages}
        for node in self.tree.nodes():
            kept[node.namespace] += len(node.key)
            if not node.locks and not node.children:
                leaves[node.namespace].append((node.last_used, node))
        out: list[int] = []
        while any(leaves.values()) and len(out) < wanted:
            most = max((kept[name], name) for name, some in leaves.items() if some)
            over = self.quota is not None and most[0] > self.quota
            entry = min(leaves[most[1]] if over else [each for some in leaves.values() for each in some])
            node = entry[1]
            leaves[node.namespace].remove(entry)
            kept[node.namespace] -= len(node.key)
            out += node.slots.tolist()
            parent: Node | None = node.parent
            assert parent is not None
            if id(parent) in children:
                children[id(parent)] -= 1
                if not children[id(parent)] and not parent.locks:
                    leaves[node.namespace].append((parent.last_used, parent))
        return out

    def forget(self) -> None:
        namespace, prefix, tokens = self.sequence()
        keep = self.rng.randrange(len(prefix) + 1)
        doomed = [p for p in self.pages[namespace] if len(p) > keep and p[: keep + 1] == prefix[: keep + 1]]
        slots = {slot for p in doomed for slot in self.pages[namespace][p]}
        if slots.isdisjoint(slot for match in self.held for slot in match.slots.tolist()):
            assert self.tree.forget(tokens, keep * self.page, namespace) == len(slots)
            self.drop(slots)

    def flush(self) -> None:
        kept = {slot for match in self.held for slot in match.slots.tolist()}
        everything = {slot for pages in self.pages.values() for slots in pages.values() for slot in slots}
        assert self.tree.flush() == len(everything - kept)
        self.drop(everything - kept)

    def drop(self, gone: set[int]) -> None:
        for pages in self.pages.values():
            for prefix in [p for p, slots in pages.items() if slots[0] in gone]:
                del pages[prefix]

    def check(self) -> None:
        self.tree.check([match.node for match in self.held])
        ours = sorted(slot for node in self.tree.nodes() for slot in node.slots.tolist())
        assert ours == sorted(slot for pages in self.pages.values() for s in pages.values() for slot in s)
        assert len(set(ours)) == len(ours) and not set(ours) & set(self.allocator.free_slots().tolist())
        assert set(self.tree._roots) == {name for name, pages in self.pages.items() if pages}
        for match in self.held:
            assert sequence_of(match.node)[1].tolist() == match.slots.tolist()


@pytest.mark.parametrize(
    "page, pages, quota",
    [
        (1, 60, None),
        (1, 300, None),
        (16, 60, None),
        (64, 40, None),
        (1, 60, 15),
        (1, 300, 100),
        (16, 60, 200),
    ],
)
def test_random_operations(page: int, pages: int, quota: int | None) -> None:
    fuzz = Fuzz(page, pages, seed=page + pages, quota=quota)
    for operation in range(OPERATIONS // 4):
        fuzz.step()
        if operation % 200 == 0:
            fuzz.check()
    fuzz.check()
