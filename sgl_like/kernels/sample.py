"""Masks, temperature, top-k, top-p, min-p and the draw, in one op over a batch's logits.

Contract: ``sample(logits, rows, masks=None) -> ids``

    logits             [rows, vocab] float32, not changed; no NaN, in each row a finite logit that its mask allows
    rows.temperature   [rows] float32; 0: the likeliest token, the lowest id of equals
    rows.top_k         [rows] int32; 0: off
    rows.top_p         [rows] float32 in (0, 1]
    rows.min_p         [rows] float32 in [0, 1]
    rows.uniform       [rows] float32 in [0, 1)
    masks              int32 [n, ceil(vocab / 32)], see `token_mask`
    rows.mask          [rows] int32: which of the masks is the row's, -1: none; None: each row has the one of its number
    ids                int64 [rows]

A token is kept if it is among the k likeliest; if those likelier than it have less than `top_p` of the probability of
what top-k has left; and if it is at least `min_p` times as likely as the likeliest. Tokens as likely as the last
one that is kept are kept, too. The draw is the token where the cumulative probability of what is kept, in the order of
ids, passes `uniform`.

On CPUs the engine draws from `runtime/sampling/distribution.py` instead, which sorts what little is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SampleRows:
    """How each row is sampled; see the module's contract."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniform: Tensor
    mask: Tensor | None = None


def reference(logits: Tensor, rows: SampleRows, masks: Tensor | None = None) -> Tensor:
    """Row by row, in float64, with a sort."""
    found = []
    for r in range(len(logits)):
        row = logits[r].double().clone()
        which = r if rows.mask is None else int(rows.mask[r])
        if masks is not None and which >= 0:
            bits = torch.arange(len(row))
            row[(masks[which][bits // 32] >> (bits % 32)) & 1 == 0] = -torch.inf
        if rows.temperature[r] == 0:
            found.append(int(row.argmax()))
            continue
        weights = ((row - row.max()) / rows.temperature[r].double()).exp()
        kept = weights * kept_tokens(weights, int(rows.top_k[r]), float(rows.top_p[r]), float(rows.min_p[r]))
        passed = kept.cumsum(0) > rows.uniform[r].double() * kept.sum()
        found.append(int(passed.int().argmax()))
    return torch.tensor(found, dtype=torch.int64)


def kept_tokens(weights: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Which tokens the filters keep, of weights ``[vocab]`` whose greatest is 1."""
    ordered = weights.sort(descending=True).values
    least = torch.tensor(min_p, dtype=weights.dtype)
    if 0 < top_k < len(weights):
        least = torch.maximum(least, ordered[top_k - 1])
        ordered = ordered[ordered >= ordered[top_k - 1]]
    if top_p < 1:
        before = ordered.cumsum(0) - ordered
        least = torch.maximum(least, ordered[before < top_p * ordered.sum()][-1])
    return (weights >= least) & (weights > 0)
