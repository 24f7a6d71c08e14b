"""Token masks of automaton states: computed by walking the vocabulary's trie, kept by what they depend on.

Two ways to walk less than the whole trie for each state:

* Counts beyond the longest token make no difference to a mask (`fragments.clip`), so ``x{0,9000}`` and ``x{0,8999}``
  share one.
* An expression is cut into alternatives, and each of them into a fragment and what comes after it:

      name, equals sign  |  string, semicolon  |  rules that are left then
                         |  number, semicolon  |  rules that are left then

  Which tokens stay in a fragment, and where in the trie it ends, is the same whatever comes after it. It is found
  once; then only what is below those places is walked, fragment by fragment. However deep the rules nest that are
  left, the fragments are the same few.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain import fragments
from sgl_like.runtime.constrain.automaton import Automaton, Full, State
from sgl_like.runtime.constrain.expr import EPSILON, Node
from sgl_like.runtime.constrain.trie import walk

__all__ = ["MaskCache"]

_ATTEMPTS = 4
_ALTERNATIVES = 64  # more are walked together


class Fragment:
    """What a sequence of fragments does to the vocabulary, whatever comes after it.

    Args:
        mask: uint32 [words], the tokens that end within the last fragment; None if there are none.
        begins: int32 [exits], first trie nodes below the places where the last fragment ends within a token.
        stops: int32 [exits], the nodes after those.
    """

    __slots__ = ("begins", "inner", "mask", "stops")

    def __init__(
        self, mask: NDArray[np.uint32] | None, begins: NDArray[np.int32], stops: NDArray[np.int32]
    ) -> None:
        self.mask = mask
        self.begins = begins
        self.stops = stops
        self.inner: dict[State, Fragment] = {}  # one fragment more, by its state


class _Emptied(Exception):
    """Another thread emptied the automaton meanwhile: start again."""


class MaskCache:
    """The masks of one automaton. Thread-safe."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._vocabulary = automaton.vocabulary
        trie = self._vocabulary.trie
        self._whole = Fragment(None, np.zeros(1, np.int32), np.array([len(trie.byte)], np.int32))
        self._none = np.zeros(0, np.int32)
        self._generation = -1
        self._masked: OrderedDict[State, None] = OrderedDict()  # states with a mask, oldest first
        self._fragment_bytes = 0

    @property
    def count(self) -> int:
        """Masks kept at the moment."""
        return len(self._masked)

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held."""
        return len(self._masked) * self._vocabulary.words * 4 + self._fragment_bytes

    def get(self, state: State) -> NDArray[np.int32]:
        """The packed mask of `state`, int32 [words]. Not to be written to.

        Raises ConstraintError if it is empty, ConstraintTooComplex if a limit was reached.
        """
        core = state.core
        mask = core.mask if core is not None else None
        if core is None or mask is None:
            core, mask = self._compute(state)
        core.used = True
        return mask

    def _compute(self, state: State) -> tuple[State, NDArray[np.int32]]:
        """Other threads may work, and empty the automaton, meanwhile; the last attempt keeps them out."""
        automaton = self._automaton
        deadline = monotonic() + automaton.limits.max_step_seconds
        for attempt in range(_ATTEMPTS):
            is_last = attempt == _ATTEMPTS - 1
            with automaton.lock if is_last else nullcontext():
                try:
                    return self._attempt(state, deadline)
                except _Emptied:
                    pass
                except Full:
                    if is_last:
                        raise automaton.too_many_states() from None
                    automaton.reset()
        raise AssertionError("the automaton was emptied in spite of the lock")

    def _attempt(self, state: State, deadline: float) -> tuple[State, NDArray[np.int32]]:
        automaton = self._automaton
        with automaton.work():
            core = automaton.intern(fragments.clip(automaton.pool, state.node, self._vocabulary.trie.longest))
            if state.number >= 0:
                state.core = core
            if core.mask is not None:
                return core, core.mask
            generation = automaton.generation
        out = (
            self._vocabulary.eos_mask.copy()
            if core.node.nullable
            else np.zeros_like(self._vocabulary.eos_mask)
        )
        self._add(core.node, self._whole, out, generation, deadline)
        if not out.any():
            raise ConstraintError("no token of the vocabulary can continue the output; it lacks some bytes")
        mask = out.view(np.int32)
        with automaton.lock:
            if automaton.generation == generation:
                core.mask = mask
                self._keep(core)
        return core, mask

    def _add(
        self, node: Node, place: Fragment, out: NDArray[np.uint32], generation: int, deadline: float
    ) -> None:
        """Add the tokens that `node` can go through, or end within, after `place`."""
        automaton = self._automaton
        with automaton.work():
            if automaton.generation != generation:
                raise _Emptied
            ways = fragments.alternatives(automaton.pool, node, _ALTERNATIVES)
            cuts = [
                (automaton.intern(head), tail)
                for head, tail in (fragments.split(automaton.pool, w) for w in ways)
            ]
        for first, tail in cuts:
            if tail is EPSILON:
                self._walk(first.number, place, out, self._none, generation, deadline)
                continue
            fragment = place.inner.get(first) or self._find_fragment(first, place, generation, deadline)
            if fragment.mask is not None:
                out |= fragment.mask
            if len(fragment.begins):
                self._add(tail, fragment, out, generation, deadline)

    def _find_fragment(self, state: State, place: Fragment, generation: int, deadline: float) -> Fragment:
        trie = self._vocabulary.trie
        out = np.zeros(self._vocabulary.words, np.uint32)
        exits = np.zeros(len(trie.byte), np.int32)
        found = exits[: self._walk(state.number, place, out, exits, generation, deadline)]
        fragment = Fragment(out if out.any() else None, found + 1, trie.end[found])
        with self._automaton.lock:
            if self._automaton.generation == generation:
                self._start_generation()
                if self._fragment_bytes > self._automaton.limits.max_mask_bytes:
                    self._whole.inner.clear()
                    self._fragment_bytes = 0
                place.inner[state] = fragment
                self._fragment_bytes += 300 + 8 * len(found) + (0 if fragment.mask is None else out.nbytes)
        return fragment

    def _walk(
        self,
        start: int,
        place: Fragment,
        out: NDArray[np.uint32],
        exits: NDArray[np.int32],
        generation: int,
        deadline: float,
    ) -> int:
        """Add the tokens that state `start` can read after `place` to `out`; returns how many `exits` were found."""
        automaton, trie = self._automaton, self._vocabulary.trie
        stack = np.zeros(trie.longest + 1, np.int32)
        progress = np.array([0, -1, 0], np.int64)
        missing, byte = -1, 0
        while True:
            with automaton.lock:
                if automaton.generation != generation:
                    raise _Emptied
                if missing >= 0:
                    automaton.fill(missing, byte)
                table, accepting = automaton.table, automaton.accepting
            missing = walk(
                table, accepting, start, trie.byte, trie.depth, trie.end, trie.first, trie.tokens,
                place.begins, place.stops, stack, progress, out, exits,
            )  # fmt: skip
            if missing < 0:
                return int(progress[2])
            byte = int(trie.byte[progress[1]])
            if monotonic() > deadline:
                raise automaton.too_slow()

    def _start_generation(self) -> None:
        """Forget what belonged to the automaton before it was emptied."""
        if self._generation != self._automaton.generation:
            self._generation = self._automaton.generation
            self._masked = OrderedDict()
            self._whole.inner.clear()
            self._fragment_bytes = 0

    def _keep(self, core: State) -> None:
        """Note that `core` has a mask; drop the least recently used ones (by second chance) until they fit."""
        self._start_generation()
        self._masked[core] = None
        room = max(1, self._automaton.limits.max_mask_bytes // (self._vocabulary.words * 4))
        while len(self._masked) > room:
            oldest, _ = self._masked.popitem(last=False)
            if oldest.used:
                oldest.used = False
                self._masked[oldest] = None
            else:
                oldest.mask = None
