"""Walks over a vocabulary that find what one frame does to it."""

from __future__ import annotations

import math
import mmap
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from sgl_like.runtime.constrain.pushdown import bits, closed, native_walk, walk
from sgl_like.runtime.constrain.pushdown.expressions import Counted
from sgl_like.runtime.constrain.pushdown.fragments import (
    NONE,
    End,
    Fragment,
    Ints,
    Native,
    Parts,
    Words,
    ends_of,
)
from sgl_like.runtime.constrain.pushdown.tables import Tables
from sgl_like.runtime.constrain.pushdown.texts import Texts
from sgl_like.runtime.constrain.vocabulary import Vocabulary

NOWHERE: Ints = np.zeros((0, 2), dtype=np.int32)
_PARTS_BYTES = 700
_MANY_TEXTS = 64  # of which it is worth remembering where they are


class Scratch:
    """Arrays that walks over a vocabulary write to; one walk at a time. Few walks get far into the long ones."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        trie = vocabulary.trie
        self.path = np.zeros((trie.longest + 2, 2), dtype=np.int32)
        self.listed = _untouched(vocabulary.size)
        self.found = _untouched(len(trie.tokens), 2)
        self.exits = _untouched(len(trie.byte) + 1, 4)
        self.natives = _untouched(len(trie.byte) + 1, 4)
        self.groups = closed.subtree_groups(trie)


def _untouched(*shape: int) -> Ints:
    """Zeros that take no memory until they are written to, page by page: `np.zeros` may reuse what was freed."""
    return np.frombuffer(mmap.mmap(-1, 4 * math.prod(shape)), dtype=np.int32).reshape(shape)


class Walker(ABC):
    """Walks with the frames of a machine, and the mask that is being found: each walk adds to it."""

    def __init__(self, tables: Tables, vocabulary: Vocabulary, scratch: Scratch) -> None:
        self.tables = tables
        self.vocabulary = vocabulary
        trie = vocabulary.trie
        self._trie = (trie.byte, trie.depth, trie.end, trie.first, trie.tokens)
        self._whole = Parts(np.array([[0, len(trie.byte)]], dtype=np.int32))
        self._path, self._listed, self._found = scratch.path, scratch.listed, scratch.found
        self._exits, self._natives = scratch.exits, scratch.natives
        self._groups = scratch.groups
        self._out = np.zeros(vocabulary.words, dtype=np.uint32)
        self._nothing = np.zeros(vocabulary.words, dtype=np.uint32)
        self._spare: list[Words] = []  # zeros
        self._common: dict[int, list[Words]] = {}
        self._begin = np.array([0, -1, 0, 0], dtype=np.int64)  # PART, NODE, EXITS, NATIVES
        self._known_parts: dict[bytes, Parts] = {}
        self._profiles: dict[tuple[int, int], tuple[Ints, Ints, Ints]] = {}
        self.nbytes = 0

    @abstractmethod
    def _segment(self, state: int, local: int, parts: Parts) -> Fragment:
        """What a frame on a stack node on the barrier does to some parts of the trie."""

    def _descend(self, frame: Texts, parts: Parts) -> list[list[int]]:
        """Add proper prefixes of texts; (first node, node after, text or ~ a barred text, node) where texts end."""
        table, barred = frame.table, frame.other is not None
        if frame.read or frame.high - frame.low < max(len(table.texts), _MANY_TEXTS):
            count = self._descend_to(frame, barred, parts, NOWHERE)
            return self._exits[:count].tolist() if count else []
        # the same texts in many frames, of which each allows others
        known = parts.descents.get(table)
        if known is None:
            known = parts.descents[table] = self._descents(frame, parts)
        tokens, exits = known
        chosen = frame.chosen
        bits.add_tokens(np.ascontiguousarray(tokens[chosen[tokens[:, 0]] > 0, 1]), self._out)
        texts = exits[:, 2]
        return [
            [first, stop, text if allowed else ~text, node]
            for (first, stop, text, node), allowed in zip(exits.tolist(), chosen[texts].tolist(), strict=True)
            if allowed or barred
        ]

    def _descents(self, frame: Texts, parts: Parts) -> tuple[Ints, Ints]:
        """(text, token) for all proper prefixes of all texts of a table, and where the texts end."""
        whole = Texts(frame.table, frame.low, frame.high, 0, frame.table.everything, None)
        self.tables.progress[walk.NATIVES] = 0
        count = self._descend_to(whole, False, parts, self._found)
        size = int(self.tables.progress[walk.NATIVES])
        self.nbytes += 8 * size + 16 * count
        return self._found[:size].copy(), self._exits[:count].copy()

    def _descend_to(self, frame: Texts, barred: bool, parts: Parts, found: Ints) -> int:
        byte, _, end, first, tokens = self._trie
        return int(
            native_walk.descend(
                *frame.table.joined, frame.low, frame.read, frame.chosen, barred, byte, end, first, tokens,
                parts.rows, self._path, self._out, self._exits, found, self.tables.progress,
            )
        )  # fmt: skip

    def _counted(self, frame: Counted, parts: Parts) -> tuple[tuple[End, ...], tuple[Native, ...]]:
        tables = self.tables
        if parts is self._whole and frame.at is frame.loop:
            tokens, counts, exits = self._profile(frame)
            if frame.high >= 0:
                bits.add_tokens(tokens[: counts[min(frame.high, len(counts) - 1)]], self._out)
        else:
            found, exits = self._count(frame, parts, frame.high)
            bits.add_tokens(np.ascontiguousarray(found[:, 0]), self._out)
        wanted = exits[(exits[:, 2] >= frame.low) & (exits[:, 2] <= frame.high)]
        if not len(wanted):
            return (), ()
        rest, tail = self._parts(np.ascontiguousarray(wanted[:, :2])), tables.state(frame.after())
        if isinstance(tail.frame, Counted):
            return self._counted(tail.frame, rest)
        after = self._segment(tail.number, walk.BARRIER, rest)
        self._add_base(after.base)
        bits.add_tokens(after.more, self._out)
        return after.ends, after.natives

    def _profile(self, frame: Counted) -> tuple[Ints, Ints, Ints]:
        """Tokens within a loop by the number of items that they need, how many need up to 0, 1, ... items, and where
        items end.
        """
        key = self.tables.state(frame.loop).number, self.tables.state(frame.after()).number
        known = self._profiles.get(key)
        if known is None:
            closed.close(self.tables, key[0])
            found, exits = self._count(frame, self._whole, 1 << 30)
            known = self._profiles[key] = *bits.by_need(found), exits
            self.nbytes += sum(each.nbytes for each in known)
        return known

    def _count(self, frame: Counted, parts: Parts, high: int) -> tuple[Ints, Ints]:
        """See `native_walk.count_walk`: what it found, and where items end."""
        tables, progress = self.tables, self.tables.progress
        loop, at = tables.state(frame.loop).number, tables.state(frame.at).number
        begun = at != loop  # then the item counts as one here, and has been counted before
        progress[walk.PART], progress[walk.NODE], progress[walk.EXITS], progress[walk.NATIVES] = 0, -1, 0, 0
        while True:
            status = native_walk.count_walk(
                tables.table, tables.rows, loop, frame.leaves, at, 0, high + begun, progress, *self._trie, parts.rows,
                self._path, self._found, self._exits, tables.closed[loop], self._groups,
            )  # fmt: skip
            if status == walk.ALIVE:
                break
            tables.provide(status)
        found, exits = (
            self._found[: progress[walk.NATIVES]].copy(),
            self._exits[: progress[walk.EXITS]].copy(),
        )
        found[:, 1] -= begun
        exits[:, 2] -= begun
        return found, exits

    def _walk(self, state: int, below: int, parts: Parts) -> tuple[tuple[End, ...], tuple[Native, ...]]:
        """Walk parts of the trie from a configuration, adding to the mask."""
        tables, progress = self.tables, self.tables.progress
        progress[: walk.NODES] = self._begin
        while True:
            status = walk.walk(
                *tables.arrays, tables.closed, state, below, *self._trie, self._groups, parts.rows, self._path,
                self._out, self._exits, self._natives,
            )  # fmt: skip
            if status == walk.ALIVE:
                break
            tables.provide(status)
        return ends_of(self._exits[: progress.item(walk.EXITS)]), self._noted()

    def _walk_after(self, result: int, below: int, parts: Ints, nodes: Ints) -> tuple[Native, ...]:
        """Walk parts of the trie from where the frame above a stack node has ended, adding to the mask."""
        tables, progress = self.tables, self.tables.progress
        progress[: walk.NODES] = self._begin
        while True:
            status = walk.follow(
                *tables.arrays, tables.closed, result, below, *self._trie, self._groups, parts, nodes, self._path,
                self._out, self._exits, self._natives,
            )  # fmt: skip
            if status <= walk.DEAD_END:
                return self._noted()
            tables.provide(status)

    def _noted(self) -> tuple[Native, ...]:
        """The natives that a walk has noted. Equal parts are one object, with what is known of them."""
        count = self.tables.progress.item(walk.NATIVES)
        if not count:
            return ()
        groups: dict[tuple[int, int], list[list[int]]] = {}
        for first, stop, state, below in self._natives[:count].tolist():
            groups.setdefault((state, below), []).append([first, stop])
        return tuple(
            Native(*key, self._parts(np.array(rows, dtype=np.int32))) for key, rows in groups.items()
        )

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """For finding something beside the mask that is being found; `_taken` ends it."""
        kept, self._out = self._out, self._spare.pop() if self._spare else np.zeros_like(self._nothing)
        try:
            yield
            self._spare.append(self._out)
        finally:
            self._out = kept

    def _add_base(self, base: Words) -> None:
        if base is not self._nothing:
            self._out |= base

    def _parts(self, rows: Ints) -> Parts:
        key = rows.tobytes()
        found = self._known_parts.get(key)
        if found is None:
            found = self._known_parts[key] = Parts(rows)
            self.nbytes += _PARTS_BYTES + 2 * rows.nbytes
        return found

    def _taken(self, base: Words, few: int) -> tuple[Words, Ints]:
        """The mask that was found, beside `base`, as a common mask and at most `few` tokens besides; clears it."""
        listed = self._listed[:few]
        count = int(bits.take_tokens(self._out, base, listed))
        if count <= len(listed):
            more = listed[:count].copy() if count else NONE
            self.nbytes += more.nbytes
            return base, more
        mask = self._out | base
        self._out[:] = 0
        same = self._common.setdefault(zlib.crc32(mask.data), [])
        for known in same:
            if np.array_equal(known, mask):
                return known, NONE
        same.append(mask)
        self.nbytes += mask.nbytes
        return mask, NONE
