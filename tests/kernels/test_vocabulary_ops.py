"""Operations on logits against their references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgl_like.kernels import argmax, logit_edits, vocabulary


@pytest.mark.parametrize("rows, vocab", [(1, 1), (2, 127), (3, 128), (2, 129), (1, 5000), (0, 10)])
@pytest.mark.parametrize("banned", [0.0, 0.9, 1.0])
def test_block_stats(rows: int, vocab: int, banned: float) -> None:
    rng = np.random.default_rng(rows * vocab)
    logits = (rng.standard_normal((rows, vocab)) * 9).astype(np.float32)
    logits[rng.random((rows, vocab)) < banned] = -np.inf
    inverse = rng.uniform(0.1, 9, rows).astype(np.float32)
    tops, sums = vocabulary.block_stats(logits, inverse)
    expected_tops, expected_sums = vocabulary.reference_stats(logits, inverse)
    assert np.array_equal(tops, expected_tops)
    np.testing.assert_allclose(sums, expected_sums, rtol=2e-6)


@pytest.mark.parametrize("bound", [-np.inf, -1.0, 0.0, 2.5, 99.0])
def test_above(bound: float) -> None:
    row = np.random.default_rng(0).standard_normal(700).astype(np.float32)
    row[300:500] = -np.inf
    tops, _ = vocabulary.block_stats(row[None], np.ones(1, dtype=np.float32))
    assert vocabulary.above(row, tops[0], bound).tolist() == np.flatnonzero(row >= bound).tolist()


def test_logit_edits() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((3, 50)).astype(np.float32)
    expected, count = logits.copy(), 200
    rows, ids = rng.integers(0, 2, count), rng.integers(0, 50, count)
    scales = rng.uniform(0.5, 2, count).astype(np.float32)
    shifts = rng.standard_normal(count).astype(np.float32)
    shifts[::50] = -np.inf
    logit_edits.edit_logits(torch.from_numpy(logits), rows, ids, scales, shifts)
    logit_edits.reference(expected, rows, ids, scales, shifts)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert np.array_equal(logits[2], expected[2])


@pytest.mark.parametrize("vocab", [1, 63, 1024, 1500, 5000])
def test_argmax(vocab: int) -> None:
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(9, vocab, generator=generator)
    logits[1] = -torch.inf
    logits[2] = 3.0
    logits[3, vocab // 2 :] = 50.0  # the first of equals
    logits[4, -1] = 50.0
    logits[5] -= 100.0
    logits[6] = -torch.inf
    logits[6, vocab // 3] = -1e30
    logits[7] = torch.randint(0, 3, (vocab,), generator=generator).float()
    assert argmax.argmax(logits).tolist() == argmax.reference(logits).tolist()
    assert argmax.argmax(logits[:0]).tolist() == []
