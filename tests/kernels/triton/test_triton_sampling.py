"""Sampling and log-probabilities against their references: sizes at the edges of groups, all memory poisoned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sgl_like.kernels import logprobs, vocabulary
from sgl_like.kernels import sample as contract
from sgl_like.kernels.sample import SampleRows, kept_tokens
from tests.support.poison import Poison

VOCABS = [1, 31, 33, 4096, 4097]


def make_rows(count: int, seed: int) -> SampleRows:
    random = torch.Generator().manual_seed(seed)

    def pick(values: list[float]) -> torch.Tensor:
        return torch.tensor(values)[torch.randint(len(values), (count,), generator=random)]

    return SampleRows(
        temperature=pick([0.0, 1e-3, 0.3, 1.0, 1.0, 2.5, 1e4]),
        top_k=pick([0, 0, 1, 5, 50, 10**6]).int(),
        top_p=pick([1.0, 1.0, 1e-6, 0.1, 0.7, 0.95]),
        min_p=pick([0.0, 0.0, 0.0, 0.05, 1.0]),
        uniform=torch.rand(count, generator=random),
    )


def make_logits(count: int, vocab: int) -> torch.Tensor:
    """Rows of several kinds: smooth ones, ones with ties, with impossible tokens, with extreme numbers, all alike."""
    logits = 4 * torch.randn(count, vocab)
    logits[1::6] = logits[1::6].round()
    logits[2::6, 1::2] = -torch.inf
    logits[3::6] *= 1e30
    logits[4::6] = -1e30
    logits[5::6, vocab // 2] += 30
    return logits


def make_masks(count: int, vocab: int) -> torch.Tensor:
    """Each with half of the tokens, the first among them, and with any bits after the last."""
    masks = torch.randint(-(2**31), 2**31, (count, (vocab + 31) // 32), dtype=torch.int64).int()
    masks[:, 0] |= 1
    return masks


def on(poison: Poison, rows: SampleRows, device: str) -> SampleRows:
    given = (getattr(rows, name) for name in SampleRows.__slots__)
    return SampleRows(*(None if each is None else poison.put(each, device) for each in given))


def kept(logits: torch.Tensor, rows: SampleRows, masks: torch.Tensor | None, r: int) -> torch.Tensor:
    """Which tokens the filters keep of a row, by the definition."""
    row = logits[r].double()
    which = r if rows.mask is None else int(rows.mask[r])
    if masks is not None and which >= 0:
        bits = torch.arange(len(row))
        row[(masks[which][bits // 32] >> (bits % 32)) & 1 == 0] = -torch.inf
    if rows.temperature[r] == 0:
        return row == row.max()
    weights = ((row - row.max()) / rows.temperature[r].double()).exp()
    return kept_tokens(weights, int(rows.top_k[r]), float(rows.top_p[r]), float(rows.min_p[r]))


@pytest.mark.parametrize("masked", ["no", "each", "some"])
@pytest.mark.parametrize("vocab", VOCABS)
def test_draws_are_those_of_the_reference(vocab: int, masked: str, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.sample import sample

    torch.manual_seed(vocab)
    count = 18
    logits, rows = make_logits(count, vocab), make_rows(count, vocab)
    masks = None if masked == "no" else make_masks(count, vocab)
    if masked == "some":
        rows = replace(rows, mask=torch.randint(-1, count, (count,)).int())
    given = None if masks is None else poison.put(masks, device)
    found = sample(poison.put(logits, device), on(poison, rows, device), given).cpu()
    assert found.dtype == torch.int64
    expected = contract.reference(logits, rows, masks)
    same = (found == expected).sum()
    assert same >= count - 1, (found, expected)  # a draw on the border between two tokens may fall to either
    assert all(kept(logits, rows, masks, r)[found[r]] for r in range(count))


@pytest.mark.parametrize("vocab", [33, 700, 4097])
def test_the_first_and_the_last_token_that_is_kept(vocab: int, device: str, poison: Poison) -> None:
    """The least and the greatest number draw them, so one token too many or too few shows."""
    from sgl_like.kernels.triton.sample import sample

    torch.manual_seed(vocab)
    count = 36
    logits, masks, rows = 3 * torch.randn(count, vocab), make_masks(count, vocab), make_rows(count, vocab)
    logits[::3] = logits[::3].round()
    last = torch.arange(count) % 2 == 1
    rows = replace(
        rows, temperature=rows.temperature.clamp(0.3, 2.5), uniform=torch.where(last, 1 - 2**-24, 0.0)
    )
    found = sample(poison.put(logits, device), on(poison, rows, device), poison.put(masks, device)).cpu()
    checked = 0
    for r in range(count):
        ids = kept(logits, rows, masks, r).nonzero()[:, 0]
        shares = (logits[r][ids].double() / rows.temperature[r]).softmax(dim=0)
        if shares.min() > 1e-5:  # or float32 does not reach the last one
            assert found[r] == ids[-int(last[r])]
            checked += 1
    assert checked > count // 3


@pytest.mark.parametrize("spread", [1.0, 12.0])
def test_a_real_vocabulary(spread: float, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.sample import sample

    torch.manual_seed(1)
    vocab, count = 128256, 6
    logits, masks = spread * torch.randn(count, vocab), make_masks(count, vocab)
    rows = SampleRows(
        temperature=torch.tensor([0.8, 0.8, 0.8, 1.0, 0.0, 0.7]),
        top_k=torch.tensor([50, 0, 0, 0, 0, 2000]).int(),
        top_p=torch.tensor([0.9, 0.9, 1.0, 1.0, 1.0, 1.0]),
        min_p=torch.tensor([0.0, 0.0, 0.02, 0.0, 0.0, 0.0]),
        uniform=torch.rand(count),
    )
    found = sample(poison.put(logits, device), on(poison, rows, device), poison.put(masks, device)).cpu()
    for r in range(count):
        weights = (
            kept(logits, rows, masks, r)
            * ((logits[r] - logits[r].max()).double() / max(float(rows.temperature[r]), 1e-3)).exp()
        )
        cumulative = weights.cumsum(0) / weights.sum()
        assert weights[found[r]] > 0
        if (
            rows.temperature[r] > 0
        ):  # a few millionths of the distribution beside the place, for float32's rounding
            before, after = cumulative[found[r]] - weights[found[r]] / weights.sum(), cumulative[found[r]]
            assert before - 1e-5 <= float(rows.uniform[r]) <= after + 1e-5


def test_draws_have_the_right_frequencies(device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.sample import sample

    weights = torch.tensor([0.4, 0.0, 0.3, 0.2, 0.1])
    count = 27
    ones = torch.ones(count)
    rows = SampleRows(ones, 0 * ones.int(), 0.85 * ones, 0 * ones, (torch.arange(count) + 0.5) / count)
    logits = weights.log().expand(count, -1)
    found = sample(poison.put(logits, device), on(poison, rows, device)).cpu()
    shares = (found[:, None] == torch.arange(5)).float().mean(dim=0)
    # 0.4 and 0.3 do not reach 0.85, so 0.2 is kept, too
    torch.testing.assert_close(shares, torch.tensor([4, 0, 3, 2, 0]) / 9, atol=1 / count, rtol=0)


def test_ties_of_the_likeliest_go_to_the_lowest_id(device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.sample import sample

    logits = torch.zeros(3, 5000)
    logits[1, 4500] = logits[1, 4600] = 1
    logits[2] = -1
    logits[2, 300], logits[2, 200] = 0.0, -0.0
    zeros = torch.zeros(3)
    rows = SampleRows(zeros, zeros.int(), zeros + 1, zeros, zeros)
    assert sample(poison.put(logits, device), on(poison, rows, device)).tolist() == [0, 4500, 200]


def test_a_draw_does_not_depend_on_the_other_rows(device: str) -> None:
    from sgl_like.kernels.triton.sample import sample

    logits, rows = make_logits(12, 1000).to(device), make_rows(12, 5)
    on_device = [getattr(rows, name).to(device) for name in SampleRows.__slots__[:5]]
    together = sample(logits, SampleRows(*on_device)).tolist()
    alone = [
        sample(logits[r : r + 1], SampleRows(*(each[r : r + 1] for each in on_device))).item()
        for r in range(12)
    ]
    assert together == alone


@pytest.mark.parametrize("masked", [False, True])
def test_no_rows(masked: bool, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.sample import sample

    masks = make_masks(0, 40) if masked else None
    found = sample(torch.zeros(0, 40, device=device), on(poison, make_rows(0, 0), device), masks)
    assert found.shape == (0,) and found.dtype == torch.int64


@pytest.mark.parametrize("vocab", [1, 127, 129, 5000])
def test_group_stats(vocab: int, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.vocabulary import Masks, group_stats

    logits, heats = 9 * torch.randn(5, vocab), torch.tensor([0.2, 1.0, 3.0, 0.0, 1.0])
    logits[4] = -torch.inf
    inverse = torch.where(heats == 0, 1, 1 / heats)
    expected = vocabulary.reference_stats(logits.numpy(), inverse.numpy())
    found = group_stats(
        poison.put(logits, device), poison.put(heats, device), Masks.given(5, None, None, logits.device)
    )
    for each, right in zip(found, expected, strict=True):
        torch.testing.assert_close(each.cpu(), torch.from_numpy(right), atol=0, rtol=3e-6)


@pytest.mark.parametrize(
    "vocab, rows, count", [(1, 3, 1), (33, 3, 3), (5000, 3, 21), (130, 0, 2), (130, 2, 0)]
)
def test_gather_logprobs(vocab: int, rows: int, count: int, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.logprobs import gather_logprobs

    logits, ids = 5 * torch.randn(rows, vocab), torch.randint(vocab, (rows, count))
    logits[:1, 1:] = -torch.inf
    ids[:1, :1] = 0
    logits[1:2] *= 1e30
    found = gather_logprobs(poison.put(logits, device), poison.put(ids, device)).cpu()
    torch.testing.assert_close(found, logprobs.reference(logits, ids), atol=1e-5, rtol=1e-5)
