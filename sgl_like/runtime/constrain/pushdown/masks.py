"""Masks of configurations: put together from fragments, each of which is walked once for a vocabulary."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.pushdown import walk
from sgl_like.runtime.constrain.pushdown.arrays import Gate
from sgl_like.runtime.constrain.pushdown.expressions import Counted, Scalar
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
from sgl_like.runtime.constrain.pushdown.tables import State
from sgl_like.runtime.constrain.pushdown.texts import Texts
from sgl_like.runtime.constrain.pushdown.unique import nodes_of
from sgl_like.runtime.constrain.pushdown.values import Start
from sgl_like.runtime.constrain.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack

_FEW = 512  # tokens that are listed rather than kept as a mask of their own
_MANY_ROWS = 32  # parts of which it is worth remembering what follows
_FRAGMENT_BYTES = 500
_NOWHERE = np.zeros((0, 2), dtype=np.int32)
_NOTHING_FOUND = np.zeros((0, 2), dtype=np.int32)


class Scratch:
    """Arrays that walks over a vocabulary write to; one walk at a time."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        trie = vocabulary.trie
        self.path = np.zeros((trie.longest + 2, 2), dtype=np.int32)
        self.listed = np.zeros(len(trie.tokens), dtype=np.int32)
        self.found = np.zeros((len(trie.tokens), 2), dtype=np.int32)
        self.exits = np.zeros((len(trie.byte) + 1, 4), dtype=np.int32)
        self.natives = np.zeros((len(trie.byte) + 1, 4), dtype=np.int32)


class Masks:
    """Finds the masks of a machine's configurations. Used under the machine's lock."""

    def __init__(self, machine: Machine, scratch: Scratch) -> None:
        self.machine = machine
        self.tables = machine.tables
        self.vocabulary = machine.vocabulary
        trie = self.vocabulary.trie
        self._trie = (trie.byte, trie.depth, trie.end, trie.first, trie.tokens)
        self._whole = Parts(np.array([[0, len(trie.byte)]], dtype=np.int32))
        self._path, self._listed, self._found = scratch.path, scratch.listed, scratch.found
        self._exits, self._natives = scratch.exits, scratch.natives
        self._out = np.zeros(self.vocabulary.words, dtype=np.uint32)
        self._nothing = np.zeros(self.vocabulary.words, dtype=np.uint32)
        self._ignored = np.zeros_like(self._nothing)
        self._common: dict[int, list[Words]] = {}
        self._profiles: dict[tuple[int, int], tuple[Ints, Ints, Ints]] = {}
        self._stack: Stack | None = None
        self.nbytes = 0

    def find(self, stack: Stack) -> tuple[Words, Ints]:
        """The mask of a configuration: a common mask and tokens besides.

        Raises:
            ConstraintError: no token can come.
        """
        self._stack = stack
        eos = self.vocabulary.eos_token_ids
        try:
            inner = self._inner(stack.state)
            self._follow(inner.ends, inner.natives, stack.below, remember=stack.items is None)
            walk.add_tokens(inner.more, self._out)
            if self.machine.accepting(stack):
                self._out |= self.vocabulary.eos_mask
            base, more = self._taken(inner.base, _FEW)
        except BaseException:
            self._out[:] = 0
            raise
        if stack.items and stack.items[-1].node == stack.below and base is self._nothing:
            # the item is a scalar of which there are few: perhaps no other can come
            kept = [t for t in more.tolist() if self.machine.step(stack, t) is not None or t in eos]
            more = np.array(kept, dtype=np.int32)
        if not len(more) and not base.any():
            raise ConstraintError("no token of the vocabulary can continue the output")
        return base, more

    # -- putting together --------------------------------------------------------------------------------------

    def _follow(
        self,
        ends: tuple[End, ...],
        natives: tuple[Native, ...],
        base: int,
        gated: bool = False,
        remember: bool = False,
    ) -> None:
        """Add what comes after the ends of a fragment that stands on the stack node `base`.

        Args:
            ends: its ends.
            natives: its natives.
            base: the stack node.
            gated: whether a `Gate` was passed within the token.
            remember: whether to keep what comes after many parts.
        """
        tables = self.tables
        for result, parts, nodes in ends:
            after = tables.after(base, result)
            if after is None:
                continue
            if len(nodes):
                walk.add_nodes(nodes, self._trie[3], self._trie[4], self._out)
            if not len(parts):
                continue
            if not remember or len(parts) < _MANY_ROWS:
                self._go_on(*after, parts, gated)
                continue
            known = parts.followed.get(after)
            if known is None:
                kept, self._out = self._out, np.zeros_like(self._out)
                try:
                    self._go_on(*after, parts, gated)
                    known = self._taken(self._nothing, len(self._listed))[1]
                finally:
                    self._out = kept
                parts.followed[after] = known
                self.nbytes += _FRAGMENT_BYTES
            walk.add_tokens(known, self._out)
        for state, below, parts in natives:
            self._go_on(state, tables.rebase(below, base), parts, gated)

    def _go_on(self, state: int, below: int, parts: Parts, gated: bool) -> None:
        """Add what can be read over some parts from a configuration."""
        tables = self.tables
        frame = tables.frame(state)
        if isinstance(frame, Gate):
            if gated or self._is_open(below):
                self._try(parts)
                return
            gated, frame = True, frame.value
            state = tables.state(frame).number
        if isinstance(frame, Start):
            deeper = parts.deeper(self.vocabulary.trie.depth)
            if deeper is not parts:  # no value begins with first bytes that `parts` lack
                self._add(self._inner(tables.state(frame)), below, gated)
                if not len(deeper):
                    return
                parts = deeper
        local = walk.BARRIER
        if below != walk.BARRIER:
            waiting, under = tables.nodes[below].tolist()
            if isinstance(tables.frame(waiting), Start):  # it is no more of the schema than its value is
                local, below = tables.node(waiting, walk.BARRIER), under
        self._add(self._segment(state, local, parts), below, gated)

    def _add(self, found: Fragment, base: int, gated: bool) -> None:
        """Add a fragment that stands on the stack node `base`, and what comes after it."""
        self._out |= found.base
        if len(found.more):
            walk.add_tokens(found.more, self._out)
        self._follow(found.ends, found.natives, base, gated)

    def _segment(self, state: int, local: int, parts: Parts) -> Fragment:
        key = (state, local)
        found = parts.segments.get(key)
        if found is None:
            kept, self._out = self._out, np.zeros_like(self._out)
            try:
                frame = self.tables.frame(state)
                if frame.native:
                    assert local == walk.BARRIER
                    ends, natives = self._native(frame, parts)
                else:
                    ends, natives = self._walk(state, local, parts)
                found = self._fragment(self._nothing, ends, natives)
            finally:
                self._out = kept
            parts.segments[key] = found
        return found

    def _is_open(self, node: int) -> bool:
        """Whether an item of the array above a stack node was open before the token."""
        stack = self._stack
        assert stack is not None
        depth = len(nodes_of(self.tables, node)) - 1
        return any(each.depth == depth for each in stack.items or ())

    def _try(self, parts: Parts) -> None:
        """Add the tokens of parts of the trie that can be read from the stack whose mask this is."""
        trie, stack = self.vocabulary.trie, self._stack
        assert stack is not None
        for first, stop in parts.rows.tolist():
            for token in trie.tokens[trie.first[first] : trie.first[stop]].tolist():
                if self.machine.step(stack, token) is not None:
                    self._out[token >> 5] |= np.uint32(1 << (token & 31))

    # -- fragments ---------------------------------------------------------------------------------------------

    def _inner(self, state: State) -> Fragment:
        """What a frame does to the whole vocabulary."""
        if isinstance(state.frame, Gate):
            state = self.tables.state(state.frame.value)
        found: Fragment | None = state.inner
        if found is None:
            core = state.frame.core(self.vocabulary.trie.longest)
            shared = state if core is state.frame else self.tables.state(core)
            found = state.inner = shared.inner = shared.inner or self._find_inner(shared)
        return found

    def _find_inner(self, state: State) -> Fragment:
        base, frame, under = self._nothing, state.frame, self._under(state.frame)
        kept, self._out = self._out, np.zeros_like(self._out)
        try:
            natives: tuple[Native, ...] = ()
            if under is not None:
                base = under.base
                walk.add_tokens(under.more, self._out)
            if frame.native:
                ends, natives = self._native(frame, self._whole)
            elif under is not None:
                assert isinstance(frame, Scalar)
                base, ends = self._narrowed(frame, under)
            else:
                ends, natives = self._walk(state.number, walk.BARRIER, self._whole)
            return self._fragment(base, ends, natives)
        finally:
            self._out = kept

    def _under(self, frame: Frame) -> Fragment | None:
        """What another frame does from which this one differs little, if there is one."""
        if isinstance(frame, Texts) and frame.other is not None:
            return self._inner(self.tables.state(frame.other))
        if isinstance(frame, Scalar) and (wider := frame.wider) is not None:
            under = self._inner(self.tables.state(wider))
            if not under.natives and len(under.ends) < 2 and all(len(e.nodes) >= len(e.parts) for e in under.ends):
                return under
        return None

    def _fragment(self, base: Words, ends: tuple[End, ...], natives: tuple[Native, ...]) -> Fragment:
        self.nbytes += _FRAGMENT_BYTES + sum(end.parts.rows.nbytes + end.nodes.nbytes for end in ends)
        return Fragment(*self._taken(base, _FEW), ends, natives)

    def _narrowed(self, frame: Scalar, under: Fragment) -> tuple[Words, tuple[End, ...]]:
        """The base and the ends of a frame beside those of a wider one: walked only where the two may differ."""
        tables, progress = self.tables, self.tables.progress
        progress[walk.SKIP] = walk.WALK_OPEN if frame.watch else walk.WALK_OPEN_NOTE_DEAD
        try:
            ends, natives = self._walk(tables.state(frame).number, walk.BARRIER, self._whole)
        finally:
            progress[walk.SKIP] = walk.WALK_ALL
        dead = [each.parts.rows for each in natives if each.state == walk.DEAD]
        gone = dead[0] if dead else _NOWHERE
        base = self._lessened(under.base, gone)
        result = tables.result((False,) * len(frame.watch))
        places = np.sort(np.concatenate([end.nodes for end in ends] or [NONE]))
        return base, (*ends, *(without(end, result, places, gone) for end in under.ends))

    def _lessened(self, base: Words, gone: Ints) -> Words:
        """The base of the mask that is being found, when it must not have the tokens of some ranges of trie nodes."""
        trie = self.vocabulary.trie
        ranges = [trie.tokens[trie.first[low] : trie.first[high]] for low, high in gone.tolist()]
        tokens = np.concatenate(ranges or [NONE])
        bits = np.uint32(1) << (tokens & 31).astype(np.uint32)
        if not ((base | self._out)[tokens >> 5] & bits).any():
            return base
        self._out |= base
        np.bitwise_and.at(self._out, tokens >> 5, ~bits)
        return self._nothing

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
        kept = (without(end, end.result, places, _NOWHERE) for end in others)
        return (*ends_of(found), *kept)

    def _descend(self, frame: Texts, allowed: int, parts: Parts, out: Words) -> Ints:
        """Set the bits of proper prefixes of texts; (first node, node after, result, node) where texts end."""
        table, tables = frame.table, self.tables
        if frame.read or frame.high - frame.low < len(table.texts):
            count = self._descend_to(frame, allowed, parts, out, _NOTHING_FOUND)
            found = self._exits[:count].copy()
        else:  # the same texts in many frames, of which each allows others
            known = parts.descents.get(table)
            if known is None:
                known = parts.descents[table] = self._descents(frame, parts)
            tokens, exits = known
            chosen = frame.chosen == allowed
            if out is not self._ignored:
                walk.add_tokens(np.ascontiguousarray(tokens[chosen[tokens[:, 0]], 1]), out)
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
            walk.descend(
                *frame.table.joined, frame.low, frame.read, frame.chosen, allowed, trie.byte, trie.end, trie.first,
                trie.tokens, parts.rows, self._path, out, self._exits, found, self.tables.progress,
            )
        )  # fmt: skip

    def _counted(self, frame: Counted, parts: Parts) -> tuple[tuple[End, ...], tuple[Native, ...]]:
        tables = self.tables
        if parts is self._whole and frame.at is frame.loop:
            tokens, counts, exits = self._profile(frame)
            walk.add_tokens(tokens[: np.searchsorted(counts, frame.high, side="right")], self._out)
        else:
            found, exits = self._count(frame, parts, frame.high)
            walk.add_tokens(np.ascontiguousarray(found[:, 0]), self._out)
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

    # -- walking -----------------------------------------------------------------------------------------------

    def _count(self, frame: Counted, parts: Parts, high: int) -> tuple[Ints, Ints]:
        """See `walk.count_walk`: what it found, and where items end."""
        tables, progress = self.tables, self.tables.progress
        loop, at = tables.state(frame.loop).number, tables.state(frame.at).number
        begun = at != loop  # then the item counts as one here, and has been counted before
        progress[walk.PART], progress[walk.NODE], progress[walk.EXITS], progress[walk.NATIVES] = 0, -1, 0, 0
        while True:
            status = walk.count_walk(
                tables.table, tables.rows, loop, frame.leaves, at, 0, high + begun, progress, *self._trie, parts.rows,
                self._path, self._found, self._exits,
            )  # fmt: skip
            if status == walk.ALIVE:
                break
            tables.provide(status)
        found, exits = self._found[: progress[walk.NATIVES]].copy(), self._exits[: progress[walk.EXITS]].copy()
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
        return ends_of(self._exits[: progress[walk.EXITS]]), natives_of(self._natives[: progress[walk.NATIVES]])

    def _taken(self, base: Words, few: int) -> tuple[Words, Ints]:
        """The mask that was found, beside `base`, as a common mask and at most `few` tokens besides; clears it."""
        count = int(walk.take_tokens(self._out, base, self._listed[:few]))
        if count <= few:
            more = self._listed[:count].copy()
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
