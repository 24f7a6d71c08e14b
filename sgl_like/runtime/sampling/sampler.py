"""Logits to tokens: one draw per row from that row's own random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.argmax import argmax
from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.upload import host_memory
from sgl_like.runtime.sampling.distribution import distributions
from sgl_like.runtime.sampling_params import SamplingParams

BELOW_ONE = 1 - 2**-24
"""The greatest float32 below 1."""
HOTTEST = 1e30
"""Temperature from which on float32 does not tell a row from a flat one."""


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


def sample(
    logits: Tensor,
    rows: Sequence[RowSampler],
    masks: Tensor | None = None,
    mask_of: NDArray[np.int32] | None = None,
) -> list[int]:
    """One token for each row.

    Args:
        logits: ``[rows, vocab]`` float32; banned tokens are -inf. Each row has at least one finite entry.
        rows: how each row samples.
        masks: what else is banned, packed, on the logits' device, which is a GPU; see `kernels.sample`.
        mask_of: int32 ``[rows]``, the mask of each row; -1: none. Needed with `masks`.
    """
    if by_triton(logits):
        return _sample_on_device(logits, rows, masks, mask_of)
    assert masks is None
    drawn = [i for i, row in enumerate(rows) if not row.params.is_greedy]
    tokens: list[int] = argmax(logits.contiguous()).tolist() if len(drawn) < len(rows) else [0] * len(rows)
    if not drawn:
        return tokens
    values = (logits if len(drawn) == len(rows) else logits[drawn]).numpy()
    each = distributions(values, [rows[i].params.temperature for i in drawn])
    for i, distribution in zip(drawn, each, strict=True):
        tokens[i] = distribution.draw(rows[i].params, rows[i].draw())
    return tokens


def _sample_on_device(
    logits: Tensor, rows: Sequence[RowSampler], masks: Tensor | None, mask_of: NDArray[np.int32] | None
) -> list[int]:
    from sgl_like.kernels.sample import SampleRows
    from sgl_like.kernels.triton.sample import sample as run

    # all columns go up in one copy, each at a multiple of 16 bytes: Triton would compile others anew
    table = host_memory((6, -(-len(rows) // 4) * 4), torch.float32, logits.device)
    floats, ints = (each[:, : len(rows)] for each in (table.numpy(), table.view(torch.int32).numpy()))
    for i, (params, greedy) in enumerate((row.params, row.params.is_greedy) for row in rows):
        floats[0, i] = 0 if greedy else min(params.temperature, HOTTEST)
        floats[1, i], floats[2, i] = params.top_p, params.min_p
        floats[3, i] = 0 if greedy else min(rows[i].draw(), BELOW_ONE)
        ints[4, i] = min(max(params.top_k, 0), logits.shape[1])
    ints[5] = -1 if mask_of is None else mask_of
    moved = table.to(logits.device, non_blocking=True)
    given, whole = (each[:, : len(rows)] for each in (moved, moved.view(torch.int32)))
    columns = SampleRows(given[0], whole[4], given[1], given[2], given[3], whole[5])
    tokens: list[int] = run(logits.contiguous(), columns, masks).tolist()
    return tokens
