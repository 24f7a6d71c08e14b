"""The machine: frames numbered as states, what they do with bytes as tables, and stacks of them as nodes.

    frame below  <── stack node ──  frame on top          a configuration is one node; equal stacks are one node
                     (state, below)

States, tables, masks of single frames and results belong to a vocabulary, not to one grammar: the inside of a JSON
string is the same state in all of them. Nothing is computed before it is asked for.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.automaton import _members as members
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.pushdown.frame import (
    Action,
    Enter,
    Frame,
    Go,
    Leave,
    Pop,
    Push,
)
from sgl_like.runtime.constrain.pushdown.walk import (
    BARRIER,
    DEAD,
    DONE,
    ENTER,
    GO,
    KIND_BITS,
    LEAVE,
    NEED_RESUME,
    NEED_STEP,
    POP,
    PUSH,
    UNKNOWN,
    add_tokens,
    find,
    walk,
)  # fmt: skip
from sgl_like.runtime.constrain.vocabulary import Vocabulary


class State:
    """A numbered frame. `inner`: what it does to the whole vocabulary, once known."""

    __slots__ = ("frame", "inner", "number")

    def __init__(self, frame: Frame, number: int) -> None:
        self.frame = frame
        self.number = number
        self.inner: Inner | None = None


class Inner:
    """Tokens that stay within a frame and its children, and the parts of the trie that come after its end.

    Args:
        mask: uint32 [words].
        ends: result -> (parts of the trie to go on with [n, 2], trie nodes whose tokens end with the frame [m]).
    """

    __slots__ = ("ends", "mask")

    def __init__(
        self,
        mask: NDArray[np.uint32],
        ends: dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]],
    ) -> None:
        self.mask = mask
        self.ends = ends


class Stack:
    """A stack of frames: one configuration. Equal stacks are one object."""

    __slots__ = ("below", "mask", "number", "state", "steps")

    def __init__(self, state: State, below: Stack | None, number: int) -> None:
        self.state = state
        self.below = below
        self.number = number
        self.mask: NDArray[np.int32] | None = None
        self.steps: dict[int, Stack | None] = {}

    @property
    def accepting(self) -> bool:
        """Whether the output may end here."""
        stack: Stack = self
        frame = stack.state.frame
        while stack.below is not None:
            result = frame.leaving
            if result is None:
                return False
            stack = stack.below
            resumed = stack.state.frame.resume(result[0])
            if resumed is None:
                return False
            frame = resumed
        return frame.accepting


class Machine:
    """All that has been found out about frames over one vocabulary. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary, limits: Limits | None = None) -> None:
        self.vocabulary = vocabulary
        self.limits = limits or Limits()
        self.lock = threading.RLock()
        trie = vocabulary.trie
        self._table = np.zeros((256, 256), dtype=np.int32)
        self._pairs = np.zeros((64, 2), dtype=np.int32)
        self._nodes = np.zeros((256, 2), dtype=np.int32)
        self._resume_keys = np.full(256, -1, dtype=np.int64)
        self._resume_values = np.zeros(256, dtype=np.int32)
        self._resumes = 0
        self._states: list[State | None] = [None]  # 0: dead
        self._by_frame: dict[Frame, State] = {}
        self._pair_numbers: dict[tuple[int, int], int] = {}
        self._results: list[Any] = []
        self._result_numbers: dict[Any, int] = {}
        self._stacks: dict[tuple[int, int], Stack] = {}
        self._stack_count = 1  # 0: the barrier
        self._whole = np.array([[0, len(trie.byte)]], dtype=np.int32)
        self._walk_stack = np.zeros(trie.longest + 2, dtype=np.int32)
        self._walk_tops = np.zeros(trie.longest + 2, dtype=np.int32)
        self._scratch = np.zeros((8 * (trie.longest + 2), 2), dtype=np.int32)
        self._exits = np.zeros((len(trie.byte) + 1, 4), dtype=np.int32)

    # -- numbering ---------------------------------------------------------------------------------------------

    def start(self, frames: list[Frame]) -> Stack:
        """The stack of these frames, bottom first."""
        with self.lock:
            stack: Stack | None = None
            for frame in frames:
                stack = self.stack(self.state(frame), stack)
            assert stack is not None
            return stack

    def state(self, frame: Frame) -> State:
        """The state of a frame."""
        state = self._by_frame.get(frame)
        if state is None:
            number = len(self._states)
            if number == len(self._table):
                self._table = np.concatenate([self._table, np.zeros_like(self._table)])
            self._table[number] = UNKNOWN
            state = self._by_frame[frame] = State(frame, number)
            self._states.append(state)
        return state

    def stack(self, state: State, below: Stack | None) -> Stack:
        """The stack with `state` on top of `below`."""
        under = -1 if below is None else below.number
        key = (state.number, under)
        stack = self._stacks.get(key)
        if stack is None:
            number = self._stack_count
            self._stack_count += 1
            if number == len(self._nodes):
                self._nodes = np.concatenate([self._nodes, np.zeros_like(self._nodes)])
            self._nodes[number] = (
                state.number,
                -(2**30) if below is None else below.number,
            )
            stack = self._stacks[key] = Stack(state, below, number)
        return stack

    def _fill(self, number: int, byte: int) -> int:
        """Ask the frame what it does with a byte; returns the code."""
        state = self._states[number]
        assert state is not None
        mask, action = state.frame.step(byte)
        assert mask >> byte & 1, f"{state.frame} answers for other bytes than {byte}"
        code = DEAD if action is None else self._code(action)
        self._table[number, members(mask)] = code
        return code

    def _code(self, action: Action) -> int:
        if isinstance(action, Go):
            return self.state(action.frame).number << KIND_BITS | GO
        if isinstance(action, Push | Enter):
            pair = (self.state(action.frame).number, self.state(action.child).number)
            number = self._pair_numbers.get(pair)
            if number is None:
                number = self._pair_numbers[pair] = len(self._pair_numbers)
                if number == len(self._pairs):
                    self._pairs = np.concatenate([self._pairs, np.zeros_like(self._pairs)])
                self._pairs[number] = pair
            return number << KIND_BITS | (PUSH if isinstance(action, Push) else ENTER)
        assert isinstance(action, Pop | Leave)
        return self.result(action.result) << KIND_BITS | (POP if isinstance(action, Pop) else LEAVE)

    def result(self, value: Any) -> int:
        """Number of a result."""
        number = self._result_numbers.get(value)
        if number is None:
            number = self._result_numbers[value] = len(self._results)
            self._results.append(value)
        return number

    def _resume(self, parent: int, result: int) -> int:
        """The state after the child of a state has ended with a result; 0 if that must not be."""
        key = parent << 32 | result
        found = int(find(self._resume_keys, self._resume_values, key))
        if found >= 0:
            return found
        state = self._states[parent]
        assert state is not None
        frame = state.frame.resume(self._results[result])
        value = DEAD if frame is None else self.state(frame).number
        if 2 * self._resumes >= len(self._resume_keys):
            old_keys, old_values = self._resume_keys, self._resume_values
            self._resume_keys = np.full(4 * len(old_keys), -1, dtype=np.int64)
            self._resume_values = np.zeros(4 * len(old_keys), dtype=np.int32)
            for each in np.flatnonzero(old_keys >= 0):
                self._put(int(old_keys[each]), int(old_values[each]))
        self._put(key, value)
        self._resumes += 1
        return value

    def _put(self, key: int, value: int) -> None:
        size = len(self._resume_keys)
        at = ((key >> 32) * 0x9E3779B1 + key * 0x85EBCA6B) & (size - 1)
        while self._resume_keys[at] >= 0:
            at = (at + 1) & (size - 1)
        self._resume_values[at] = value
        self._resume_keys[at] = key

    # -- reading -----------------------------------------------------------------------------------------------

    def step(self, stack: Stack, token: int) -> Stack | None:
        """The stack after a token, or None."""
        try:
            return stack.steps[token]
        except KeyError:
            pass
        data = self.vocabulary.token_bytes[token]
        if data is None:
            return None
        with self.lock:
            after = self.read(stack, data)
            stack.steps[token] = after
        return after

    def read(self, stack: Stack, data: bytes) -> Stack | None:
        """The stack after some bytes, or None."""
        with self.lock:
            states = self._states
            state: State | None = stack.state
            below = stack.below
            for byte in data:
                while True:
                    assert state is not None
                    code = self._table.item(state.number, byte)
                    if code == UNKNOWN:
                        code = self._fill(state.number, byte)
                    kind, number = code & 7, code >> KIND_BITS
                    if code == DEAD:
                        return None
                    if kind == GO:
                        state = states[number]
                        break
                    if kind in (PUSH, ENTER):
                        parent, child = self._pairs[number].tolist()
                        waiting = states[parent]
                        assert waiting is not None
                        below, state = self.stack(waiting, below), states[child]
                        if kind == PUSH:
                            break
                        continue
                    assert below is not None
                    state = states[self._resume(below.state.number, number)]
                    below = below.below
                    if state is None:
                        return None
                    if kind == POP:
                        break
            assert state is not None
            return self.stack(state, below)

    # -- masks -------------------------------------------------------------------------------------------------

    def mask(self, stack: Stack) -> NDArray[np.int32]:
        """The packed mask, int32 [words]; not to be written to."""
        if stack.mask is not None:
            return stack.mask
        with self.lock:
            inner = self._inner(stack.state)
            out = inner.mask.copy()
            if stack.accepting:
                out |= self.vocabulary.eos_mask
            below = stack.below
            if below is not None:
                for result, (parts, tokens) in inner.ends.items():
                    after = self._resume(below.state.number, result)
                    if after == DEAD:
                        continue
                    if len(tokens):
                        add_tokens(
                            tokens,
                            self.vocabulary.trie.first,
                            self.vocabulary.trie.tokens,
                            out,
                        )
                    if len(parts):
                        resumed = self._states[after]
                        assert resumed is not None
                        self._walk(self.stack(resumed, below.below).number, parts, out)
            if not out.any():
                raise ConstraintError(
                    "no token of the vocabulary can continue the output; it lacks some bytes"
                )
            stack.mask = out.view(np.int32)
            return stack.mask

    def _inner(self, state: State) -> Inner:
        if state.inner is None:
            core = state.frame.core(self.vocabulary.trie.longest)
            shared = state if core is state.frame else self.state(core)
            state.inner = shared.inner or self._find_inner(shared)
        return state.inner

    def _find_inner(self, state: State) -> Inner:
        number = self._stack_count
        if number == len(self._nodes):
            self._nodes = np.concatenate([self._nodes, np.zeros_like(self._nodes)])
        self._nodes[number] = (
            state.number,
            BARRIER,
        )  # not counted: overwritten by the next stack
        out = np.zeros(self.vocabulary.words, dtype=np.uint32)
        count = self._walk(number, self._whole, out)
        exits = self._exits[:count]
        ends = {}
        for result in np.unique(exits[:, 2]).tolist():
            mine = exits[exits[:, 2] == result]
            parts = mine[mine[:, 0] < mine[:, 1]][:, :2].copy()
            tokens = mine[mine[:, 3] >= 0][:, 3].copy()
            ends[result] = (parts, tokens)
        state.inner = Inner(out, ends)
        return state.inner

    def _walk(self, start: int, parts: NDArray[np.int32], out: NDArray[np.uint32]) -> int:
        """Walk parts of the trie from a stack node; returns how many exits were found."""
        trie = self.vocabulary.trie
        progress = np.array([0, -1, 0, 0, 0], dtype=np.int64)
        while True:
            need = walk(
                self._table, self._pairs, self._nodes, self._resume_keys, self._resume_values, start,
                trie.byte, trie.depth, trie.end, trie.first, trie.tokens, parts,
                self._walk_stack, self._walk_tops, self._scratch, progress, out, self._exits,
            )  # fmt: skip
            if need == DONE:
                return int(progress[2])
            if need == NEED_STEP:
                self._fill(int(progress[3]), int(progress[4]))
            elif need == NEED_RESUME:
                self._resume(int(progress[3]), int(progress[4]))
            else:
                raise ConstraintTooComplex("a token nests deeper than a mask can follow")
