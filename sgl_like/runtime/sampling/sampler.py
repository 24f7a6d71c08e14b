"""Logits to tokens: one draw per row from that row's own random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgl_like.kernels.argmax import argmax
from sgl_like.kernels.dispatch import by_triton
from sgl_like.runtime.sampling.distribution import distributions
from sgl_like.runtime.sampling_params import SamplingParams

BELOW_ONE = 1 - 2**-24
"""The greatest float32 below 1."""


@dataclass(slots=True)
class RowSampler:
    """How one request samples: its parameters and its own random numbers, the same in whatever batch it runs.

    Every place of an output takes one number. Where a token is drawn again for the same place, the numbers come from
    that one (`again`), so that what a later place gets depends on how many were sampled before it and on nothing else.
    """

    params: SamplingParams
    random: random.Random
    drawn: float = 0.0

    @classmethod
    def of(cls, params: SamplingParams) -> RowSampler:
        """Seeded by ``params.seed``, or from the operating system."""
        return cls(params, random.Random(params.seed))

    def draw(self) -> float:
        """The next place's number."""
        self.drawn = self.random.random()
        return self.drawn

    def again(self) -> RowSampler:
        """Samples further tokens for the place whose number was drawn last."""
        return RowSampler(self.params, random.Random(self.drawn))


def sample(logits: Tensor, rows: Sequence[RowSampler]) -> list[int]:
    """One token for each row.

    Args:
        logits: ``[rows, vocab]`` float32; banned tokens are -inf. Each row has at least one finite entry.
        rows: how each row samples.
    """
    if by_triton(logits):
        return _sample_on_device(logits, rows)
    drawn = [i for i, row in enumerate(rows) if not row.params.is_greedy]
    tokens: list[int] = argmax(logits.contiguous()).tolist() if len(drawn) < len(rows) else [0] * len(rows)
    if not drawn:
        return tokens
    values = (logits if len(drawn) == len(rows) else logits[drawn]).numpy()
    each = distributions(values, [rows[i].params.temperature for i in drawn])
    for i, distribution in zip(drawn, each, strict=True):
        tokens[i] = distribution.draw(rows[i].params, rows[i].draw())
    return tokens


def _sample_on_device(logits: Tensor, rows: Sequence[RowSampler]) -> list[int]:
    from sgl_like.kernels.sample import SampleRows
    from sgl_like.kernels.triton.sample import sample as run

    params = [row.params for row in rows]
    floats = torch.tensor(
        [
            [0.0 if p.is_greedy else p.temperature for p in params],
            [p.top_p for p in params],
            [p.min_p for p in params],
            [min(row.draw(), BELOW_ONE) if not row.params.is_greedy else 0.0 for row in rows],
        ],
        dtype=torch.float32,
    ).to(logits.device)
    top_k = torch.tensor([max(p.top_k, 0) for p in params], dtype=torch.int32).to(logits.device)
    given = SampleRows(floats[0], top_k, floats[1], floats[2], floats[3])
    tokens: list[int] = run(logits.contiguous(), given).tolist()
    return tokens
