"""What the engine finds in logits on a device is what it finds on a CPU: masks, draws, log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sgl_like.kernels import dispatch
from sgl_like.runtime.sampling.masked_logits import MaskedLogits, masks_for
from sgl_like.runtime.sampling.sampler import RowSampler
from sgl_like.runtime.sampling.scoring import Wanted, likeliest_tokens, score
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.poison import Poison

HELD = [0, 2, 3]
PARAMS = [
    {"temperature": 0},
    {"temperature": 0},
    {"top_k": 5, "seed": 1},
    {"top_p": 0.8, "seed": 2},
    {"temperature": 0.7, "seed": 3},
    {"min_p": 0.1, "temperature": 1e30, "seed": 4},
]


def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on Triton's versions run, on the CPU too."""
    monkeypatch.setattr(dispatch, "_INTERPRETED", True)


def masked(logits: Tensor, masks: Tensor) -> MaskedLogits:
    memory = masks_for(len(masks), logits)
    return MaskedLogits(logits, memory.copy_(masks), HELD)


def samplers() -> list[RowSampler]:
    return [RowSampler.of(SamplingParams.from_dict(values)) for values in PARAMS]


def test_masks_and_draws(device: str, poison: Poison, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(len(PARAMS), 300)
    masks = torch.randint(-(2**31), 2**31, (len(HELD), 10), dtype=torch.int64).int()
    expected = masked(logits.clone(), masks)
    places = [expected.row(row) for row in range(len(PARAMS))]
    greedy = expected.sample(samplers())[:2]
    on_triton(monkeypatch)
    found = masked(poison.put(logits, device), masks)
    tokens = found.sample(samplers())
    assert tokens[:2] == greedy and tokens == masked(poison.put(logits, device), masks).sample(samplers())
    assert all(row[token] > -torch.inf for row, token in zip(places, tokens, strict=True))
    for row in (2, 3, 4):
        assert torch.equal(found.row(row).cpu(), places[row])  # so that a redraw sees the mask
    found.row(2)[tokens[2]] = -torch.inf
    again = found.sample(samplers())
    assert again[2] != tokens[2] and places[2][again[2]] > -torch.inf
    assert again[:2] + again[3:] == tokens[:2] + tokens[3:]


@pytest.mark.parametrize("top", [0, 1, 4])
def test_scores(top: int, device: str, poison: Poison, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(4, 200).round(decimals=1)  # with equals
    logits[1, 2:] = -torch.inf
    wanted = [Wanted([7], top), Wanted([0, 1, 1], top), Wanted([], 0), Wanted([], 2 * top)]
    expected = score(logits, wanted)
    on_triton(monkeypatch)
    for given, right in zip(score(poison.put(logits, device), wanted), expected, strict=True):
        assert given.top_ids == right.top_ids
        assert given.logprobs == pytest.approx(right.logprobs, abs=1e-5)
        assert given.top_logprobs == pytest.approx(right.top_logprobs, abs=1e-5)


def test_more_than_the_vocabulary_is_wanted(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_triton(monkeypatch)
    given = score(torch.zeros(1, 3, device=device), [Wanted([2], 20)])[0]
    assert given.top_ids == [0, 1, 2]
    assert given.logprobs + given.top_logprobs == pytest.approx([-np.log(3)] * 4)


def test_equals_stay_in_the_order_of_ids(device: str) -> None:
    logits = torch.tensor([[0.0, -0.0, 1.0, -3.0, 1.0, -torch.inf, 0.0, -3.0, 3e38]])
    assert likeliest_tokens(logits.to(device), 9).tolist() == [[8, 2, 4, 0, 1, 6, 3, 7, 5]]
