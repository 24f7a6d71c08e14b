"""Ops without sums over tokens, against their references: sizes at the edges of blocks, all memory poisoned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgl_like.kernels import gelu_mul, layer_norm, logit_edits, rms_norm, rotary, silu_mul, token_mask
from tests.support.poison import Poison

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}

# One number, odd sizes, no rows, more axes, rows of several programs (small ones go side by side), rows that fill one.
SHAPES = [(1, 1), (1, 64), (3, 33), (2, 3, 24), (17, 256), (0, 8), (2, 0), (2049, 5), (5, 4097), (2, 20000)]


def close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, roundings: int = 1) -> None:
    assert found.dtype == expected.dtype == dtype and found.shape == expected.shape
    limit = roundings * TOLERANCE[dtype]
    torch.testing.assert_close(found.cpu().float(), expected.float(), atol=limit, rtol=limit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.rms_norm import add_rms_norm
    from sgl_like.kernels.triton.rms_norm import rms_norm as run

    x, added, weight = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype), torch.randn(shape[-1])
    on_device = poison.put(weight, device)
    close(run(poison.put(x, device), on_device, 1e-5), rms_norm.reference(x, weight, 1e-5), dtype)
    summed = poison.put(x, device)
    found = add_rms_norm(summed, poison.put(added, device), on_device, 1e-5)
    close(summed, x + added, dtype)
    close(found, rms_norm.reference(x + added, weight, 1e-5), dtype)


def test_rms_norm_of_parts_of_rows_and_with_a_narrow_weight(device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.rms_norm import rms_norm as run

    x, weight = torch.randn(5, 6, 24).bfloat16(), torch.randn(24).bfloat16()
    found = run(poison.put(x, device)[:, 1:3], poison.put(weight, device), 1e-5)
    close(found, rms_norm.reference(x[:, 1:3], weight, 1e-5), torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(shape: tuple[int, ...], dtype: torch.dtype, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.layer_norm import layer_norm as run

    x, weight, bias = (3 * torch.randn(each).to(dtype) for each in (shape, shape[-1], shape[-1]))
    found = run(*(poison.put(each, device) for each in (x, weight, bias)), 1e-5)
    close(found, layer_norm.reference(x, weight, bias, 1e-5), dtype)


@pytest.mark.parametrize("size", [24, 1000])
def test_norms_of_a_row_do_not_depend_on_the_others(size: int, device: str) -> None:
    from sgl_like.kernels.triton import layer_norm, rms_norm

    x, weight, bias = torch.randn(1500, size), torch.randn(size), torch.randn(size)
    given, w, b = x.to(device), weight.to(device), bias.to(device)
    whole = rms_norm.rms_norm(given, w, 1e-5), layer_norm.layer_norm(given, w, b, 1e-5)
    for row in (0, 7, 1499):
        alone = given[row : row + 1]
        assert torch.equal(rms_norm.rms_norm(alone, w, 1e-5)[0], whole[0][row])
        assert torch.equal(layer_norm.layer_norm(alone, w, b, 1e-5)[0], whole[1][row])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens, width", [(1, 1), (5, 48), (3, 1500), (0, 4), (2, 0), (1100, 9), (3, 16385)])
def test_gates(tokens: int, width: int, dtype: torch.dtype, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton import gates

    x = 3 * torch.randn(tokens, 2 * width).to(dtype)
    x.view(-1)[:4] = torch.tensor([100.0, -100.0, 0.0, -0.0])[: x.numel()]  # exp must not overflow
    given = poison.put(x, device)
    close(gates.silu_mul(given), silu_mul.reference(x), dtype)
    for tanh in (True, False):
        close(gates.gelu_mul(given, tanh), gelu_mul.reference(x, tanh), dtype)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "tokens, heads, kv_heads, size, turned",
    [
        (1, 1, 1, 2, 2), (5, 4, 2, 18, 12), (3, 7, 1, 64, 64), (2, 2, 2, 8, 0), (3, 3, 3, 7, 6), (0, 2, 1, 8, 8),
        (8200, 1, 1, 2, 2), (130, 6, 2, 24, 8), (2, 71, 1, 16, 16), (3, 32, 8, 128, 128),
    ],
)  # fmt: skip
def test_store_heads(
    tokens: int, heads: int, kv_heads: int, size: int, turned: int, dtype: torch.dtype, normed: bool, fp8: bool,
    device: str, poison: Poison,
) -> None:  # fmt: skip
    from sgl_like.kernels.triton.rotary import store_heads

    angles = torch.rand(tokens, 1, turned // 2) * 6
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    qkv = torch.randn(tokens, heads + 2 * kv_heads, size).to(dtype)
    slots = torch.randperm(tokens + 3)[:tokens]
    kept = torch.float8_e4m3fn if fp8 else dtype
    caches = [poison.empty(tokens + 3, kv_heads, size, dtype=kept, device=device) for _ in range(2)]
    given = (poison.put(cos, device), poison.put(sin, device)) if turned else None
    scales = (0.5, 2.0) if fp8 else (1.0, 1.0)
    weights = [torch.rand(size) + 0.5 for _ in range(2)]
    norms = rotary.HeadNorms(*(poison.put(each, device) for each in weights), 1e-5) if normed else None
    queries = store_heads(
        poison.put(qkv, device), given, poison.put(slots, device), *caches, norms, scales=scales
    )

    q, k, v = qkv.split([heads, kv_heads, kv_heads], dim=1)
    if normed:
        q, k = (rms_norm.reference(x, weight, 1e-5) for x, weight in zip((q, k), weights, strict=True))
    if turned:
        q, k = (rotary.reference(x, cos, sin) for x in (q, k))
    close(queries, q, dtype, 1 + normed)
    others = torch.ones(tokens + 3, dtype=torch.bool)
    others[slots] = False
    for cache, expected, scale in zip(caches, (k, v), scales, strict=True):
        found = cache.cpu().float()
        limit = 0.13 if fp8 else (1 + normed) * TOLERANCE[dtype]  # e4m3 has three bits after the first one
        torch.testing.assert_close(found[slots] * scale, expected.float(), atol=limit, rtol=limit)
        assert found[others].isnan().all()


@pytest.mark.parametrize("rows", [[], [2], [3, 1], list(range(99, -1, -3))])
@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 5000, 16385])
def test_token_mask(vocab: int, rows: list[int], device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.token_mask import apply_token_mask

    logits = torch.randn(100, vocab)
    masks = np.random.default_rng(0).integers(-(2**31), 2**31, (len(rows), (vocab + 31) // 32))
    masks, where = masks.astype(np.int32), np.array(rows, dtype=np.int32)
    found = poison.put(logits, device)
    apply_token_mask(
        found, poison.put(torch.from_numpy(masks), device), poison.put(torch.from_numpy(where), device)
    )
    token_mask.reference(logits, masks, where)
    assert torch.equal(found.cpu(), logits)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 700])
def test_logit_edits(count: int, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.logit_edits import edit_logits

    rng = np.random.default_rng(count)
    logits = torch.randn(7, 101)
    logits[3, 50] = -torch.inf
    places = rng.permutation(707)[:count]
    scales = rng.uniform(0.5, 2, count).astype(np.float32)
    shifts = rng.normal(size=count).astype(np.float32)
    shifts[::5] = -np.inf
    found = poison.put(logits, device)
    edit_logits(found, places, scales, shifts)
    logit_edits.reference(logits.numpy(), places // 101, places % 101, scales, shifts)
    torch.testing.assert_close(found.cpu(), logits)
