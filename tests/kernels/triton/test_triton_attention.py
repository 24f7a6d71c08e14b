from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from sgl_like.kernels import attention as contract
from sgl_like.kernels.attention import AttentionRows

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
NAN = float("nan")


def rows_of(new: list[int], lists: list[list[int]]) -> AttentionRows:
    """Rows of so many new tokens, over these slots."""
    starts = np.cumsum([0] + [len(each) for each in lists]).astype(np.int32)
    return AttentionRows(
        np.cumsum([0, *new]).astype(np.int32), starts, np.concatenate(lists).astype(np.int32)
    )


def make_rows(sizes: list[tuple[int, int]], shared: int = 0) -> AttentionRows:
    """Rows of (new tokens, length) over scattered slots; all begin with the same `shared` ones."""
    used = shared + sum(length - shared for _, length in sizes)
    order = np.random.default_rng(0).permutation(used + 100).tolist()
    lists, at = [], shared
    for _, length in sizes:
        lists.append(order[:shared] + order[at : at + length - shared])
        at += length - shared
    return rows_of([new for new, _ in sizes], lists)


def tensors(
    rows: AttentionRows, heads: int, kv_heads: int, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values, with NaN in slots that no row has."""
    q = torch.randn(int(rows.q_start[-1]), heads, size).to(dtype)
    slots = torch.from_numpy(np.unique(rows.kv_slots)).long()
    k, v = (torch.full((int(slots.max()) + 2, kv_heads, size), NAN) for _ in range(2))
    k[slots], v[slots] = torch.randn(2, len(slots), kv_heads, size)
    return q, k.to(dtype), v.to(dtype)


def compute(rows, q, k, v, device, window=None, softcap=None, cascade=True, scales=(1.0, 1.0)) -> Tensor:  # type: ignore[no-untyped-def]
    """Triton's result."""
    from sgl_like.kernels.triton.attention import paged_attention
    from sgl_like.kernels.triton.attention_plan import plan

    made = plan(rows, q.shape[1] // k.shape[1], device, window, cascade, exact=q.dtype == torch.float32)
    q, k, v = (x.to(device) for x in (q, k, v))
    return paged_attention(q, k, v, made, q.shape[2] ** -0.5, window, softcap, scales).cpu()


def check(rows, heads, kv_heads, size, dtype, device, window=None, softcap=None) -> None:  # type: ignore[no-untyped-def]
    q, k, v = tensors(rows, heads, kv_heads, size, dtype)
    expected = contract.reference(q, k, v, rows, size**-0.5, window, softcap)
    found = compute(rows, q, k, v, device, window, softcap)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        [(1, 1)],
        [(0, 3)],
        [(1, 5), (0, 40), (1, 64), (1, 65), (1, 1), (0, 0)],
        [(70, 131), (1, 33), (3, 3)],
        [(1, 600), (2, 513), (0, 700), (40, 560), (1, 512), (1, 1025)],
        [(20, 2200)],
    ],
)
@pytest.mark.parametrize("heads, kv_heads, size", [(4, 2, 16), (7, 1, 24)])
def test_rows_of_any_kind(sizes, heads, kv_heads, size, dtype, device, poison) -> None:  # type: ignore[no-untyped-def]
    check(make_rows(sizes), heads, kv_heads, size, dtype, device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "heads, kv_heads, size",
    [(1, 1, 1), (3, 1, 5), (5, 5, 80), (6, 2, 96), (20, 1, 16), (2, 1, 256), (150, 1, 8), (3, 1, 130)],
)
def test_heads_of_any_size_and_number(heads, kv_heads, size, dtype, device, poison) -> None:  # type: ignore[no-untyped-def]
    check(make_rows([(1, 70), (2, 2), (9, 20)]), heads, kv_heads, size, dtype, device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "window, softcap", [(1, None), (5, None), (64, 2.0), (None, 3.0), (100, 20.0), (600, None)]
)
def test_window_and_softcap(window, softcap, dtype, device, poison) -> None:  # type: ignore[no-untyped-def]
    rows = make_rows([(1, 1), (1, 90), (40, 150), (1, 700), (3, 1100)])
    check(rows, 4, 2, 16, dtype, device, window=window, softcap=softcap)


@pytest.mark.parametrize("window", [1, 70])
def test_keys_before_a_window_are_not_read(window, device, poison) -> None:  # type: ignore[no-untyped-def]
    rows = make_rows([(1, 200), (20, 150)])
    q, k, v = tensors(rows, 2, 1, 16, torch.float32)
    expected = contract.reference(q, k, v, rows, 0.25, window)
    for row, first in ((0, 200 - window), (1, 130 + 1 - window)):
        gone = rows.kv_slots[rows.kv_start[row] :][:first]
        k[torch.from_numpy(gone).long()] = v[torch.from_numpy(gone).long()] = NAN
    torch.testing.assert_close(compute(rows, q, k, v, device, window), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fp8_cache(dtype, device, poison) -> None:  # type: ignore[no-untyped-def]
    rows = make_rows([(1, 600), (30, 90), (1, 1)])
    q, k, v = tensors(rows, 4, 2, 32, dtype)
    k, v = (x.float().to(torch.float8_e4m3fn) for x in (k, v))
    expected = contract.reference(q, k.to(dtype) * 0.5, v.to(dtype) * 4.0, rows, 32**-0.5)
    found = compute(rows, q, k, v, device, scales=(0.5, 4.0))
    torch.testing.assert_close(found, expected, atol=4 * TOLERANCE[dtype], rtol=4 * TOLERANCE[dtype])


def test_queries_beside_one_another_in_a_wider_tensor(device, poison) -> None:  # type: ignore[no-untyped-def]
    rows = make_rows([(1, 20), (33, 40)])
    q, k, v = tensors(rows, 4, 2, 16, torch.float32)
    wide = torch.cat((q, torch.full((len(q), 3, 16), NAN)), dim=1)
    assert torch.equal(compute(rows, wide[:, :4], k, v, device), compute(rows, q, k, v, device))


@pytest.fixture
def products_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of the interpreter adds up in the order of a GPU's in float32, not as BLAS, by the number of rows."""

    def matmul(a: np.ndarray, b: np.ndarray, dtype: type) -> np.ndarray:
        total = np.zeros((a.shape[0], b.shape[1]), dtype)
        for k in range(a.shape[1]):
            total += a[:, k, None] * b[k]
        return total

    if not torch.cuda.is_available():
        monkeypatch.setattr(np, "matmul", matmul)


def shared_rows() -> AttentionRows:
    """Rows that share 600 keys, of which some share 1100, one that shares nothing, and one that extends."""
    common, deeper = list(range(600)), list(range(600, 1100))
    lists = [
        [*common, *range(1200, 1220)],
        [*common, *deeper, 1300],
        [*range(1400, 1900), *range(2300, 2400)],
        [*common, *deeper, 1301, 1302, 1303],
        [*common, *range(1310, 1390)],
        [*common, 1399],
        [*common, *deeper, *range(1900, 2200)],
    ]
    return rows_of([1, 1, 1, 2, 60, 1, 1], lists)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads, kv_heads", [(4, 2), (3, 3), (12, 1)])
def test_rows_that_share_a_prefix(heads, kv_heads, dtype, device, poison) -> None:  # type: ignore[no-untyped-def]
    check(shared_rows(), heads, kv_heads, 16, dtype, device)


def test_many_rows_with_one_prefix(device, poison) -> None:  # type: ignore[no-untyped-def]
    rows = make_rows([(1, 516 + i % 3) for i in range(40)], shared=514)
    check(rows, 4, 1, 16, torch.float32, device)


def test_in_float32_sharing_changes_no_bit(device, poison, products_in_order) -> None:  # type: ignore[no-untyped-def]
    """Two tokens of 12 heads are in tiles of 16 queries each, or in one of 128."""
    rows = shared_rows()
    q, k, v = tensors(rows, 12, 1, 16, torch.float32)
    assert torch.equal(compute(rows, q, k, v, device), compute(rows, q, k, v, device, cascade=False))


@pytest.mark.parametrize("window", [None, 530])
def test_in_float32_a_token_does_not_depend_on_the_rest_of_the_step(
    window, device, products_in_order
) -> None:  # type: ignore[no-untyped-def]
    """A prompt at once, in pieces, as the last tokens of a prompt, one by one; beside other rows."""
    slots = make_rows([(1, 1100)]).kv_slots.tolist()
    whole = rows_of([1100], [slots])
    q, k, v = tensors(whole, 1, 1, 16, torch.float32)
    expected = compute(whole, q, k, v, device, window)
    for ends in ([0, 500, 1100], [1000, 1099, 1100], [511, 512, 513], [1093, 1098]):
        for first, end in pairwise(ends):
            found = compute(rows_of([end - first], [slots[:end]]), q[first:end], k, v, device, window)
            assert torch.equal(found, expected[first:end])
    others = [slots[300:340], slots[600:], slots[:540]]
    rows = rows_of([3, 1, 40, 2], [slots[:1003], *others])
    found = compute(rows, torch.cat((q[1000:1003], torch.randn(43, 1, 16))), k, v, device, window)
    assert torch.equal(found[:3], expected[1000:1003])


def test_places_beyond_32_bits(device) -> None:  # type: ignore[no-untyped-def]
    """Slots whose first number is the 2**31th of the cache or one after it."""
    slots = [2**21 - 1, 2**21, 2**21 + 5]
    rows = rows_of([1], [slots])
    q = torch.randn(1, 1, 1024).bfloat16()
    few_k, few_v = torch.randn(2, 3, 1, 1024).bfloat16()
    k, v = (torch.empty(2**21 + 6, 1, 1024, dtype=torch.bfloat16, device=device) for _ in range(2))
    k[slots], v[slots] = few_k.to(device), few_v.to(device)
    expected = contract.reference(q, few_k, few_v, rows_of([1], [[0, 1, 2]]), 1024**-0.5)
    torch.testing.assert_close(compute(rows, q, k, v, device), expected, atol=2e-2, rtol=2e-2)
