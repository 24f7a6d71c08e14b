"""Every op against its reference: shapes, dtypes, fresh random inputs, poisoned outputs."""

import numpy as np
import pytest
import torch

from sgl_like.kernels import attention, gelu_mul, layer_norm, rms_norm, rotary, silu_mul, token_mask

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}


def close(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> None:
    assert a.dtype == b.dtype == dtype
    torch.testing.assert_close(a.float(), b.float(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 33), (17, 256), (0, 8)])
def test_rms_norm(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = torch.randn(shape).to(dtype), torch.randn(shape[-1]).to(dtype)
    close(rms_norm.rms_norm(x, weight, 1e-5), rms_norm.reference(x, weight, 1e-5), dtype)


def test_rms_norm_with_a_wider_weight() -> None:
    x, weight = torch.randn(5, 64).bfloat16(), 1 + torch.randn(64) / 100  # bfloat16 has no such steps near 1
    assert torch.equal(rms_norm.rms_norm(x, weight, 1e-5), rms_norm.reference(x, weight, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (3, 33), (17, 256), (0, 8)])
def test_layer_norm(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight, bias = (3 * torch.randn(s).to(dtype) for s in (shape, shape[-1], shape[-1]))
    close(layer_norm.layer_norm(x, weight, bias, 1e-5), layer_norm.reference(x, weight, bias, 1e-5), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape, turned", [((1, 1, 2), 2), ((5, 4, 64), 64), ((7, 3, 18), 12), ((0, 2, 8), 8)]
)
def test_rotary(shape: tuple[int, int, int], turned: int, dtype: torch.dtype) -> None:
    tokens = shape[0]
    angles = torch.rand(tokens, turned // 2) * 6
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
    x, cos, sin = torch.randn(shape).to(dtype), angles.cos().to(dtype), angles.sin().to(dtype)
    close(rotary.rotary(x, cos, sin), rotary.reference(x, cos, sin), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (5, 96), (0, 8)])
def test_silu_mul(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    close(silu_mul.silu_mul(x.clone()), silu_mul.reference(x), dtype)


@pytest.mark.parametrize("tanh", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (5, 96), (0, 8)])
def test_gelu_mul(shape: tuple[int, int], dtype: torch.dtype, tanh: bool) -> None:
    x = 3 * torch.randn(shape).to(dtype)
    close(gelu_mul.gelu_mul(x.clone(), tanh), gelu_mul.reference(x, tanh), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("turned", [None, 8, 24])
@pytest.mark.parametrize("tokens", [1, 40])
def test_store_heads(tokens: int, turned: int | None, normed: bool, dtype: torch.dtype) -> None:
    heads, kv_heads, head_dim = 6, 2, 24
    qkv = torch.randn(tokens, heads + 2 * kv_heads, head_dim).to(dtype)
    angles = None
    if turned is not None:
        half = torch.randn(tokens, 1, turned // 2)
        whole = torch.cat((half, half), dim=-1)
        angles = whole.cos().to(dtype), whole.sin().to(dtype)
    slots = torch.randperm(50)[:tokens]
    k, v = (torch.full((50, kv_heads, head_dim), 7.0).to(dtype) for _ in range(2))
    norms = rotary.HeadNorms(torch.rand(head_dim), torch.rand(head_dim), 1e-5) if normed else None
    q = rotary.store_heads(qkv, angles, slots, k, v, norms)
    expected = qkv
    if norms is not None:
        parts = qkv.split([heads, kv_heads, kv_heads], dim=1)
        normed_parts = (
            rms_norm.reference(x, w, 1e-5) for x, w in zip(parts, (norms.queries, norms.keys), strict=False)
        )
        expected = torch.cat((*normed_parts, parts[2]), dim=1)
    expected = expected if angles is None else rotary.reference(expected, *angles)
    close(q, expected[:, :heads], dtype)
    close(k[slots], expected[:, heads : heads + kv_heads], dtype)
    assert torch.equal(v[slots], qkv[:, heads + kv_heads :])
    assert (k == 7.0).all(dim=(1, 2)).sum() == (v == 7.0).all(dim=(1, 2)).sum() == 50 - tokens


def random_rows(lengths: list[tuple[int, int]], slots: int) -> attention.AttentionRows:
    """Rows of (new tokens, all tokens) whose slots are scattered over the pool."""
    q_start = np.cumsum([0, *(new for new, _ in lengths)]).astype(np.int32)
    kv_start = np.cumsum([0, *(total for _, total in lengths)]).astype(np.int32)
    chosen = np.random.default_rng().permutation(slots)[: kv_start[-1]].astype(np.int32)
    return attention.AttentionRows(q_start, kv_start, chosen)


LENGTHS = [
    [(1, 1)],
    [(1, 9), (1, 1), (1, 33)],
    [(15, 15), (16, 16), (17, 40)],
    [(1, 7), (40, 40), (3, 3), (20, 61), (5, 12)],
    [(1, 200), (70, 150), (130, 130), (2, 129), (1, 64), (1, 65)],
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads, kv_heads, head_dim", [(1, 1, 2), (4, 4, 16), (8, 2, 64), (6, 1, 24)])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_paged_attention(
    lengths: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    check_paged_attention(lengths, heads, kv_heads, head_dim, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 5, 16, 30, 1000])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_paged_attention_with_a_window(
    lengths: list[tuple[int, int]], window: int, dtype: torch.dtype
) -> None:
    check_paged_attention(lengths, 4, 2, 16, dtype, window=window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 7, 30])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_paged_attention_with_capped_scores(
    lengths: list[tuple[int, int]], window: int | None, dtype: torch.dtype
) -> None:
    check_paged_attention(lengths, 6, 2, 24, dtype, window=window, softcap=0.8)


def check_paged_attention(
    lengths: list[tuple[int, int]],
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    **options: float | None,
) -> None:
    size = sum(total for _, total in lengths) + 50
    rows = random_rows(lengths, size)
    q = torch.randn(int(rows.q_start[-1]), heads, head_dim).to(dtype)
    k, v = (
        torch.full((size, kv_heads, head_dim), torch.nan).to(dtype) for _ in range(2)
    )  # unused slots: poison
    used = torch.from_numpy(rows.kv_slots).long()
    for cache in (k, v):
        cache[used] = torch.randn(len(used), kv_heads, head_dim).to(dtype)
    scale = head_dim**-0.5
    found = attention.paged_attention(q, k, v, rows, scale, **options)  # type: ignore[arg-type]
    close(found, attention.reference(q, k, v, rows, scale, **options), dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_of_a_token_does_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    """To the bit: alone, with others, in one piece or in many, on one thread or on two."""
    threads = torch.get_num_threads()
    total, heads, kv_heads, head_dim = 150, 6, 2, 32
    q = torch.randn(total, heads, head_dim).to(dtype)
    k, v = (torch.randn(400, kv_heads, head_dim).to(dtype) for _ in range(2))
    rows = random_rows([(total, total), (20, 90)], 400)
    both = torch.cat((q, torch.randn(20, heads, head_dim).to(dtype)))
    try:
        torch.set_num_threads(2)
        expected = attention.paged_attention(both, k, v, rows, 0.2)[:total]
    finally:
        torch.set_num_threads(threads)
    pieces, at = [], 0
    for size in (1, 63, 2, 83, 1):
        at += size
        row = attention.AttentionRows(
            np.array([0, size], np.int32), np.array([0, at], np.int32), rows.kv_slots[:at]
        )
        pieces.append(attention.paged_attention(q[at - size : at], k, v, row, 0.2))
    assert torch.equal(torch.cat(pieces), expected)


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 200])
def test_token_mask(vocab: int) -> None:
    random = np.random.default_rng(vocab)
    masks = random.integers(-(2**31), 2**31, (2, (vocab + 31) // 32), dtype=np.int32)
    masks[0] = -1
    logits = torch.randn(4, vocab)
    expected, rows = logits.clone(), np.array([3, 1], dtype=np.int32)
    token_mask.apply_token_mask(logits, masks, rows)
    token_mask.reference(expected, masks, rows)
    assert torch.equal(logits, expected)
    assert torch.equal(logits[[0, 2, 3]], expected[[0, 2, 3]])
    assert torch.isfinite(logits[3]).all()
