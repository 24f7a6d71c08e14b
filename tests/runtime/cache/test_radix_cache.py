"""The radix tree against a naive model, and its order of eviction."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sgl_like.runtime.cache.pages import SlotAllocator
from sgl_like.runtime.cache.radix_cache import Match, RadixCache
from tests.support.naive_cache import NaiveCache

SLOTS = 40
sequences = st.lists(st.integers(0, 2), min_size=1, max_size=9)


def ids(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, dtype=np.int32)


class RadixAgainstNaive(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.allocator = SlotAllocator(SLOTS)
        self.tree = RadixCache(self.allocator)
        self.naive = NaiveCache()
        self.held: list[Match] = []

    def tree_slots(self) -> set[int]:
        return {int(slot) for node in self.tree.nodes() for slot in node.slots}

    @rule(tokens=sequences)
    def insert(self, tokens: list[int]) -> None:
        known = self.tree.match(ids(tokens)).slots
        assert known.tolist() == self.naive.match(tuple(tokens))
        fresh = self.allocator.allocate(len(tokens) - len(known))
        if fresh is None:
            return
        slots = np.concatenate((known, fresh))
        done = self.tree.insert(ids(tokens), slots)
        assert self.naive.insert(tuple(tokens), slots.tolist()) == []
        assert done.known == len(known)
        assert done.slots.tolist() == self.naive.match(tuple(tokens))

    @rule(tokens=sequences)
    def insert_a_duplicate_computation(self, tokens: list[int]) -> None:
        fresh = self.allocator.allocate(len(tokens))
        if fresh is None:
            return
        before = set(self.allocator.free_slots().tolist())
        done = self.tree.insert(ids(tokens), fresh)
        spare = self.naive.insert(tuple(tokens), fresh.tolist())
        assert set(self.allocator.free_slots().tolist()) - before == set(spare)
        assert done.slots.tolist() == self.naive.match(tuple(tokens))

    @rule(tokens=sequences, limit=st.integers(0, 9))
    def match(self, tokens: list[int], limit: int) -> None:
        expected = self.naive.match(tuple(tokens[:limit]))
        assert self.tree.match_length(ids(tokens[:limit])) == len(expected)
        assert self.tree.match(ids(tokens), limit=limit).slots.tolist() == expected

    @rule(tokens=sequences)
    def lock(self, tokens: list[int]) -> None:
        match = self.tree.match(ids(tokens))
        self.tree.lock(match.node)
        self.held.append(match)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject) -> None:
        match = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.tree.unlock(match.node)

    @rule(wanted=st.integers(1, SLOTS))
    def evict(self, wanted: int) -> None:
        possible = self.tree.evictable_count
        before = self.tree_slots()
        freed = self.tree.evict(wanted)
        gone = before - self.tree_slots()
        assert freed == len(gone) >= min(wanted, possible)
        self.naive.forget(gone)

    @rule()
    def flush(self) -> None:
        self.tree.flush()
        self.naive.forget(set(self.naive.slots.values()) - self.tree_slots())

    @invariant()
    def agree(self) -> None:
        self.tree.check([match.node for match in self.held])
        assert self.tree_slots() == set(self.naive.slots.values())
        assert self.allocator.free_count + self.tree.evictable_count + self.tree.locked_count == SLOTS
        for match in self.held:  # a locked prefix is never lost
            assert set(match.slots.tolist()) <= self.tree_slots()


RadixAgainstNaive.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRadixAgainstNaive = RadixAgainstNaive.TestCase


def filled(*tokens: list[int]) -> RadixCache:
    allocator = SlotAllocator(100)
    tree = RadixCache(allocator)
    for each in tokens:
        known = tree.match(ids(each)).slots
        fresh = allocator.allocate(len(each) - len(known))
        assert fresh is not None
        tree.insert(ids(each), np.concatenate((known, fresh)))
    return tree


def test_least_recently_used_leaf_goes_first() -> None:
    tree = filled([1, 2, 3], [1, 2, 4], [5, 6])
    tree.match(ids([1, 2, 3]))  # now [4] is older than [3] and [5, 6] in between
    assert tree.evict(1) == 1 and tree.match_length(ids([1, 2, 4])) == 2
    assert tree.evict(1) == 2 and tree.match_length(ids([5, 6])) == 0
    assert tree.match_length(ids([1, 2, 3])) == 3


def test_locked_prefixes_survive_eviction_and_flush() -> None:
    tree = filled([1, 2, 3, 4], [1, 2, 5])
    held = tree.match(ids([1, 2, 3]))
    tree.lock(held.node)
    assert tree.flush() == 2  # [4] and [5]
    assert tree.match(ids([1, 2, 3, 4])).slots.tolist() == held.slots.tolist()
    tree.unlock(held.node)
    assert tree.flush() == 3


def test_namespaces_share_nothing() -> None:
    tree = filled([1, 2, 3])
    assert tree.match_length(ids([1, 2, 3]), "tenant") == 0
