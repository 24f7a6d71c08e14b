"""Numbers for frames, and growing tables of what they do: the machine code's side of a `Machine`."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintTooComplex
from sgl_like.runtime.constrain.pushdown import native_walk, walk
from sgl_like.runtime.constrain.pushdown.frame import Action, Frame, Go, Leave, Pop, Result

Ints = NDArray[np.int32]
Arrays = tuple[Ints, Ints, NDArray[np.uint8], Ints, Ints, Ints, NDArray[np.int64], Ints, NDArray[np.int64]]

_ROW_BYTES = 1024
_STATE_BYTES = 1500  # a State with its frame, roughly
_RESUME_BYTES = 24
_NODE_BYTES = 16


class State:
    """A numbered frame. `inner`: what it does to the whole vocabulary, once known."""

    __slots__ = ("frame", "inner", "number", "others")

    def __init__(self, frame: Frame, number: int) -> None:
        self.frame = frame
        self.number = number
        self.inner: Any = None
        self.others: Any = None


class Tables:
    """States, what they do with bytes and results, and stack nodes. Not thread-safe.

    Args:
        max_seconds: how long frames may be asked since `start_clock`.

    The frames of one machine are numbered once; they get a row when they first read a byte.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._deadline = inf
        self.table = np.zeros((256, 256), dtype=np.int32)
        self.rows = np.full(256, -1, dtype=np.int32)
        self.native = np.zeros(256, dtype=np.uint8)
        self.closed = np.zeros(256, dtype=np.uint64)
        self.chains = np.zeros((256, 4), dtype=np.int32)
        self.nodes = np.zeros((1024, 2), dtype=np.int32)
        self.index = np.zeros(4096, dtype=np.int32)
        self.resume_keys = np.full(1024, -1, dtype=np.int64)
        self.resume_values = np.zeros(1024, dtype=np.int32)
        self.progress = np.zeros(walk.PROGRESS, dtype=np.int64)
        self.progress[walk.NODES] = 1  # 0: the barrier
        self.states: list[State | None] = [None]  # 0: dead
        self.results: list[Result] = []
        self._numbers: dict[Frame, State] = {}
        self._chain_numbers: dict[tuple[int, ...], int] = {}
        self._result_numbers: dict[Result, int] = {}
        self._resumes = 0
        self._rows = 0

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory in use."""
        return (
            self._rows * _ROW_BYTES
            + len(self.states) * _STATE_BYTES
            + self._resumes * _RESUME_BYTES
            + int(self.progress[walk.NODES]) * _NODE_BYTES
        )

    @property
    def arrays(self) -> Arrays:
        """The first arguments of `walk.walk` and `walk.read`; tables are replaced by larger ones as they grow."""
        return (
            self.table, self.rows, self.native, self.chains, self.nodes, self.index, self.resume_keys,
            self.resume_values, self.progress,
        )  # fmt: skip

    def start_clock(self) -> None:
        """The time for one step begins."""
        self._deadline = monotonic() + self._max_seconds

    def frame(self, number: int) -> Frame:
        """The frame of a state."""
        state = self.states[number]
        assert state is not None
        return state.frame

    def state(self, frame: Frame) -> State:
        """The state of a frame."""
        state = self._numbers.get(frame)
        if state is None:
            number = len(self.states)
            if number == len(self.native):
                self.native, self.closed = _double(self.native), _double(self.closed)
                self.rows = np.concatenate([self.rows, np.full_like(self.rows, -1)])
            if frame.native:
                self.native[number] = walk.NO_ROW
            elif frame.settled:
                self.native[number] = walk.SETTLED
            state = self._numbers[frame] = State(frame, number)
            self.states.append(state)
        return state

    def node(self, state: int, below: int) -> int:
        """The number of a stack node."""
        while True:
            number = int(walk.node_of(self.nodes, self.index, self.progress, state, below))
            if number >= 0:
                return number
            self.grow_nodes()

    def grow_nodes(self) -> None:
        """Make room for as many stack nodes again."""
        old = self.nodes
        count = int(self.progress[walk.NODES])
        self.nodes = np.zeros((2 * len(old), 2), dtype=np.int32)
        self.index = np.zeros(8 * len(old), dtype=np.int32)
        self.progress[walk.NODES] = 1
        native_walk.put_nodes(old[1:count], self.nodes, self.index, self.progress)

    def fill(self, number: int, byte: int) -> None:
        """Ask a frame what it does with a byte."""
        row = int(self.rows[number])
        if row < 0:
            row = self._rows
            self._rows += 1
            if row == len(self.table):
                self.table = _double(self.table)
            self.table[row] = walk.UNKNOWN
            self.rows[number] = row
        for mask, action in self.frame(number).steps(byte):
            walk.put(self.table, row, members(mask), self._code(action))
        assert self.table.item(row, byte) != walk.UNKNOWN, f"{self.frame(number)} answers for other bytes"

    def row(self, state: int, byte: int) -> NDArray[np.int32]:
        """The codes of a state, int32 [256], among which that of `byte` is known."""
        row = self.rows.item(state)
        if row < 0 or self.table.item(row, byte) == walk.UNKNOWN:
            self.fill(state, byte)
            row = self.rows.item(state)
        codes: NDArray[np.int32] = self.table[row]
        return codes

    def _code(self, action: Action | None) -> int:
        if action is None:
            return walk.DEAD
        if isinstance(action, Pop | Leave):
            kind = walk.POP if isinstance(action, Pop) else walk.LEAVE
            return self.result(action.result) << walk.KIND_BITS | kind
        if isinstance(action, Go) and len(action.frames) == 1:
            return self.state(action.frames[0]).number << walk.KIND_BITS | walk.GO_ONE
        kind = walk.GO if isinstance(action, Go) else walk.BECOME
        return self._chain(action.frames) << walk.KIND_BITS | kind

    def _chain(self, frames: tuple[Frame, ...]) -> int:
        states = tuple(self.state(frame).number for frame in frames)
        number = self._chain_numbers.get(states)
        if number is None:
            number = self._chain_numbers[states] = len(self._chain_numbers)
            if number == len(self.chains):
                self.chains = _double(self.chains)
            self.chains[number, 0] = len(states)
            self.chains[number, 1 : 1 + len(states)] = states
        return number

    def result(self, value: Result) -> int:
        """Number of a result."""
        number = self._result_numbers.get(value)
        if number is None:
            number = self._result_numbers[value] = len(self.results)
            self.results.append(value)
        return number

    def resume(self, parent: int, result: int) -> int:
        """The code of what a state does after its child has ended with a result."""
        key = parent << 32 | result
        found = int(walk.find(self.resume_keys, self.resume_values, key))
        if found >= 0:
            return found
        code = self._code(self.frame(parent).resume(self.results[result]))
        if 2 * self._resumes >= len(self.resume_keys):
            old_keys, old_values = self.resume_keys, self.resume_values
            self.resume_keys = np.full(4 * len(old_keys), -1, dtype=np.int64)
            self.resume_values = np.zeros(4 * len(old_keys), dtype=np.int32)
            for each in np.flatnonzero(old_keys >= 0).tolist():
                self._put(int(old_keys[each]), int(old_values[each]))
        self._put(key, code)
        self._resumes += 1
        return code

    def _put(self, key: int, value: int) -> None:
        size = len(self.resume_keys)
        at = ((key >> 32) * 0x9E3779B1 + key * 0x85EBCA6B) & (size - 1)
        while self.resume_keys[at] >= 0:
            at = (at + 1) & (size - 1)
        self.resume_values[at] = value
        self.resume_keys[at] = key

    def after(self, node: int, result: int) -> tuple[int, int] | None:
        """(state, stack node) after the frame above a stack node has ended with a result; None if it must not."""
        while True:
            status, state, below = walk.resumed(
                self.chains, self.nodes, self.index, self.resume_keys, self.resume_values, self.progress, node, result
            )  # fmt: skip
            if status == walk.ALIVE:
                return state, below
            if status == walk.DEAD_END:
                return None
            assert status != walk.EXIT_POP, "the lowest frame has ended"
            self._give(status)

    def rebase(self, node: int, base: int) -> int:
        """The stack of `node`, which stands on the barrier, on another node."""
        if node == walk.BARRIER:
            return base
        state, below = self.nodes[node].tolist()
        return self.node(state, self.rebase(below, base))

    def provide(self, status: int) -> None:
        """What a loop said it needs. `progress` stays as it is, but for the number of nodes."""
        if monotonic() > self._deadline:
            raise ConstraintTooComplex(f"one step of the constraint takes more than {self._max_seconds:g} s")
        self._give(status)

    def _give(self, status: int) -> None:
        saved = self.progress.copy()
        if status == walk.NEED_STEP:
            self.fill(int(self.progress[walk.STATE]), int(self.progress[walk.WHAT]))
        elif status == walk.NEED_RESUME:
            self.resume(int(self.progress[walk.STATE]), int(self.progress[walk.WHAT]))
        else:
            assert status == walk.NEED_NODES
            self.grow_nodes()
        saved[walk.NODES] = self.progress[walk.NODES]
        self.progress[:] = saved


def _double(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])


@lru_cache(maxsize=256)
def members(mask: int) -> NDArray[np.bool_]:
    """The 256 bits of a byte set as a selector."""
    packed = np.frombuffer(mask.to_bytes(32, "little"), dtype=np.uint8)
    return np.unpackbits(packed, bitorder="little").view(np.bool_)
