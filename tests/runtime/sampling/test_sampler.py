"""Filters against a plain reading of their definitions, and draws against the distribution."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.sampling.distribution import Distribution, distributions
from sgl_like.runtime.sampling.sampler import RowSampler, sample
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.naive_sampling import kept

filters = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.2, 3),
        "top_k": st.sampled_from([-1, -1, 1, 2, 5, 100, 5000]),
        "top_p": st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
        "min_p": st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.6]),
    }
)


def random_logits(seed: int, vocab: int, spread: float, banned: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    row = (rng.standard_normal(vocab) * spread).astype(np.float32)
    row[rng.random(vocab) < banned] = -np.inf
    row[rng.integers(vocab)] = 1.0
    return row


def distribution(row: np.ndarray, temperature: float) -> Distribution:
    return distributions(row[None], [temperature])[0]


@given(
    seed=st.integers(0, 10**6),
    vocab=st.sampled_from([1, 7, 128, 129, 3000, 20_000]),
    spread=st.sampled_from([0.01, 1.0, 6.0]),
    banned=st.sampled_from([0.0, 0.5, 0.999]),
    values=filters,
)
def test_filters(seed: int, vocab: int, spread: float, banned: float, values: dict[str, float]) -> None:
    params = SamplingParams.from_dict(values)
    row = random_logits(seed, vocab, spread, banned)
    found = distribution(row, params.temperature).kept(params)
    most, least = (list(kept(row.tolist(), params, slack)) for slack in (1e-5, -1e-5))
    ids = found.ids.tolist()
    assert len(least) <= len(ids) <= len(most) and ids == most[: len(ids)]
    assert (found.probabilities > 0).all()


@given(seed=st.integers(0, 10**6), vocab=st.sampled_from([5, 300]), values=filters)
def test_evenly_spaced_draws_give_the_exact_probabilities(
    seed: int, vocab: int, values: dict[str, float]
) -> None:
    """Draws with uniform numbers (i + 0.5) / n hit a token of probability p between n*p - 1 and n*p + 1 times."""
    params = SamplingParams.from_dict(values)
    row = random_logits(seed, vocab, 2.0, 0.3)
    one, count = distribution(row, params.temperature), 2000
    drawn = np.bincount([one.draw(params, (i + 0.5) / count) for i in range(count)], minlength=vocab)
    ids = one.kept(params).ids.tolist()
    weights = np.zeros(vocab)
    weights[ids] = np.exp((row[ids].astype(np.float64) - row.max()) / params.temperature)
    expected = count * weights / weights.sum()
    assert np.abs(drawn - expected).max() <= 1.01
    assert not drawn[weights == 0].any()


@pytest.mark.parametrize("values", [{}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05}, {"temperature": 0.6}])
def test_random_draws_follow_the_distribution(values: dict[str, float]) -> None:
    """Chi-square of 20000 seeded draws, whose 99.99 % quantile lies below n + 4 * sqrt(2 n) + 16."""
    params = SamplingParams.from_dict({**values, "seed": 11})
    row = random_logits(3, 200, 1.5, 0.2)
    sampler, count = RowSampler.of(params), 20_000
    logits = torch.from_numpy(row)[None].expand(500, -1).contiguous()
    drawn: list[int] = []
    for _ in range(count // 500):
        drawn += sample(logits, [sampler] * 500)
    expected = kept(row.tolist(), params)
    seen = np.bincount(drawn, minlength=len(row))
    assert set(np.flatnonzero(seen)) <= set(expected)
    chi = sum((seen[i] - count * p) ** 2 / (count * p) for i, p in expected.items())
    freedom = len(expected) - 1
    assert chi < freedom + 4 * math.sqrt(2 * freedom) + 16


def test_greedy_takes_the_likeliest_and_the_lowest_id_of_a_tie() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [5.0, -torch.inf, 1.0]])
    greedy, drawn = RowSampler.of(SamplingParams(temperature=0)), RowSampler.of(SamplingParams(top_p=0.01))
    assert sample(logits, [greedy] * 2) == [1, 0]
    assert sample(logits, [greedy, drawn]) == sample(logits, [drawn, greedy]) == [1, 0]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_seed_gives_the_same_draws_in_any_batch(batch: int) -> None:
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(0))
    mine = RowSampler.of(SamplingParams(seed=7))
    others = [RowSampler.of(SamplingParams(top_k=3)), RowSampler.of(SamplingParams(temperature=0))]
    drawn = [sample(logits[i].expand(batch, -1), [*others[: batch - 1], mine])[-1] for i in range(20)]
    rng = random.Random(7)
    each = distributions(logits.numpy(), [1.0] * 20)
    assert drawn == [one.draw(mine.params, rng.random()) for one in each]


def test_extreme_temperatures() -> None:
    row = np.array([0.0, 3.0, -np.inf, 2.9], dtype=np.float32)
    for uniform in (0.0, 0.3, 0.999999, 1 - 2**-53):
        assert distribution(row, 1e-4).draw(SamplingParams(temperature=1e-4), uniform) == 1
        assert distribution(row, 1e300).draw(SamplingParams(temperature=1e300), uniform) in (0, 1, 3)


@given(seed=st.integers(0, 10**6), vocab=st.sampled_from([1, 9, 1000]), count=st.integers(1, 20))
def test_logprobs_and_likeliest(seed: int, vocab: int, count: int) -> None:
    row = random_logits(seed, vocab, 3.0, 0.2)
    one = distribution(row, 1.0)
    expected = torch.log_softmax(torch.from_numpy(row).double(), dim=-1)
    assert one.logprobs(range(vocab)) == pytest.approx(expected.tolist(), abs=1e-5)
    order = [i for i in np.argsort(-row, kind="stable").tolist() if row[i] > -np.inf]
    assert one.likeliest(count).tolist() == order[:count]


def test_equals_stay_in_the_order_of_ids() -> None:
    row = np.array([0.0, -0.0, 1.0, -3.0, 1.0, -np.inf, 0.0, -3.0, -2.5], dtype=np.float32)
    assert distribution(row, 1.0).likeliest(20).tolist() == [2, 4, 0, 1, 6, 8, 3, 7]
