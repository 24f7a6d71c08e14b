"""Filters against a plain reading of their definitions, and draws against the distribution."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.sampling.sampler import RowSampler, draw, kept_probabilities, sample, token_logprobs
from sgl_like.runtime.sampling_params import SamplingParams

logit_rows = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12)


def naive_kept(logits: list[float], params: SamplingParams, slack: float) -> list[int]:
    """Token ids that the filters keep, by their definitions, likeliest first; limits moved by `slack`."""
    scaled = [x / params.temperature for x in logits]
    order = sorted(range(len(logits)), key=lambda i: -scaled[i])
    if params.top_k > 0:
        order = order[: params.top_k]
    weights = [math.exp(scaled[i] - scaled[order[0]]) for i in order]
    total = math.fsum(weights)
    kept, mass = [], 0.0
    for i, weight in zip(order, weights, strict=True):
        past_top_p = params.top_p < 1 and mass >= params.top_p + slack
        if kept and (past_top_p or weight < params.min_p - slack):
            break
        kept.append(i)
        mass += weight / total
    return kept


@given(
    logits=logit_rows.filter(lambda row: len(set(row)) == len(row)),
    temperature=st.floats(0.2, 3),
    top_k=st.sampled_from([-1, 1, 2, 5, 100]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_filters(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    probabilities, ids = kept_probabilities(torch.tensor(logits), params)
    kept = ids.tolist()
    most, least = (naive_kept(logits, params, slack) for slack in (1e-5, -1e-5))  # float32 against float64
    assert len(least) <= len(kept) <= len(most) and kept == most[: len(kept)]
    assert (probabilities > 0).all()


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, math.log(3), -torch.inf, math.log(4)])
    params = SamplingParams(temperature=1.0)
    uniforms = [(i + 0.5) / 800 for i in range(800)]
    counts = torch.bincount(torch.tensor([draw(logits, params, u) for u in uniforms]), minlength=4)
    assert counts.tolist() == [100, 300, 0, 400]


def test_greedy_takes_the_likeliest_and_the_lowest_id_of_a_tie() -> None:
    rows = [RowSampler.of(SamplingParams(temperature=0))] * 2
    assert sample(torch.tensor([[0.0, 2.0, 2.0], [5.0, -torch.inf, 1.0]]), rows) == [1, 0]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_seed_gives_the_same_draws_in_any_batch(batch: int) -> None:
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    mine = RowSampler.of(SamplingParams(seed=7))
    alone = RowSampler(mine.params, random.Random(7))
    others = [RowSampler.of(SamplingParams()) for _ in range(batch - 1)]
    drawn = [sample(logits[i].expand(batch, -1), [*others, mine])[-1] for i in range(20)]
    assert drawn == [draw(logits[i], alone.params, alone.random.random()) for i in range(20)]


def test_logprobs() -> None:
    logits = torch.randn(3, 9)
    expected = torch.log_softmax(logits, dim=-1)
    assert token_logprobs(logits, [4, 0, 8]) == pytest.approx(
        [float(expected[0, 4]), float(expected[1, 0]), float(expected[2, 8])], abs=1e-6
    )
