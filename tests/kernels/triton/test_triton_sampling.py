from __future__ import annotations

import pytest
import torch

from sgl_like.kernels import logprobs
from sgl_like.kernels import sample as contract
from sgl_like.kernels.sample import SampleRows, kept_tokens


def make_rows(count: int, seed: int) -> SampleRows:
    random = torch.Generator().manual_seed(seed)

    def pick(values: list[float]) -> torch.Tensor:
        return torch.tensor(values)[torch.randint(len(values), (count,), generator=random)]

    return SampleRows(
        temperature=pick([0.0, 0.3, 1.0, 2.5]),
        top_k=pick([0, 1, 5, 50]).int(),
        top_p=pick([1.0, 0.1, 0.7, 0.95]),
        min_p=pick([0.0, 0.0, 0.05]),
        uniform=torch.rand(count, generator=random),
    )


def on(rows: SampleRows, device: str) -> SampleRows:
    given = (getattr(rows, name) for name in SampleRows.__slots__)
    return SampleRows(*(None if each is None else each.to(device) for each in given))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("vocab", [1, 31, 300, 5000])
def test_draws_are_what_the_filters_keep(vocab: int, masked: bool, device: str) -> None:
    from sgl_like.kernels.triton.sample import sample

    torch.manual_seed(vocab)
    count = 24
    logits = 4 * torch.randn(count, vocab)
    masks = None
    if masked:
        masks = torch.randint(-(2**31), 2**31, (count, (vocab + 31) // 32), dtype=torch.int64).int()
        masks[:, 0] |= 1
    rows = make_rows(count, vocab)
    found = sample(logits.to(device), on(rows, device), None if masks is None else masks.to(device)).cpu()
    expected = contract.reference(logits, rows, masks)
    same = (found == expected).sum()
    assert same >= count - 1, (found, expected)  # a draw on the border between two tokens may fall to either
    for r in range(count):  # whatever was drawn is kept
        row = logits[r].double()
        if masks is not None:
            bits = torch.arange(vocab)
            row[(masks[r][bits // 32] >> (bits % 32)) & 1 == 0] = -torch.inf
        if rows.temperature[r] == 0:
            assert found[r] == row.argmax()
            continue
        weights = ((row - row.max()) / rows.temperature[r].double()).exp()
        kept = kept_tokens(
            weights, int(rows.top_k[r]), float(rows.top_p[r]), float(rows.min_p[r]) * (1 - 1e-5)
        )
        assert kept[found[r]]


def test_draws_have_the_right_frequencies(device: str) -> None:
    from sgl_like.kernels.triton.sample import sample

    weights = torch.tensor([0.4, 0.0, 0.3, 0.2, 0.1])
    count = 60
    ones = torch.ones(count)
    rows = SampleRows(ones, 0 * ones.int(), 0.85 * ones, 0 * ones, (torch.arange(count) + 0.5) / count)
    found = sample(weights.log().expand(count, -1).contiguous().to(device), on(rows, device)).cpu()
    shares = (found[:, None] == torch.arange(5)).float().mean(dim=0)
    # 0.4 and 0.3 do not reach 0.85, so 0.2 is kept, too
    torch.testing.assert_close(shares, torch.tensor([4, 0, 3, 2, 0]) / 9, atol=2e-2, rtol=0)


def test_ties_of_the_likeliest_go_to_the_lowest_id(device: str) -> None:
    from sgl_like.kernels.triton.sample import sample

    logits = torch.zeros(2, 5000)
    logits[1, 4500] = logits[1, 4600] = 1
    zeros = torch.zeros(2)
    rows = SampleRows(zeros, zeros.int(), zeros + 1, zeros, zeros)
    assert sample(logits.to(device), on(rows, device)).tolist() == [0, 4500]


@pytest.mark.parametrize("vocab, count", [(1, 1), (33, 3), (5000, 21)])
def test_gather_logprobs(vocab: int, count: int, device: str) -> None:
    from sgl_like.kernels.triton.logprobs import gather_logprobs

    logits, ids = 5 * torch.randn(3, vocab), torch.randint(vocab, (3, count))
    logits[0, 1:] = -torch.inf
    ids[0] = 0
    found = gather_logprobs(logits.to(device), ids.to(device)).cpu()
    torch.testing.assert_close(found, logprobs.reference(logits, ids), atol=1e-5, rtol=1e-5)
