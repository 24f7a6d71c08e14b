"""A lazily built DFA over expressions: states and the steps between them are computed when first needed.

All matchers of one grammar share one automaton, so what one request learns (rows, masks, token steps) the next one
finds. Looking up what is known takes no lock; only growth does. When the table is full it is emptied and starts
again from the states that are asked for, as in RE2; matchers hold expressions, not numbers, so they never notice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintTooComplex
from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Node, Pool
from sgl_like.runtime.constrain.vocabulary import Vocabulary

__all__ = ["Automaton", "Full", "State"]

_STATE_BYTES = 600  # a State and its expression, roughly; its row in the table is counted there
_EDGE_BYTES = 100


class State:
    """A state of the automaton. Known facts are filled in over time; None = not known yet.

    `number`: its row in the table, or -1 after the table was emptied. `core`: the state whose mask this one shares.
    `steps`: the states after tokens that were accepted here.
    """

    __slots__ = ("completion", "core", "forced", "forced_tokens", "mask", "node", "number", "steps", "used")

    def __init__(self, node: Node, number: int) -> None:
        self.node = node
        self.number = number
        self.core: State | None = None
        self.mask: NDArray[np.int32] | None = None
        self.used = True
        self.steps: dict[int, State] = {}
        self.forced: bytes | None = None
        self.forced_tokens: dict[int, tuple[int, ...]] = {}
        self.completion: bytes | None = None


class Full(Exception):
    """The table has no room for another state."""


class Automaton:
    """The DFA of one grammar for one vocabulary. Thread-safe.

    Args:
        pool: the pool of `start`; used under the automaton's `lock` from now on.
        start: the whole language; not `EMPTY`.
        vocabulary: whose tokens `step` takes.

    For `masks`: `table`, int32 [states, 256], has the number of the state after each byte (0 = not allowed, negative
    = not computed yet); `accepting`, uint8 [states], is 1 where the output may end; both are replaced by larger
    ones as they grow. `generation` counts how often the automaton was emptied: state numbers of another one mean
    nothing.
    """

    def __init__(self, pool: Pool, start: Node, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.pool = pool
        self.limits = pool.limits
        self.lock = threading.RLock()
        self._working = 0
        self._numbers: dict[Node, State] = {}
        self._states: list[State] = []
        self._edges = 0
        self.table: NDArray[np.int32] = np.empty((0, 256), dtype=np.int32)
        self.accepting: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self.generation = 0
        self._start = State(start, -1)
        self.reset()

    @property
    def start(self) -> State:
        """The state before the first byte."""
        return self._start

    @property
    def states(self) -> int:
        """States known at the moment, the dead one included."""
        return len(self._states)

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held."""
        return self.table.nbytes + len(self._states) * _STATE_BYTES + self._edges * _EDGE_BYTES

    def step(self, state: State, token: int) -> State | None:
        """The state after `token`, or None if it is not allowed in `state`. Raises ConstraintTooComplex."""
        after = state.steps.get(token)
        if after is not None:
            return after
        data = self.vocabulary.token_bytes[token]
        if data is None:
            return None
        with self.lock:
            after = self.read(state, data)
            if after is not None and state.number >= 0:
                state.steps[token] = after
                self._edges += 1
                if self._edges > 16 * self.limits.max_states:
                    self.reset()
        return after

    def read(self, state: State, data: bytes) -> State | None:
        """The state after the bytes `data`, or None if they are not allowed. Raises ConstraintTooComplex."""
        with self.work():
            try:
                return self._read(state, data)
            except Full:
                self.reset()
            try:
                return self._read(state, data)
            except Full:
                raise self.too_many_states() from None

    def forced(self, state: State) -> bytes:
        """The bytes that every continuation starts with."""
        if state.forced is None:
            with self.work():
                try:
                    state.forced = derive.forced(self.pool, state.node, self.limits.max_forced)[0]
                except ConstraintTooComplex:
                    state.forced = b""
        return state.forced

    def completion(self, state: State) -> bytes:
        """A shortest continuation to an accepting state. Raises ConstraintTooComplex."""
        if state.completion is None:
            with self.work():
                state.completion = derive.shortest(self.pool, state.node)
        return state.completion

    def next_bytes(self, state: State, wanted: bytes) -> list[int]:
        """Those of the bytes `wanted` that may come next, and one of every set of bytes that has none of them."""
        found = []
        with self.work():
            for mask, _ in derive.edges(self.pool, state.node):
                mine = [byte for byte in wanted if mask >> byte & 1]
                found += mine or [(mask & -mask).bit_length() - 1]
        return found

    @contextmanager
    def work(self) -> Iterator[None]:
        """Hold the lock, with a fresh budget for new expressions, and for the time of the outermost."""
        with self.lock:
            self.pool.start_work()
            if self._working == 0:
                self.pool.start_clock(self.limits.max_step_seconds)
            self._working += 1
            try:
                yield
            except RecursionError:
                raise ConstraintTooComplex("the constraint is nested too deeply") from None
            finally:
                self._working -= 1
                if self._working == 0:
                    self.pool.stop_clock()

    def reset(self) -> None:
        """Forget everything but expressions that others hold. A new table, so that running walks stay valid."""
        with self.lock:
            self._forget()

    def _forget(self) -> None:
        for state in self._states:
            state.number = -1
            state.core = None
            state.steps = {}
        self.table = np.full((64, 256), -1, dtype=np.int32)
        self.accepting = np.zeros(64, dtype=np.uint8)
        self.generation += 1
        self._states = []
        self._numbers = {}
        self._edges = 0
        self.pool.forget()
        self.intern(EMPTY)
        self.table[0] = 0
        self._start = self.intern(self._start.node)

    def intern(self, node: Node) -> State:
        """The state of an expression. The caller holds the lock. Raises Full if there is no room for it."""
        state = self._numbers.get(node)
        if state is None:
            number = len(self._states)
            if number >= self.limits.max_states:
                raise Full
            if number == len(self.table):
                room = min(number, self.limits.max_states - number)
                self.table = np.concatenate([self.table, np.full((room, 256), -1, dtype=np.int32)])
                self.accepting = np.concatenate([self.accepting, np.zeros(room, dtype=np.uint8)])
            state = self._numbers[node] = State(node, number)
            self._states.append(state)
            self.accepting[number] = node.nullable
        return state

    def fill(self, number: int, byte: int) -> int:
        """Compute the state after `byte`; returns its number. The caller holds the lock.

        States that nobody asks for are not made: a row fills up byte set by byte set.

        Raises Full, and ConstraintTooComplex.
        """
        dead, after = ALL_BYTES, 0
        with self.work():
            for mask, target in derive.edges(self.pool, self._states[number].node):
                dead &= ~mask
                if mask >> byte & 1:
                    after = self.intern(target).number
                    self.table[number, _members(mask)] = after
        self.table[number, _members(dead)] = 0
        return after

    def _read(self, state: State, data: bytes) -> State | None:
        number = (state if state.number >= 0 else self.intern(state.node)).number
        for byte in data:
            after = self.table.item(number, byte)
            number = after if after >= 0 else self.fill(number, byte)
            if number == 0:
                return None
        return self._states[number]

    def too_slow(self) -> ConstraintTooComplex:
        """The error for one mask that takes too long."""
        return ConstraintTooComplex(
            f"one step of the constraint takes more than {self.limits.max_step_seconds:g} s"
        )

    def too_many_states(self) -> ConstraintTooComplex:
        """The error for one step or mask that needs more states than there may be."""
        return ConstraintTooComplex(
            f"one token step needs more than {self.limits.max_states} automaton states"
        )


@lru_cache(maxsize=256)
def _members(mask: int) -> NDArray[np.bool_]:
    """The 256 bits of a byte set as a selector."""
    packed = np.frombuffer(mask.to_bytes(32, "little"), dtype=np.uint8)
    return np.unpackbits(packed, bitorder="little").view(np.bool_)
