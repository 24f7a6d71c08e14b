"""Log-probabilities against torch's, and masks written into their rows."""

from __future__ import annotations

import math

import pytest
import torch

from sgl_like.runtime.sampling.masked_logits import MaskedLogits, masks_for
from sgl_like.runtime.sampling.sampler import RowSampler
from sgl_like.runtime.sampling.scoring import Wanted, score
from sgl_like.runtime.sampling_params import SamplingParams


def test_scores() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, -1.0], [1.0, -torch.inf, -torch.inf, 0.5]])
    expected = logits.double().log_softmax(dim=1).tolist()
    first, second = score(logits, [Wanted([3, 0, 3], 3), Wanted([], 3)])
    assert first.logprobs == pytest.approx([expected[0][3], expected[0][0], expected[0][3]])
    assert first.top_ids == [1, 2, 0]  # of equals the lower id
    assert first.top_logprobs == pytest.approx([expected[0][token] for token in first.top_ids])
    assert second.logprobs == [] and second.top_ids == [0, 3]  # no others are possible
    assert score(logits, [Wanted([], 0)] * 2)[0] == ([], [], [])
    assert score(logits, [Wanted([1], 0)] * 2)[1].logprobs == [-math.inf]


def test_masks_are_for_the_rows_that_they_name() -> None:
    logits = torch.zeros(3, 40)
    logits[:, 7] = 1.0
    masks = masks_for(2, logits)
    masks[0] = torch.tensor([1 << 5, 1 << 2])
    masks[1] = torch.tensor([0, 1 << 7])
    masked = MaskedLogits(logits, masks, [2, 0])
    assert masked.sample([RowSampler.of(SamplingParams(temperature=0))] * 3) == [39, 7, 5]
    assert (masked.row(2) > -torch.inf).nonzero()[:, 0].tolist() == [5, 34]
    assert (masked.row(1) > -torch.inf).all()
