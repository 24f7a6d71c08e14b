"""What a step's logits go through before and after tokens are drawn from them, each for the requests of its rows.

logits ──> copies to be scored ──> edits ──> masks ──> draw ──> room for an ending? ──> scores
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sgl_like.kernels.upload import uploaded
from sgl_like.runtime.constrain.batch import fill_masks
from sgl_like.runtime.engine.request import Request
from sgl_like.runtime.sampling.edits import Edit, ban, ban_in_mask
from sgl_like.runtime.sampling.masked_logits import MaskedLogits, masks_for
from sgl_like.runtime.sampling.sampler import RowSampler, sample
from sgl_like.runtime.sampling.scoring import Wanted, score


class Scoring:
    """The rows of those that report log-probabilities, as the model gave them.

    Args:
        requests: of the rows.
        logits: ``[rows, vocab]``; may change afterwards.
    """

    def __init__(self, requests: Sequence[Request], logits: Tensor) -> None:
        rows = [i for i, request in enumerate(requests) if request.scores is not None]
        self._of = [(requests[i].rid, scores) for i in rows if (scores := requests[i].scores) is not None]
        self._logits = logits[uploaded(np.array(rows), logits.device)] if rows else None

    def add(self, tokens: Mapping[str, int]) -> None:
        """Score the tokens that requests have taken, by request id."""
        if self._logits is None:
            return
        wanted = [scores.wanted(tokens[rid]) if rid in tokens else Wanted([], 0) for rid, scores in self._of]
        for (rid, scores), given in zip(self._of, score(self._logits, wanted), strict=True):
            if rid in tokens:
                scores.add(tokens[rid], given)


def row_changes(requests: Sequence[Request]) -> list[tuple[int, Edit]]:
    """What changes single logits of the requests' rows; the bans of constrained ones go into their masks instead."""
    changes: list[tuple[int, Edit]] = []
    for row, request in enumerate(requests):
        if request.edits is not None:
            changes.append((row, request.edits.changes()))
            if request.matcher is None:
                changes.append((row, ban(request.edits.banned())))
    return changes


def with_masks(requests: Sequence[Request], logits: Tensor) -> MaskedLogits:
    """The requests' rows with the masks of those that are constrained; each of them can go on."""
    held = [i for i, request in enumerate(requests) if request.matcher is not None]
    if not held:
        return MaskedLogits(logits)
    masks = masks_for(len(held), logits)
    fill_masks([requests[i].matcher for i in held], masks.numpy())
    for i, mask in zip(held, masks.numpy(), strict=True):
        edits = requests[i].edits
        if edits is not None:
            ban_in_mask(mask, edits.banned())
    return MaskedLogits(logits, masks, held)


def leave_room(request: Request, token: int, logits: MaskedLogits, row: int) -> int | None:
    """`token`, or another one if a constrained output could not be completed after it; None: it is to end here."""
    ending, matcher = request.ending, request.matcher
    if ending is None or matcher is None:
        return token

    again: RowSampler | None = None

    def redraw(banned: int) -> int | None:
        nonlocal again
        again = again or request.sampler.again()
        left = logits.row(row)
        left[banned] = -torch.inf
        return sample(left[None], [again])[0] if left.max() > -torch.inf else None

    return ending.choose(matcher, token, request.tokens_left, redraw)
