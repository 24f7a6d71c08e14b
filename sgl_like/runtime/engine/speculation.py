"""Speculative decoding without a second model: what followed the last tokens before may follow them again.

    tokens   the cat sat on the mat . the cat            draft:  sat on the mat
                                      └ seen before: ┘
    step     computes [cat | sat on the mat]             five positions in one pass, so five rows of logits
    verify   sample after `cat`: sat? after `sat`: on? ... up to the first that is not what was sampled

Every token is sampled exactly as without a draft: from the model's logits after the tokens before it, with mask,
penalties and the request's own random number for it. A draft only decides whether those logits are there already. So
greedy outputs and outputs of a seed stay the same (but for rounding, which may differ by how many rows a pass has),
and distributions too. Keys and values of rejected tokens lie behind `Request.computed`: their slots are given back,
and nothing of them gets into the cache's tree.

Drafts cost little where a pass is bound by reading the weights, so only small batches have them. A request whose
drafts are rejected makes shorter ones, and pauses for twice as long each time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgl_like.runtime.engine.drafts import FIRST_LENGTH, DraftLength, ngram_draft
from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.request import Request
from sgl_like.runtime.engine.scheduler import Row

SIZES = (6, 4, 2)
"""Tokens that a pass with drafts has in all. CPUs read the weights once for up to 6 tokens (`kernels/tiles.py`), but
twice for 3 or 5. Of 0.5 billion bfloat16 weights, one thread of an AMD EPYC computed 1, 2, 4 or 6 tokens of one row
in 72 to 75 ms, 3 in 120, 5 in 134 and 8 in 147.
"""


class Speculation:
    """Adds drafts to the rows of a step.

    Args:
        memory: the KV slots.
        most: longest draft, in tokens.
        sizes: tokens that a step with drafts may have in all, largest first.
    """

    def __init__(self, memory: KVMemory, most: int, sizes: Sequence[int] = SIZES) -> None:
        self._memory = memory
        self._most = most
        self._sizes = sizes

    def extend(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, those that decode with a draft where one is likely to pay; slots for it are allocated."""
        least = sum(row.new_tokens for row in rows)
        budget = self._sizes[0] - least
        drafts: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if budget > 0 and _decodes(row):
                draft = self._draft(row.request, budget)
                if draft:
                    drafts[i] = draft
                    budget -= len(draft)
        total = least + sum(map(len, drafts.values()))
        budget = next((size for size in self._sizes if size <= total), 0) - least
        out = list(rows)
        for i, draft in drafts.items():
            part = tuple(draft[: max(budget, 0)])
            if part and self._grow(rows[i], len(part)):
                out[i] = rows[i]._replace(draft=part)
                budget -= len(part)
        return out

    def settle(self, row: Row) -> int:
        """After sampling: how many tokens of a row's draft the request has got now. What is computed of them is kept,
        slots of the others are given back.
        """
        request = row.request
        count = accepted_tokens(row)
        request.draft_tokens += len(row.draft)
        request.accepted_tokens += count
        if request.drafting is not None:
            request.drafting.learn(len(row.draft), count, self._most)
        done = min(request.computed + count, len(request.tokens) - 1)
        if request.scores is not None:  # the place before the next to be scored is to be computed yet
            done = min(done, request.scores.next_place - 1)
        request.computed = max(request.computed, done)
        self._memory.trim(request)
        return count

    def _draft(self, request: Request, most: int) -> list[int]:
        if request.drafting is None:
            request.drafting = DraftLength(min(FIRST_LENGTH, self._most))
        if not request.drafting.ready():
            return []
        most = min(most, request.drafting.length, request.tokens_left - 1)
        return ngram_draft(request.tokens.view(), most) if most > 0 else []

    def _grow(self, row: Row, more: int) -> bool:
        """Slots for a draft, if no running request and no pin has to make way."""
        wanted = row.new_tokens + more
        if self._memory.missing(row.request, wanted) > self._memory.available:
            return False
        return self._memory.grow(row.request, wanted)


def _decodes(row: Row) -> bool:
    """Whether a row is about to sample, and not its first token."""
    return row.new_tokens == row.request.pending and len(row.request.tokens) > row.request.prompt_length


def accepted_tokens(row: Row) -> int:
    """How many of a draft's tokens are what the request's sequence goes on with."""
    request = row.request
    known = request.tokens.view(request.computed)[: len(row.draft)]
    differing = np.flatnonzero(known != np.array(row.draft[: len(known)], dtype=np.int32))
    return int(differing[0]) if len(differing) else len(known)


def next_place(row: Row) -> int | None:
    """Where in a row's draft (0: before it) the logits for the request's next token are; None if nowhere."""
    request = row.request
    known = len(request.tokens) - request.computed
    if known > len(row.draft) or accepted_tokens(row) < known:
        return None
    return None if request.owes_scores else known
