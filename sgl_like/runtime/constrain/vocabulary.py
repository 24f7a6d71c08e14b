"""What the tokens of a tokenizer are as bytes: all that the constraint engine knows about a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sgl_like.errors import ConstraintError
from sgl_like.kernels.trim import trim
from sgl_like.runtime.constrain.base import mask_words
from sgl_like.runtime.constrain.trie import Trie, build_trie, find_extension

__all__ = ["Vocabulary"]


class Vocabulary:
    """Token bytes, end-of-sequence ids and, optionally, the tokenizer.

    Args:
        token_bytes: the bytes that each id stands for; None (or empty) for special tokens, which no constraint
            allows.
        eos_token_ids: ids that end an output; allowed where the output is complete. Their bytes do not matter.
        tokenize: text to token ids without special tokens, for `Matcher.forced_tokens`; without it nothing is
            forced.

    Raises:
        ConstraintError: an end-of-sequence id is not in the vocabulary, or no token has any bytes.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        eos_token_ids: Iterable[int],
        tokenize: Callable[[str], list[int]] | None = None,
    ) -> None:
        self.size = len(token_bytes)
        self.words = mask_words(self.size)
        self.eos_token_ids = frozenset(int(i) for i in eos_token_ids)
        self.tokenize = tokenize
        if not all(0 <= i < self.size for i in self.eos_token_ids):
            raise ConstraintError(
                f"end-of-sequence ids {sorted(self.eos_token_ids)} are not all in 0..{self.size - 1}"
            )
        self.token_bytes: tuple[bytes | None, ...] = tuple(
            None if not data or i in self.eos_token_ids else bytes(data) for i, data in enumerate(token_bytes)
        )
        self.trie: Trie = build_trie(self.token_bytes)
        if not len(self.trie.tokens):
            raise ConstraintError("the vocabulary has no token with bytes")
        self.eos_mask = np.zeros(self.words, dtype=np.uint32)
        for i in self.eos_token_ids:
            self.eos_mask[i >> 5] |= np.uint32(1 << (i & 31))
        trim()  # building the trie took several times its size

    def trie_node(self, prefix: bytes) -> int:
        """The trie node below which are the tokens that start with `prefix` (not empty) and go on; -1 if none."""
        return int(find_extension(self.trie.byte, self.trie.end, np.frombuffer(prefix, np.uint8).copy()))
