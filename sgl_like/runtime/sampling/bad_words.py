"""Strings that must not occur in the output, however they are cut into tokens.

A token completes a word if it has the word in it, or begins with what is left of the word after some of the output's
last bytes. Tokens sorted by their bytes make the second a range:

    word "badly"     output ends with "... ba"     banned: every token that has "badly" in it, or begins with "dly"
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class TokenTable:
    """A vocabulary's tokens by their bytes. Made once for a tokenizer; not changed by look-ups.

    Args:
        token_bytes: bytes of each token id; ``None`` for special tokens.
    """

    def __init__(self, token_bytes: Sequence[bytes | None]) -> None:
        self.token_bytes = token_bytes

    @cached_property
    def _sorted(self) -> tuple[list[bytes], Ids]:
        pairs = sorted((data, token) for token, data in enumerate(self.token_bytes) if data)
        return [data for data, _ in pairs], np.array([token for _, token in pairs], dtype=np.int64)

    @cached_property
    def _joined(self) -> tuple[bytes, NDArray[np.int64]]:
        """All tokens one after the other in id order, and where each begins."""
        lengths = [len(data or b"") for data in self.token_bytes]
        return b"".join(data or b"" for data in self.token_bytes), np.concatenate(([0], np.cumsum(lengths)))

    def beginning_with(self, data: bytes) -> Ids:
        """Ids of the tokens that begin with some bytes (at least one)."""
        texts, ids = self._sorted
        after = data.rstrip(b"\xff")  # what comes after all strings that begin with `data`
        end = bisect_left(texts, after[:-1] + bytes([after[-1] + 1])) if after else len(texts)
        return ids[bisect_left(texts, data) : end]

    def containing(self, data: bytes) -> Ids:
        """Ids of the tokens that have some bytes (at least one) in them."""
        joined, starts = self._joined
        found: list[int] = []
        at = joined.find(data)
        while at >= 0:
            token = int(np.searchsorted(starts, at, side="right")) - 1
            if at + len(data) <= starts[token + 1]:
                found.append(token)
                at = joined.find(data, int(starts[token + 1]))
            else:  # it only arises between two tokens
                at = joined.find(data, at + 1)
        return np.array(found, dtype=np.int64)


class BadWords:
    """Follows one output. The first ban of each kind is looked up in the table, later ones are remembered.

    Args:
        table: of the vocabulary.
        words: UTF-8 of the words, none of them empty.
    """

    def __init__(self, table: TokenTable, words: Sequence[bytes]) -> None:
        self._table = table
        self._words = words
        self._tail = b""  # the output's last bytes
        self._keep = max(len(word) for word in words) - 1
        self._known: dict[bytes, Ids] = {}
        self._always = np.unique(np.concatenate([table.containing(word) for word in words]))

    @property
    def always(self) -> Ids:
        """Tokens that are banned wherever the output stands."""
        return self._always

    def observe(self, token: int) -> None:
        """The output has got this token."""
        data = self._table.token_bytes[token] if token < len(self._table.token_bytes) else None
        if data and self._keep:
            self._tail = (self._tail + data)[-self._keep :]

    def banned(self) -> Ids:
        """Tokens that would complete a word."""
        tail = self._tail
        rests = {
            word[size:]
            for word in self._words
            for size in range(1, min(len(word) - 1, len(tail)) + 1)
            if tail.endswith(word[:size])
        }
        found = [self._always]
        for rest in rests:
            if rest not in self._known:
                self._known[rest] = self._table.beginning_with(rest)
            found.append(self._known[rest])
        return np.concatenate(found) if rests else self._always
