"""The matcher of an automaton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.automaton import Automaton, State
from sgl_like.runtime.constrain.forced import forced_tokens
from sgl_like.runtime.constrain.masks import MaskCache

__all__ = ["AutomatonMatcher"]

_NONE: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


class AutomatonMatcher:
    """A `Matcher`: a state of a shared automaton plus what is needed to go back."""

    __slots__ = ("_automaton", "_history", "_masks", "_state", "_terminated", "vocab_size")

    def __init__(self, automaton: Automaton, masks: MaskCache) -> None:
        self.vocab_size = automaton.vocabulary.size
        self._automaton = automaton
        self._masks = masks
        self._state = automaton.start
        self._history: list[tuple[State, int]] = []  # (state before it, token) for every accepted token
        self._terminated = False

    def fill_mask(self, out: NDArray[np.int32], row: int) -> None:
        """See `Matcher.fill_mask`."""
        if self._terminated:
            out[row] = self._automaton.vocabulary.eos_mask.view(np.int32)
        else:
            out[row] = self._masks.get(self._state)

    def mask_parts(self) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        """The mask as words, uint32 [words], and tokens besides, int32 [n]; neither is to be written to."""
        if self._terminated:
            return self._automaton.vocabulary.eos_mask, _NONE
        return self._masks.get(self._state).view(np.uint32), _NONE

    @property
    def learns_with(self) -> object:
        """See `Matcher.learns_with`."""
        return self._automaton

    def accept_token(self, token: int) -> bool:
        """See `Matcher.accept_token`. Raises ConstraintTooComplex if a limit was reached; nothing changes then."""
        if self._terminated or not 0 <= token < self.vocab_size:
            return False
        state = self._state
        if token in self._automaton.vocabulary.eos_token_ids:
            if not state.node.nullable:
                return False
            self._terminated = True
        else:
            after = self._automaton.step(state, token)
            if after is None:
                return False
            self._state = after
        self._history.append((state, token))
        return True

    def accept_bytes(self, data: bytes) -> bool:
        """See `Matcher.accept_bytes`. Raises ConstraintTooComplex if a limit was reached; nothing changes then."""
        after = None if self._terminated else self._automaton.read(self._state, data)
        if after is None:
            return False
        self._state = after
        return True

    def forced_bytes(self) -> bytes:
        """See `Matcher.forced_bytes`. Raises ConstraintTooComplex if a limit was reached."""
        return b"" if self._terminated else self._automaton.forced(self._state)

    def forced_tokens(self) -> list[int]:
        """See `Matcher.forced_tokens`. Raises ConstraintTooComplex if a limit was reached."""
        if self._terminated:
            return []
        return forced_tokens(self._automaton, self._state, self._history[-1][1] if self._history else None)

    def rollback(self, n: int) -> None:
        """See `Matcher.rollback`."""
        if not 0 <= n <= len(self._history):
            raise ConstraintError(f"cannot roll back {n} tokens: {len(self._history)} were accepted")
        if n:
            self._state = self._history[-n][0]
            self._terminated = False
            del self._history[-n:]

    @property
    def is_complete(self) -> bool:
        """Whether the output so far is a member of the language."""
        return self._state.node.nullable

    @property
    def is_terminated(self) -> bool:
        """Whether an end-of-sequence token was accepted."""
        return self._terminated

    def shortest_completion(self) -> bytes:
        """See `Matcher.shortest_completion`. Raises ConstraintTooComplex if a limit was reached."""
        return self._automaton.completion(self._state)

    def copy(self) -> AutomatonMatcher:
        """See `Matcher.copy`."""
        twin = AutomatonMatcher(self._automaton, self._masks)
        twin._state = self._state
        twin._history = self._history.copy()
        twin._terminated = self._terminated
        return twin
