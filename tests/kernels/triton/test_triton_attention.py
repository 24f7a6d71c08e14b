from __future__ import annotations

import numpy as np
import pytest
import torch

from sgl_like.kernels import attention as contract
from sgl_like.kernels.attention import AttentionRows

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def make_rows(sizes: list[tuple[int, int]], slots: int, seed: int = 0, shared: int = 0) -> AttentionRows:
    """Rows of (new tokens, length) over random slots; all begin with the same `shared` ones."""
    random = np.random.default_rng(seed)
    order = random.permutation(slots).astype(np.int32)
    prefix, rest = order[:shared], order[shared:]
    lists, at = [], 0
    for _, length in sizes:
        lists.append(np.concatenate((prefix, rest[at : at + length - shared])))
        at += length - shared
    starts = np.concatenate(([0], np.cumsum([length for _, length in sizes]))).astype(np.int32)
    q_starts = np.concatenate(([0], np.cumsum([new for new, _ in sizes]))).astype(np.int32)
    return AttentionRows(q_starts, starts, np.concatenate(lists).astype(np.int32))


def check(rows, heads, kv_heads, size, dtype, device, *, window=None, softcap=None, cascades=None) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.attention import paged_attention
    from sgl_like.kernels.triton.attention_plan import plan, shared_keys

    slots = int(rows.kv_slots.max()) + 1
    tokens = int(rows.q_start[-1])
    q = torch.randn(tokens, heads, size).to(dtype)
    k, v = (torch.randn(slots, kv_heads, size).to(dtype) for _ in range(2))
    expected = contract.reference(q, k, v, rows, size**-0.5, window, softcap)
    shared = [] if cascades is None else shared_keys(rows)
    assert [(each.rows.tolist(), each.keys) for each in shared] == (cascades or [])
    made = plan(rows, heads // kv_heads, device, shared)
    found = paged_attention(
        q.to(device), k.to(device), v.to(device), made, size**-0.5, window=window, softcap=softcap
    )
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.cpu().float(), expected.float(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        [(1, 1)],
        [(1, 5), (1, 64), (1, 65), (1, 1)],
        [(7, 7)],
        [(70, 131), (1, 33), (3, 3)],
        [(1, 600), (2, 513), (40, 560)],
    ],
)
@pytest.mark.parametrize("heads, kv_heads, size", [(4, 2, 16), (7, 1, 24)])
def test_rows_of_any_kind(sizes, heads, kv_heads, size, dtype, device) -> None:  # type: ignore[no-untyped-def]
    check(make_rows(sizes, 2000), heads, kv_heads, size, dtype, device)


@pytest.mark.parametrize("window, softcap", [(1, None), (5, None), (None, 3.0), (100, 20.0)])
def test_window_and_softcap(window, softcap, device) -> None:  # type: ignore[no-untyped-def]
    check(
        make_rows([(1, 90), (40, 150), (1, 700)], 2000),
        4,
        2,
        16,
        torch.float32,
        device,
        window=window,
        softcap=softcap,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads, kv_heads", [(4, 2), (3, 3)])
def test_rows_that_share_a_prefix(heads, kv_heads, dtype, device) -> None:  # type: ignore[no-untyped-def]
    sizes = [(1, 620), (1, 601), (5, 640), (1, 650), (1, 605)]
    rows = make_rows(sizes, 2000, shared=600)
    check(rows, heads, kv_heads, 16, dtype, device, cascades=[([0, 1, 3, 4], 600)])


def test_rows_that_share_prefixes_of_two_kinds_or_none(device) -> None:  # type: ignore[no-untyped-def]
    first, second = np.arange(300), np.arange(300, 900)
    lists = [
        [*first, 1000],
        [*second, 1001, 1002],
        [*range(1100, 1500)],
        [*first, 1003, 1004],
        [*second, 1005],
        [7],
    ]
    starts = np.concatenate(([0], np.cumsum([len(each) for each in lists]))).astype(np.int32)
    rows = AttentionRows(np.arange(7, dtype=np.int32), starts, np.concatenate(lists).astype(np.int32))
    check(rows, 4, 2, 16, torch.float32, device, cascades=[([0, 3], 300), ([1, 4], 600)])


def test_many_rows_with_one_prefix(device) -> None:  # type: ignore[no-untyped-def]
    rows = make_rows([(1, 260 + i % 3) for i in range(70)], 2000, shared=258)
    check(rows, 4, 2, 16, torch.float32, device, cascades=[(list(range(70)), 258)])
