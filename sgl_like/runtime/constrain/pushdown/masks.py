"""Masks of configurations: put together from fragments, each of which is walked once for a vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.pushdown import bits, native_walk, walk
from sgl_like.runtime.constrain.pushdown.arrays import Gate
from sgl_like.runtime.constrain.pushdown.closed import close
from sgl_like.runtime.constrain.pushdown.expressions import Counted, Scalar
from sgl_like.runtime.constrain.pushdown.fragments import (
    NONE,
    End,
    Fragment,
    Ints,
    Native,
    Parts,
    Words,
    few_ends,
    without,
)
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.tables import State
from sgl_like.runtime.constrain.pushdown.texts import Texts
from sgl_like.runtime.constrain.pushdown.unique import nodes_of
from sgl_like.runtime.constrain.pushdown.values import Start
from sgl_like.runtime.constrain.pushdown.walker import NOWHERE, Scratch, Walker

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack

_FEW = 512  # tokens that are listed rather than kept as a mask of their own
_FEW_NODES = 2048  # of the trie, that are sooner walked than put together
_MANY_ROWS = 32  # parts of which it is worth remembering what follows
_FRAGMENT_BYTES = 500


class Masks(Walker):
    """Finds the masks of a machine's configurations. Used under the machine's lock."""

    def __init__(self, machine: Machine, scratch: Scratch) -> None:
        super().__init__(machine.tables, machine.vocabulary, scratch)
        self._machine = machine
        self._stack: Stack | None = None

    def find(self, stack: Stack) -> tuple[Words, Ints]:
        """The mask of a configuration: a common mask and tokens besides.

        Raises:
            ConstraintError: no token can come.
        """
        self._stack = stack
        eos = self.vocabulary.eos_token_ids
        try:
            base = self._start(stack)
            if self._machine.accepting(stack):
                self._out |= self.vocabulary.eos_mask
            base, more = self._taken(base, _FEW)
        except BaseException:
            self._out[:] = 0
            raise
        if stack.items and stack.items[-1].node == stack.below and base is self._nothing:
            # the item is a scalar of which there are few: perhaps no other can come
            kept = [t for t in more.tolist() if self._machine.step(stack, t) is not None or t in eos]
            more = np.array(kept, dtype=np.int32)
        if not len(more) and not base.any():
            raise ConstraintError("no token of the vocabulary can continue the output")
        return base, more

    # -- putting together --------------------------------------------------------------------------------------

    def _start(self, stack: Stack) -> Words:
        """Add the mask of a configuration; all but a common mask, which it returns."""
        frame = stack.state.frame
        if isinstance(frame, Texts):
            return self._texts(frame, stack.below, self._whole, False)
        inner = self._inner(stack.state)
        self._follow(inner.ends, inner.natives, stack.below, remember=stack.items is None)
        bits.add_tokens(inner.more, self._out)
        return inner.base

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
            if parts.size <= _FEW_NODES:
                self._go_on_after(result, base, parts.rows, nodes, gated)
                continue
            after = tables.after(base, result)
            if after is None:
                continue
            self._go_on_after(result, base, NOWHERE, nodes, gated)
            if not remember or len(parts) < _MANY_ROWS:
                self._go_on(*after, parts, gated)
                continue
            known = parts.followed.get(after)
            if known is None:
                with self._beside():
                    self._go_on(*after, parts, gated)
                    known = self._taken(self._nothing, len(self._listed))[1]
                parts.followed[after] = known
                self.nbytes += _FRAGMENT_BYTES
            bits.add_tokens(known, self._out)
        for state, below, parts in natives:
            self._go_on(state, tables.rebase(below, base), parts, gated)

    def _go_on_after(self, result: int, below: int, rows: Ints, nodes: Ints, gated: bool) -> None:
        """Add what can be read over some rows, and the tokens of some nodes, when the frame above a stack node has
        ended.
        """
        for state, under, parts in self._walk_after(result, below, rows, nodes):
            self._go_on(state, under, parts, gated)

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
        if isinstance(frame, Texts):
            self._add_base(self._texts(frame, below, parts, gated))
            return
        if parts.size <= _FEW_NODES and not frame.native:
            self._follow(*self._walk(state, below, parts), walk.BARRIER, gated)
            return
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

    def _texts(self, frame: Texts, below: int, parts: Parts, gated: bool) -> Words:
        """Add what can be read over some parts from texts on a stack node; all but a common mask, which it returns."""
        tables, table = self.tables, frame.table
        base = self._nothing
        ends: tuple[End, ...] = ()
        if frame.other is not None:
            other = tables.state(frame.other)
            beside = (
                self._inner(other)
                if parts is self._whole
                else self._segment(other.number, walk.BARRIER, parts)
            )
            assert not beside.natives, "a frame beside texts has no children"
            base, ends = beside.base, beside.ends
            if len(beside.more):
                bits.add_tokens(beside.more, self._out)
        exits = self._descend(frame, parts)
        if not exits:
            self._follow(ends, (), below, gated)
            return base
        gone = np.array(sorted(node for _, _, _, node in exits), dtype=np.int32)
        for end in ends:
            rows, nodes = native_walk.apart(end.parts.rows, end.nodes, gone)
            self._go_on_after(end.result, below, rows, nodes, gated)
        mine = [
            [first, stop, tables.result(table.results[text]), node]
            for first, stop, text, node in exits
            if text >= 0
        ]
        self._follow(few_ends(mine), (), below, gated)
        return base

    def _add(self, found: Fragment, base: int, gated: bool) -> None:
        """Add a fragment that stands on the stack node `base`, and what comes after it."""
        self._add_base(found.base)
        if len(found.more):
            bits.add_tokens(found.more, self._out)
        self._follow(found.ends, found.natives, base, gated)

    def _segment(self, state: int, local: int, parts: Parts) -> Fragment:
        key = (state, local)
        found = parts.segments.get(key)
        if found is None:
            with self._beside():
                frame = self.tables.frame(state)
                if isinstance(frame, Counted):
                    assert local == walk.BARRIER
                    ends, natives = self._counted(frame, parts)
                else:
                    ends, natives = self._walk(state, local, parts)
                found = self._fragment(self._nothing, ends, natives)
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
                if self._machine.step(stack, token) is not None:
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
        with self._beside():
            natives: tuple[Native, ...] = ()
            if under is not None:
                base = under.base
                bits.add_tokens(under.more, self._out)
            if isinstance(frame, Counted):
                ends, natives = self._counted(frame, self._whole)
            elif under is not None:
                assert isinstance(frame, Scalar)
                base, ends = self._narrowed(frame, under)
            else:
                if isinstance(frame, Scalar):
                    close(self.tables, state.number)
                ends, natives = self._walk(state.number, walk.BARRIER, self._whole)
            return self._fragment(base, ends, natives)

    def _under(self, frame: Frame) -> Fragment | None:
        """What another frame does from which this one differs little, if there is one."""
        if isinstance(frame, Scalar) and (wider := frame.wider) is not None:
            under = self._inner(self.tables.state(wider))
            if (
                not under.natives
                and len(under.ends) < 2
                and all(len(e.nodes) >= len(e.parts) for e in under.ends)
            ):
                return under
        return None

    def _fragment(self, base: Words, ends: tuple[End, ...], natives: tuple[Native, ...]) -> Fragment:
        self.nbytes += _FRAGMENT_BYTES + sum(end.parts.rows.nbytes + end.nodes.nbytes for end in ends)
        return Fragment(*self._taken(base, _FEW), ends, natives)

    def _narrowed(self, frame: Scalar, under: Fragment) -> tuple[Words, tuple[End, ...]]:
        """The base and the ends of a frame beside those of a wider one: walked only where the two may differ."""
        tables, progress = self.tables, self.tables.progress
        number = tables.state(frame).number
        close(tables, number)
        progress[walk.SKIP] = walk.WALK_OPEN if frame.watch else walk.WALK_OPEN_NOTE_DEAD
        try:
            ends, natives = self._walk(number, walk.BARRIER, self._whole)
        finally:
            progress[walk.SKIP] = walk.WALK_ALL
        dead = [each.parts.rows for each in natives if each.state == walk.DEAD]
        gone = dead[0] if dead else NOWHERE
        base = self._lessened(under.base, gone)
        result = tables.result((False,) * len(frame.watch))
        places = np.sort(np.concatenate([end.nodes for end in ends] or [NONE]))
        return base, (*ends, *(without(end, result, places, gone) for end in under.ends))

    def _lessened(self, base: Words, gone: Ints) -> Words:
        """The base of the mask that is being found, when it must not have the tokens of some ranges of trie nodes."""
        trie = self.vocabulary.trie
        ranges = np.ascontiguousarray(trie.first[gone])
        if not any(bits.has_tokens(trie.tokens, ranges, each) for each in (base, self._out)):
            return base
        self._out |= base
        bits.drop_tokens(trie.tokens, ranges, self._out)
        return self._nothing
