"""Logits to tokens: temperature, top-k, top-p, min-p, and one draw per row from that row's own random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgl_like.runtime.sampling_params import SamplingParams


@dataclass(slots=True)
class RowSampler:
    """How one request samples: its parameters and its own random numbers, the same in whatever batch it runs."""

    params: SamplingParams
    random: random.Random

    @classmethod
    def of(cls, params: SamplingParams) -> RowSampler:
        """Seeded by ``params.seed``, or from the operating system."""
        return cls(params, random.Random(params.seed))


def sample(logits: Tensor, rows: Sequence[RowSampler]) -> list[int]:
    """One token for each row.

    Args:
        logits: ``[rows, vocab]`` float32; banned tokens are -inf. Each row has at least one finite entry.
        rows: how each row samples.
    """
    tokens: list[int] = torch.argmax(logits, dim=-1).tolist()  # the lowest id wins a tie
    for i, row in enumerate(rows):
        if not row.params.is_greedy:
            tokens[i] = draw(logits[i], row.params, row.random.random())
    return tokens


def draw(logits: Tensor, params: SamplingParams, uniform: float) -> int:
    """The token where the kept tokens' cumulative probability, likeliest first, passes `uniform` in [0, 1).

    Args:
        logits: ``[vocab]`` float32.
        params: temperature and filters.
        uniform: the row's random number.
    """
    probabilities, ids = kept_probabilities(logits, params)
    cumulative = probabilities.double().cumsum(0)
    at = int(torch.searchsorted(cumulative, uniform * float(cumulative[-1]), right=True))
    return int(ids[min(at, len(ids) - 1)])


def kept_probabilities(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Probabilities (not renormalised) and ids of the tokens that the filters keep, likeliest first.

    Temperature comes first; top-p and min-p look at the distribution that top-k has left.
    """
    count = len(logits) if params.top_k < 0 else min(params.top_k, len(logits))
    values, ids = torch.topk(logits, count) if count < len(logits) else torch.sort(logits, descending=True)
    probabilities = torch.softmax(values / params.temperature, dim=0)
    kept = probabilities > 0
    if params.top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        kept &= before < params.top_p
    if params.min_p > 0:
        kept &= probabilities >= params.min_p * probabilities[0]
    kept[0] = True
    return probabilities[kept], ids[kept]


def token_logprobs(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probability of ``tokens[i]`` under row i of the logits (``[n, vocab]`` float32)."""
    picked = logits.gather(1, torch.tensor(list(tokens)).unsqueeze(1)).squeeze(1)
    result: list[float] = (picked - torch.logsumexp(logits, dim=-1)).tolist()
    return result
