"""One forward pass: rows to a batch, and hidden states to the logits that somebody needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.attention import AttentionRows
from sgl_like.kernels.upload import uploaded
from sgl_like.runtime.cache.kv_pool import CPU, KVPool
from sgl_like.runtime.engine.scheduler import Row
from sgl_like.runtime.engine.scores import Scores
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.load import Model
from sgl_like.runtime.sampling.scoring import score

LOGITS_AT_ONCE = 256
"""Places whose full logits are held at the same time when scoring, at most."""
LOGITS_BYTES = 32 * 2**20
"""What these may take, if one place may go beyond it: 56 places of a vocabulary of 150,000. From this size on glibc's
malloc gives memory back to the system at once. Smaller pieces it keeps, cuts small objects out of, and then takes
others for the next logits: with 16 MiB at a time it came to 110 MB.
"""


class ModelRunner:
    """The model with its KV pool.

    Args:
        model: the network.
        pool: its keys and values.
    """

    def __init__(self, model: Model, pool: KVPool) -> None:
        self._model = model
        self._pool = pool
        self._logits_at_once = min(LOGITS_AT_ONCE, LOGITS_BYTES // (4 * model.config.vocab_size) + 1)

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """Compute the rows' pending tokens: hidden states ``[tokens, hidden]``, row after row."""
        return self._model.forward(make_batch(rows, self._pool.device), self._pool)

    def last_logits(self, hidden: Tensor, rows: Sequence[Row], wanted: Sequence[int]) -> Tensor:
        """Logits after the last token of the rows numbered `wanted`, each followed by those after the tokens of its
        draft: ``[len(wanted) + draft tokens, vocab]`` float32.
        """
        ends = np.cumsum([row.size for row in rows])
        places = [np.arange(ends[i] - 1 - len(rows[i].draft), ends[i]) for i in wanted]
        return self._model.logits(hidden[uploaded(np.concatenate(places), hidden.device)])

    def score(self, hidden: Tensor, rows: Sequence[Row]) -> None:
        """Add the log-probabilities that requests want and this step makes known: those of prompt and forced tokens.

        The token at place p is scored by the hidden state at p - 1.
        """
        start = 0
        for row in rows:
            request, count = row.request, row.new_tokens
            if request.scores is not None:
                first = start - request.computed  # where in `hidden` place 0 would be
                end = min(request.computed + count, len(request.tokens) - 1)
                for low in range(request.scores.next_place - 1, end, self._logits_at_once):
                    high = min(low + self._logits_at_once, end)
                    tokens: list[int | None] = [*request.tokens.view(low + 1, high + 1).tolist()]
                    begin = max(high - self._logits_at_once, request.computed)  # all pieces are of one size
                    self._score(request.scores, tokens, hidden[first + begin : first + high])
                if request.scores.after_prompt and request.computed + count == len(request.tokens):
                    self._score(request.scores, [None], hidden[start + count - 1 : start + count])
            start += row.size

    def _score(self, scores: Scores, tokens: Sequence[int | None], hidden: Tensor) -> None:
        """Score the next tokens by the last states. The logits are gone when this returns."""
        logits = self._model.logits(hidden)[-len(tokens) :]
        wanted = [scores.wanted(token, ahead) for ahead, token in enumerate(tokens)]
        for token, given in zip(tokens, score(logits, wanted), strict=True):
            scores.add(token, given)

    def pool(self, hidden: Tensor, rows: Sequence[Row]) -> None:
        """Add the hidden states that embeddings are made of."""
        start = 0
        for row in rows:
            request = row.request
            if request.pooling is not None:
                first = start + request.pooling.next_place - request.computed
                request.pooling.add(hidden[first : start + row.new_tokens])
            start += row.size


def make_batch(rows: Sequence[Row], device: torch.device = CPU) -> ForwardBatch:
    """The tensors of one step; slots for all tokens are allocated already."""
    tokens = np.concatenate([_new_tokens(row) for row in rows])
    starts, counts = [row.request.computed for row in rows], [row.size for row in rows]
    lengths = [start + count for start, count in zip(starts, counts, strict=True)]
    slots = np.concatenate(
        [row.request.slots.view(*span) for row, *span in zip(rows, starts, lengths, strict=True)]
    )
    positions = np.concatenate(
        [np.arange(*span, dtype=np.int64) for span in zip(starts, lengths, strict=True)]
    )
    return ForwardBatch(
        input_ids=uploaded(tokens.astype(np.int64), device),
        positions=uploaded(positions, device),
        slots=uploaded(slots.astype(np.int64), device),
        rows=AttentionRows(
            q_start=_starts(counts),
            kv_start=_starts(lengths),
            kv_slots=np.concatenate(
                [row.request.slots.view(0, n) for row, n in zip(rows, lengths, strict=True)]
            ),
        ),
    )


def _new_tokens(row: Row) -> NDArray[np.int32]:
    request = row.request
    tokens = request.tokens.view(request.computed, request.computed + row.new_tokens)
    return np.concatenate((tokens, np.array(row.draft, dtype=np.int32))) if row.draft else tokens


def _starts(counts: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
