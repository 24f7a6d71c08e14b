"""The matcher of a pushdown machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.forced import forced_tokens
from sgl_like.runtime.constrain.pushdown.completion import Completions
from sgl_like.runtime.constrain.pushdown.forced import forced_bytes, next_bytes
from sgl_like.runtime.constrain.pushdown.fragments import NONE
from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack

__all__ = ["PushdownGrammar", "PushdownMatcher"]


class PushdownGrammar:
    """All outputs that a machine reads from one stack: what the matchers of one grammar share. Thread-safe.

    Args:
        machine: may be shared with other grammars.
        start: the stack before an output.
        limits: of completions and forced bytes.
        completions: to share with other grammars of the machine.
    """

    def __init__(
        self, machine: Machine, start: Stack, limits: Limits, completions: Completions | None = None
    ) -> None:
        self.machine = machine
        self.vocabulary = machine.vocabulary
        self.start = start
        self._limits = limits
        self._completions = completions or Completions(machine, limits)

    def matcher(self) -> PushdownMatcher:
        """A matcher before an output."""
        return PushdownMatcher(self)

    def read(self, state: Stack, data: bytes) -> Stack | None:
        """The stack after the bytes `data`, or None if they are not allowed. Raises ConstraintTooComplex."""
        return self.machine.read(state, data) if data else state

    def forced(self, state: Stack) -> bytes:
        """The bytes that every continuation starts with. Raises ConstraintTooComplex."""
        return forced_bytes(self.machine, state, self._limits.max_forced)

    def next_bytes(self, state: Stack, wanted: bytes) -> list[int]:
        """Those of the bytes `wanted` that may come next, and one of every set of bytes that has none of them."""
        return next_bytes(self.machine, state, wanted)

    def completion(self, state: Stack) -> bytes:
        """A short continuation to the end of the output; see `Completions.of`."""
        return self._completions.of(state)


class PushdownMatcher:
    """A `Matcher`: a stack of a shared machine plus what is needed to go back."""

    __slots__ = ("_grammar", "_history", "_stack", "_terminated", "vocab_size")

    def __init__(self, grammar: PushdownGrammar) -> None:
        self.vocab_size = grammar.vocabulary.size
        self._grammar = grammar
        self._stack = grammar.start
        self._history: list[tuple[Stack, int]] = []  # (stack before it, token) for every accepted token
        self._terminated = False

    def fill_mask(self, out: NDArray[np.int32], row: int) -> None:
        """See `Matcher.fill_mask`."""
        if self._terminated:
            out[row] = self._grammar.vocabulary.eos_mask.view(np.int32)
        else:
            self._grammar.machine.fill(self._stack, out[row])

    def mask_parts(self) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        """See `Matcher.mask_parts`."""
        if self._terminated:
            return self._grammar.vocabulary.eos_mask, NONE
        return self._grammar.machine.mask(self._stack)

    @property
    def learns_with(self) -> object:
        """See `Matcher.learns_with`."""
        return self._grammar.machine.lock

    def accept_token(self, token: int) -> bool:
        """See `Matcher.accept_token`. Raises ConstraintTooComplex if a limit was reached; nothing changes then."""
        if self._terminated or not 0 <= token < self.vocab_size:
            return False
        stack = self._stack
        if token in self._grammar.vocabulary.eos_token_ids:
            if not self.is_complete:
                return False
            self._terminated = True
        else:
            after = self._grammar.machine.step(stack, token)
            if after is None:
                return False
            self._stack = after
        self._history.append((stack, token))
        return True

    def accept_bytes(self, data: bytes) -> bool:
        """See `Matcher.accept_bytes`. Raises ConstraintTooComplex if a limit was reached; nothing changes then."""
        after = None if self._terminated else self._grammar.read(self._stack, data)
        if after is None:
            return False
        self._stack = after
        return True

    def forced_bytes(self) -> bytes:
        """See `Matcher.forced_bytes`. Raises ConstraintTooComplex if a limit was reached."""
        return b"" if self._terminated else self._grammar.forced(self._stack)

    def forced_tokens(self) -> list[int]:
        """See `Matcher.forced_tokens`. Raises ConstraintTooComplex if a limit was reached."""
        if self._terminated:
            return []
        return forced_tokens(self._grammar, self._stack, self._history[-1][1] if self._history else None)

    def rollback(self, n: int) -> None:
        """See `Matcher.rollback`."""
        if not 0 <= n <= len(self._history):
            raise ConstraintError(f"cannot roll back {n} tokens: {len(self._history)} were accepted")
        if n:
            self._stack = self._history[-n][0]
            self._terminated = False
            del self._history[-n:]

    @property
    def is_complete(self) -> bool:
        """Whether the output so far is a member of the language."""
        return self._grammar.machine.accepting(self._stack)

    @property
    def is_terminated(self) -> bool:
        """Whether an end-of-sequence token was accepted."""
        return self._terminated

    def shortest_completion(self) -> bytes:
        """See `Matcher.shortest_completion`: here only as short as is found within the limits.

        Raises ConstraintTooComplex if none was found.
        """
        return self._grammar.completion(self._stack)

    def copy(self) -> PushdownMatcher:
        """See `Matcher.copy`."""
        twin = PushdownMatcher(self._grammar)
        twin._stack = self._stack
        twin._history = self._history.copy()
        twin._terminated = self._terminated
        return twin
