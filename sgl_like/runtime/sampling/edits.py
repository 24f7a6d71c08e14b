"""What parameters do to single logits of a request: penalties, bias, and tokens that are banned for now.

In this order, before temperature and filters (p prompt, o output so far, forced tokens included; x a logit):

    repetition_penalty r     x / r if x > 0 else x * r         for each token in p or o     (Keskar et al., 2019)
    frequency_penalty f      x - f * (times in o)              for each token in o
    presence_penalty q       x - q                             for each token in o
    logit_bias b             x + b
    min_new_tokens           end-of-sequence and stop tokens are banned while o is shorter
    bad_words                tokens that would complete one are banned
    allowed_token_ids        all others are banned

All but bans are sums and factors of finite numbers, so they never lift a token that a constraint's mask has banned.
Bans go into the mask of a constrained request, but never take its last token: the constraint wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.logit_edits import edit_logits
from sgl_like.runtime.sampling.bad_words import BadWords
from sgl_like.runtime.sampling_params import SamplingParams

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
NO_IDS: Ids = np.empty(0, dtype=np.int64)


class Edit(NamedTuple):
    """Changes of one row, for `kernels.logit_edits`: ids int64, scales and shifts float32, all ``[n]``."""

    ids: Ids
    scales: Floats
    shifts: Floats


class TokenCounts:
    """How often each token of a growing sequence occurs, as arrays."""

    def __init__(self) -> None:
        self._place: dict[int, int] = {}
        self._ids = np.empty(32, dtype=np.int64)
        self._counts = np.zeros(32, dtype=np.float32)

    def add(self, token: int, times: int = 1) -> None:
        """Count a token; with ``times=0`` it is listed only."""
        at = self._place.setdefault(token, len(self._place))
        if at == len(self._ids):
            self._ids = np.concatenate((self._ids, np.empty_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._ids[at] = token
        self._counts[at] += times

    @property
    def ids(self) -> Ids:
        """The different tokens, in the order of their first occurrence: ``[n]``."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> Floats:
        """How often each of `ids` came: ``[n]``."""
        return self._counts[: len(self._place)]


class RowEdits:
    """The changes of one request. `observe` every token of its output.

    Args:
        params: the request's parameters.
        prompt: its prompt's token ids.
        ends: tokens that would end the output.
        bad_words: follows the output, if there are any.
        vocab_size: number of logits.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Ids,
        ends: Iterable[int],
        bad_words: BadWords | None,
        vocab_size: int,
    ) -> None:
        self._params = params
        self._vocab_size = vocab_size
        self._output = TokenCounts()
        self._seen = TokenCounts()
        if params.repetition_penalty != 1:
            for token in np.unique(prompt).tolist():
                self._seen.add(token)
        self._ends = np.array(sorted(ends), dtype=np.int64)
        self._length = 0
        self._bad_words = bad_words
        allowed = params.allowed_token_ids
        self._outside = np.setdiff1d(np.arange(vocab_size), allowed) if allowed else NO_IDS
        self._bias_ids = np.array([token for token, _ in params.logit_bias], dtype=np.int64)
        self._biases = np.array([bias for _, bias in params.logit_bias], dtype=np.float32)

    def observe(self, token: int) -> None:
        """The output has got this token."""
        self._length += 1
        params = self._params
        if params.frequency_penalty or params.presence_penalty:
            self._output.add(token)
        if params.repetition_penalty != 1:
            self._seen.add(token)
        if self._bad_words is not None:
            self._bad_words.observe(token)

    def changes(self) -> Edit:
        """Penalties and bias for the next token."""
        params, counts = self._params, self._output.counts
        shifts = -params.frequency_penalty * counts - params.presence_penalty
        seen, output, bias = self._seen.ids, self._output.ids, self._bias_ids
        scales = np.ones(len(seen) + len(output) + len(bias), dtype=np.float32)
        scales[: len(seen)] = params.repetition_penalty
        unshifted = np.zeros(len(seen), dtype=np.float32)
        return Edit(
            np.concatenate((seen, output, bias)),
            scales,
            np.concatenate((unshifted, shifts.astype(np.float32), self._biases)),
        )

    def banned(self) -> Ids:
        """Tokens that must not come next; never the whole vocabulary."""
        ends = self._ends if self._length < self._params.min_new_tokens else NO_IDS
        if self._bad_words is None and not len(self._outside):
            return ends
        words = NO_IDS if self._bad_words is None else self._bad_words.banned()
        for ids in ((self._outside, ends, words), (self._outside, ends), (self._outside,)):
            banned = np.concatenate(ids)
            if len(banned) < self._vocab_size or len(np.unique(banned)) < self._vocab_size:
                break
        return banned


def has_edits(params: SamplingParams) -> bool:
    """Whether the parameters change any logits."""
    return bool(
        params.frequency_penalty
        or params.presence_penalty
        or params.repetition_penalty != 1
        or params.logit_bias
        or params.min_new_tokens
        or params.bad_words
        or params.allowed_token_ids
    )


def apply_edits(logits: Tensor, edits: Sequence[tuple[int, Edit]]) -> None:
    """Change rows of ``[rows, vocab]`` logits, each by an `Edit`."""
    if not edits:
        return
    rows = np.concatenate([np.full(len(edit.ids), row, dtype=np.int64) for row, edit in edits])
    if len(rows):
        columns = zip(*(edit for _, edit in edits), strict=True)
        ids, scales, shifts = (np.concatenate(column) for column in columns)
        edit_logits(logits, rows, ids, scales, shifts)


def ban(ids: Ids) -> Edit:
    """The edit that bans tokens."""
    return Edit(ids, np.ones(len(ids), dtype=np.float32), np.full(len(ids), -np.inf, dtype=np.float32))


def ban_in_mask(mask: NDArray[np.int32], ids: Ids) -> None:
    """Take tokens out of a packed mask, unless it would be left without any."""
    kept = mask.view(np.uint32).copy()
    bits = np.uint32(1) << (ids % 32).astype(np.uint32)
    np.bitwise_and.at(kept, ids // 32, ~bits)
    if kept.any():
        mask[:] = kept.view(np.int32)
