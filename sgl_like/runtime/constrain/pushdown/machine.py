"""The machine: configurations of stacked frames, what tokens do to them, and their masks.

    frame below  <── stack node ──  frame on top          a configuration is a `Stack`; equal ones are one object

Frames, single-frame masks and results belong to a vocabulary, not to one grammar: the inside of a JSON string is the
same state in all of them. Nothing is computed before it is asked for.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.expr import Pool
from sgl_like.runtime.constrain.pushdown import bits, native_walk, walk
from sgl_like.runtime.constrain.pushdown.arrays import Gate
from sgl_like.runtime.constrain.pushdown.expressions import Counted
from sgl_like.runtime.constrain.pushdown.fragments import Ints, Words
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.masks import Masks
from sgl_like.runtime.constrain.pushdown.tables import State, Tables
from sgl_like.runtime.constrain.pushdown.texts import BARRED, Texts
from sgl_like.runtime.constrain.pushdown.unique import Open, follow
from sgl_like.runtime.constrain.pushdown.walker import Scratch
from sgl_like.runtime.constrain.vocabulary import Vocabulary

_STACK_BYTES = 1500
_SHORT = 12  # bytes


class Stack:
    """A configuration: a frame on a stack of frames. `base` and `more` are its mask as in `Inner`, once known; `items`
    are the open items of arrays with unique items, or None in a grammar that has none.
    """

    __slots__ = ("base", "below", "completion", "forced", "forced_tokens", "items", "more", "state", "steps")

    def __init__(self, state: State, below: int, items: tuple[Open, ...] | None) -> None:
        self.state = state
        self.below = below
        self.items = items
        self.base: Words | None = None
        self.more: Ints | None = None
        self.steps: dict[int, Stack | None] = {}
        self.forced: bytes | None = None
        self.forced_tokens: dict[int, tuple[int, ...]] = {}
        self.completion: bytes | None = None


class Machine:
    """All that has been found out about frames over one vocabulary. Thread-safe.

    Args:
        vocabulary: whose tokens are read.
        limits: `max_step_seconds` bounds one mask, or one step.
        lock: held while frames are asked anything, if they have something in common with those of other machines.
        scratch: to share with other machines of the same lock.
        pool: in which frames make expressions, under the same lock; it is watched, too.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        limits: Limits,
        lock: threading.RLock | None = None,
        scratch: Scratch | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.tables = Tables(limits.max_step_seconds)
        self.lock = lock or threading.RLock()
        self._pool = pool
        self.step_seconds = limits.max_step_seconds
        self._masks = Masks(self, scratch or Scratch(vocabulary))
        self._stacks: dict[tuple[int, int, tuple[Open, ...] | None], Stack] = {}

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held by what was found out."""
        return self.tables.nbytes + self._masks.nbytes + len(self._stacks) * _STACK_BYTES

    def start(self, frames: tuple[Frame, ...], unique: bool = False) -> Stack:
        """The stack of these frames, bottom first; `unique`: some array's items may have to be."""
        with self.lock:
            node = walk.BARRIER
            for frame in frames[:-1]:
                node = self.tables.node(self.tables.state(frame).number, node)
            return self._stack(self.tables.state(frames[-1]).number, node, () if unique else None)

    def frames(self, stack: Stack) -> tuple[Frame, ...]:
        """The frames of a stack, bottom first."""
        found, node = [stack.state.frame], stack.below
        with self.lock:
            while node != walk.BARRIER:
                state, node = self.tables.nodes[node].tolist()
                found.append(self.tables.frame(state))
        return tuple(reversed(found))

    def _stack(self, state: int, below: int, items: tuple[Open, ...] | None) -> Stack:
        key = (state, below, items)
        stack = self._stacks.get(key)
        if stack is None:
            known = self.tables.states[state]
            assert known is not None
            stack = self._stacks[key] = Stack(known, below, items)
        return stack

    def _start_clock(self) -> None:
        """From now on what is asked of frames takes so long at most. The caller holds the lock."""
        self.tables.start_clock()
        if self._pool is not None:
            self._pool.start_clock(self.step_seconds)

    def _stop_clock(self) -> None:
        if self._pool is not None:
            self._pool.stop_clock()

    # -- reading -----------------------------------------------------------------------------------------------

    def accepting(self, stack: Stack) -> bool:
        """Whether the output may end here."""
        with self.lock:
            state, below = stack.state.number, stack.below
            while True:
                frame = self.tables.frame(state)
                if frame.accepting:
                    return True
                result = frame.leaving
                if result is None or below == walk.BARRIER:
                    return False
                after = self.tables.after(below, self.tables.result(result[0]))
                if after is None:
                    return False
                state, below = after

    def step(self, stack: Stack, token: int) -> Stack | None:
        """The stack after a token, or None."""
        try:
            return stack.steps[token]
        except KeyError:
            pass
        data = self.vocabulary.token_bytes[token]
        if data is None:
            return None
        after = stack.steps[token] = self.read(stack, data)
        return after

    def read(self, stack: Stack, data: bytes) -> Stack | None:
        """The stack after some bytes, or None. Raises ConstraintTooComplex if it takes too long."""
        with self.lock:
            self._start_clock()
            try:
                if stack.items is not None:
                    return self._read_items(stack, data)
                status, _, state, below = self._read(stack.state.number, stack.below, data)
                return self._stack(state, below, None) if status == walk.ALIVE else None
            finally:
                self._stop_clock()

    def _read_items(self, stack: Stack, data: bytes) -> Stack | None:
        state, below, items = stack.state.number, stack.below, stack.items
        assert items is not None
        for byte in data:
            status, _, state, below = self._read(state, below, bytes([byte]))
            after = follow(self.tables, items, state, below, byte) if status == walk.ALIVE else None
            if after is None:
                return None
            state, below, items = after
        return self._stack(state, below, items)

    def _read(self, state: int, below: int, data: bytes) -> tuple[int, int, int, int]:
        """(status, bytes read, state, stack node) of reading `data`; at an exit the result is in the state's place."""
        tables, progress = self.tables, self.tables.progress
        state, read = self._read_known(state, data)
        while read < len(data):
            if tables.native.item(state) != walk.NO_ROW:
                status = self._run(state, below, data, read)
                read = progress.item(walk.NODE)
                if status not in (walk.ALIVE, walk.NATIVE):
                    return status, read, progress.item(walk.WHAT), walk.BARRIER
                state, below = progress.item(walk.PART), progress.item(walk.BELOW)
                if status == walk.ALIVE:
                    break
            frame = tables.frame(state)
            if isinstance(frame, Texts):
                after = self._read_texts(frame, below, data[read:])
            elif isinstance(frame, Gate):
                after = 0, tables.state(frame.value).number, below
            else:
                assert isinstance(frame, Counted)
                after = self._read_counted(frame, below, data[read:])
            if isinstance(after, int):
                return after, read, progress.item(walk.WHAT), walk.BARRIER
            count, state, below = after
            read += count
        return walk.ALIVE, len(data), state, below

    def _read_known(self, state: int, data: bytes) -> tuple[int, int]:
        """(state, bytes read) as far as the frame on top goes on alone and that is known: for few bytes that is sooner
        done than calling machine code.
        """
        rows, table, read = self.tables.rows, self.tables.table, 0
        for byte in data[:_SHORT]:
            row = rows.item(state)
            code = table.item(row, byte) if row >= 0 else walk.UNKNOWN
            if code & 7 != walk.GO_ONE:
                break
            state = code >> walk.KIND_BITS
            read += 1
        return state, read

    def _run(self, state: int, below: int, data: bytes, read: int) -> int:
        """`walk.read` from a byte on: its status."""
        tables, progress = self.tables, self.tables.progress
        array = np.frombuffer(bytearray(data), dtype=np.uint8)
        progress[walk.NODE], progress[walk.PART], progress[walk.BELOW] = read, state, below
        while True:
            status = int(walk.read(*tables.arrays, array, len(data)))
            if status < walk.NEED_STEP:
                return status
            tables.provide(status)

    def _read_texts(self, frame: Texts, below: int, data: bytes) -> tuple[int, int, int] | int:
        """(bytes read, state, stack node) after a native frame has read on, or the status of an end."""
        tables = self.tables
        low, high, whole = frame.matching(data)
        if whole:
            read, result = len(frame.table.texts[low]) - frame.read, frame.result(low)
            if result is BARRED:
                return walk.DEAD_END
            return self._pop(below, tables.result(result), read)
        other = None
        if frame.other is not None:
            status, read, state, _ = self._read(tables.state(frame.other).number, walk.BARRIER, data)
            if status == walk.EXIT_POP:
                return self._pop(below, state, read)
            if status == walk.ALIVE:
                other = tables.frame(state)
        rest = frame.rest(low, high, len(data), other)
        if rest is None:
            return walk.DEAD_END
        return len(data), tables.state(rest).number, below

    def _read_counted(self, frame: Counted, below: int, data: bytes) -> tuple[int, int, int] | int:
        tables, progress = self.tables, self.tables.progress
        array = np.frombuffer(bytearray(data), dtype=np.uint8)
        loop = tables.state(frame.loop).number
        progress[walk.NODE], progress[walk.EXITS], progress[walk.PART] = 0, 0, tables.state(frame.at).number
        while True:
            status = native_walk.count_read(
                tables.table, tables.rows, loop, frame.leaves, progress, array, len(data)
            )
            if status != walk.NEED_STEP:
                break
            tables.provide(status)
        items, read = int(progress[walk.EXITS]), int(progress[walk.NODE])
        if status == walk.DEAD_END or items > frame.high:
            return walk.DEAD_END
        if status == walk.ALIVE:
            return (
                read,
                tables.state(frame.moved(tables.frame(int(progress[walk.PART])), items)).number,
                below,
            )
        if items < frame.low:
            return walk.DEAD_END
        return read, tables.state(frame.after()).number, below

    def _pop(self, below: int, result: int, read: int) -> tuple[int, int, int] | int:
        if below == walk.BARRIER:
            self.tables.progress[walk.WHAT] = result
            return walk.EXIT_POP
        after = self.tables.after(below, result)
        return walk.DEAD_END if after is None else (read, *after)

    # -- masks -------------------------------------------------------------------------------------------------

    def mask(self, stack: Stack) -> tuple[Words, Ints]:
        """The mask as one of the common masks, uint32 [words], and tokens besides, int32 [n].

        Raises:
            ConstraintError: no token can come.
            ConstraintTooComplex: it takes too long.
        """
        if stack.base is None or stack.more is None:
            with self.lock:
                if stack.base is None or stack.more is None:  # nor found by another thread meanwhile
                    self._start_clock()
                    try:
                        stack.base, stack.more = self._masks.find(stack)
                    finally:
                        self._stop_clock()
        return stack.base, stack.more

    def fill(self, stack: Stack, out: NDArray[np.int32]) -> None:
        """Write the mask into `out`, int32 [words]. Raises as `mask` does."""
        base, more = self.mask(stack)
        out[:] = base.view(np.int32)
        if len(more):
            bits.add_tokens(more, out.view(np.uint32))
