"""Walks over a vocabulary that find what one frame does to it."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

import numpy as np

from sgl_like.runtime.constrain.pushdown import bits, native_walk, walk
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
    natives_of,
    without,
)
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.tables import State, Tables
from sgl_like.runtime.constrain.pushdown.texts import Texts
from sgl_like.runtime.constrain.vocabulary import Vocabulary

NOWHERE: Ints = np.zeros((0, 2), dtype=np.int32)


class Scratch:
    """Arrays that walks over a vocabulary write to; one walk at a time."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        trie = vocabulary.trie
        self.path = np.zeros((trie.longest + 2, 2), dtype=np.int32)
        self.listed = np.zeros(vocabulary.size, dtype=np.int32)
        self.found = np.zeros((len(trie.tokens), 2), dtype=np.int32)
        self.exits = np.zeros((len(trie.byte) + 1, 4), dtype=np.int32)
        self.natives = np.zeros((len(trie.byte) + 1, 4), dtype=np.int32)


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
        self._out = np.zeros(vocabulary.words, dtype=np.uint32)
        self._nothing = np.zeros(vocabulary.words, dtype=np.uint32)
        self._ignored = np.zeros_like(self._nothing)
        self._common: dict[int, list[Words]] = {}
        self._profiles: dict[tuple[int, int], tuple[Ints, Ints, Ints]] = {}
        self.nbytes = 0

    @abstractmethod
    def _inner(self, state: State) -> Fragment:
        """What a frame does to the whole vocabulary."""

    def _native(self, frame: Frame, parts: Parts) -> tuple[tuple[End, ...], tuple[Native, ...]]:
        """Walk parts of the trie with a frame that has no row, adding to the mask."""
        if isinstance(frame, Texts):
            return self._texts(frame, parts), ()
        assert isinstance(frame, Counted)
        return self._counted(frame, parts)

    def _texts(self, frame: Texts, parts: Parts) -> tuple[End, ...]:
        found = self._descend(frame, 1, parts, self._out)
        if frame.other is None:
            return ends_of(found)
        barred = self._descend(frame, 0, parts, self._ignored)
        other = self.tables.state(frame.other)
        if parts is self._whole:
            others = self._inner(other).ends
        else:
            others, natives = self._walk(other.number, walk.BARRIER, parts)
            assert not natives, "a frame beside texts has no children"
        places = np.sort(np.concatenate([found[:, 3], barred[:, 3]]))
        kept = (without(end, end.result, places, NOWHERE) for end in others)
        return (*ends_of(found), *kept)

    def _descend(self, frame: Texts, allowed: int, parts: Parts, out: Words) -> Ints:
        """Set the bits of proper prefixes of texts; (first node, node after, result, node) where texts end."""
        table, tables = frame.table, self.tables
        if frame.read or frame.high - frame.low < len(table.texts):
            count = self._descend_to(frame, allowed, parts, out, NOWHERE)
            found = self._exits[:count].copy()
        else:  # the same texts in many frames, of which each allows others
            known = parts.descents.get(table)
            if known is None:
                known = parts.descents[table] = self._descents(frame, parts)
            tokens, exits = known
            chosen = frame.chosen == allowed
            if out is not self._ignored:
                bits.add_tokens(np.ascontiguousarray(tokens[chosen[tokens[:, 0]], 1]), out)
            found = exits[chosen[exits[:, 2]]]
        found[:, 2] = [tables.result(table.results[i]) for i in found[:, 2].tolist()]
        return found

    def _descents(self, frame: Texts, parts: Parts) -> tuple[Ints, Ints]:
        """(text, token) for all proper prefixes of all texts of a table, and where the texts end."""
        whole = Texts(frame.table, frame.low, frame.high, 0, frame.table.everything, None)
        self.tables.progress[walk.NATIVES] = 0
        count = self._descend_to(whole, 1, parts, self._out, self._found)
        size = int(self.tables.progress[walk.NATIVES])
        self.nbytes += 8 * size + 16 * count
        return self._found[:size].copy(), self._exits[:count].copy()

    def _descend_to(self, frame: Texts, allowed: int, parts: Parts, out: Words, found: Ints) -> int:
        trie = self.vocabulary.trie
        return int(
            native_walk.descend(
                *frame.table.joined, frame.low, frame.read, frame.chosen, allowed, trie.byte, trie.end, trie.first,
                trie.tokens, parts.rows, self._path, out, self._exits, found, self.tables.progress,
            )
        )  # fmt: skip

    def _counted(self, frame: Counted, parts: Parts) -> tuple[tuple[End, ...], tuple[Native, ...]]:
        tables = self.tables
        if parts is self._whole and frame.at is frame.loop:
            tokens, counts, exits = self._profile(frame)
            bits.add_tokens(tokens[: np.searchsorted(counts, frame.high, side="right")], self._out)
        else:
            found, exits = self._count(frame, parts, frame.high)
            bits.add_tokens(np.ascontiguousarray(found[:, 0]), self._out)
        wanted = exits[(exits[:, 2] >= frame.low) & (exits[:, 2] <= frame.high)]
        if not len(wanted):
            return (), ()
        rest, tail = Parts(np.ascontiguousarray(wanted[:, :2])), tables.state(frame.after())
        if tail.frame.native:
            return self._native(tail.frame, rest)
        return self._walk(tail.number, walk.BARRIER, rest)

    def _profile(self, frame: Counted) -> tuple[Ints, Ints, Ints]:
        """Tokens within a loop by the number of items that they need, these numbers, and where items end."""
        key = self.tables.state(frame.loop).number, self.tables.state(frame.after()).number
        known = self._profiles.get(key)
        if known is None:
            found, exits = self._count(frame, self._whole, 1 << 30)
            found = found[np.argsort(found[:, 1], kind="stable")]
            known = np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1]), exits
            self._profiles[key] = known
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
                self._path, self._found, self._exits,
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
        progress[walk.PART], progress[walk.NODE], progress[walk.EXITS], progress[walk.NATIVES] = 0, -1, 0, 0
        while True:
            status = walk.walk(
                *tables.arrays, state, below, *self._trie, parts.rows, self._path, self._out, self._exits,
                self._natives,
            )  # fmt: skip
            if status == walk.ALIVE:
                break
            tables.provide(status)
        return ends_of(self._exits[: progress[walk.EXITS]]), natives_of(
            self._natives[: progress[walk.NATIVES]]
        )

    def _taken(self, base: Words, few: int) -> tuple[Words, Ints]:
        """The mask that was found, beside `base`, as a common mask and at most `few` tokens besides; clears it."""
        listed = self._listed[:few]
        count = int(bits.take_tokens(self._out, base, listed))
        if count <= len(listed):
            more = listed[:count].copy()
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
