"""The contract of the constraint engine: what a matcher does, and the limits that every part keeps to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Limits", "Matcher", "mask_words"]


def mask_words(vocab_size: int) -> int:
    """Number of int32 words in one packed token mask of `vocab_size` tokens."""
    return (vocab_size + 31) // 32


@dataclass(frozen=True)
class Limits:
    """Bounds on size and work; going over one raises `ConstraintTooComplex`, except where said otherwise.

    Args:
        max_states: automaton states kept per grammar (about 1.2 kB each). A full automaton is emptied and filled
            again on demand; only a single mask that needs more than this many states at once is an error.
        max_work: expression nodes made by one compilation or for one automaton state.
        max_width: alternatives that one expression may have open at once: what an ambiguous grammar runs into. How
            deep an output nests is not limited: a level takes the memory of a few expression nodes.
        max_search: states visited to prove a conjunction non-empty, or to find a shortest completion.
        max_seconds: of one compilation.
        max_step_seconds: of finding one mask or one completion, or of one step of a matcher. What is forced is left to
            be found token by token if finding it takes longer (never an error).
        max_depth: nesting depth of a JSON schema.
        max_mask_bytes: bytes of token masks kept per grammar (the least recently used go first; never an error).
        max_forced: bytes that `forced_bytes` returns at most (never an error).
        max_source: characters of a regex, JSON schema, grammar or structural tag.
        max_machine_bytes: approximate bytes of what is found out about JSON schemas; beyond that it is forgotten and
            found out again (never an error).
        max_whitespace: whitespace characters in a row where any whitespace is allowed (never an error).
        max_grammars: compiled grammars kept by a `GrammarCompiler` (never an error).
        max_cache_bytes: approximate bytes of all grammars kept by a `GrammarCompiler` (never an error).
    """

    max_states: int = 65_536
    max_work: int = 1_000_000
    max_width: int = 20_000
    max_search: int = 50_000
    max_seconds: float = 5.0
    max_step_seconds: float = 5.0
    max_depth: int = 64
    max_mask_bytes: int = 16 << 20
    max_forced: int = 1_024
    max_source: int = 4 << 20
    max_machine_bytes: int = 32 << 20
    max_whitespace: int = 20
    max_grammars: int = 64
    max_cache_bytes: int = 256 << 20


class Matcher(Protocol):
    """Follows one output through its constraint. Not thread-safe itself; matchers of one grammar share their
    automaton, and may be used from different threads.
    """

    vocab_size: int

    def fill_mask(self, out: NDArray[np.int32], row: int) -> None:
        """Write the mask of allowed next tokens into `out[row]`.

        Args:
            out: int32 [batch, ceil(vocab_size / 32)]; bit ``t % 32`` of word ``t // 32`` set = token t is allowed.
            row: which row to write.

        The end-of-sequence ids are allowed exactly where the output is complete. After one was accepted they are
        the only ones in the mask (so that a padded row can still be sampled), but none is accepted any more.

        Raises:
            ConstraintError: no token of the vocabulary can go on, or a limit was reached; the matcher is unchanged.
        """

    def mask_parts(self) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        """The mask that `fill_mask` writes, as words, uint32 [words], and tokens besides, int32 [n]: what many masks
        are written from at once, see `batch.fill_masks`. Neither is to be written to. Raises as `fill_mask` does.
        """

    @property
    def learns_with(self) -> object:
        """What all matchers that find masks under one lock have in common: in other threads they would wait."""

    def accept_token(self, token: int) -> bool:
        """Advance by one token id. False, and no change, if it is not allowed here."""

    def accept_bytes(self, data: bytes) -> bool:
        """Advance by raw bytes: all of them or, returning False, none. A `rollback` of the token accepted before
        takes them back too.
        """

    def forced_bytes(self) -> bytes:
        """The longest byte string that every continuation starts with; stops where the output may end."""

    def forced_tokens(self) -> list[int]:
        """Canonical tokens of `forced_bytes`, without those whose tokenisation could change with what follows.
        Empty if the vocabulary has no tokenizer. Does not advance the matcher.
        """

    def rollback(self, n: int) -> None:
        """Undo the last `n` accepted tokens. Raises ConstraintError if there are fewer."""

    @property
    def is_complete(self) -> bool:
        """Whether the output so far is a member of the language."""

    @property
    def is_terminated(self) -> bool:
        """Whether an end-of-sequence token was accepted."""

    def shortest_completion(self) -> bytes:
        """A shortest byte string (in bytes) that makes the output complete; empty if it already is."""

    def copy(self) -> Matcher:
        """An independent matcher in the same state with the same history."""
