from __future__ import annotations

import numpy as np
import pytest
import torch

from sgl_like.kernels import gelu_mul, layer_norm, rms_norm, rotary, silu_mul, token_mask

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}


def close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(
        found.cpu().float(), expected.float(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 33), (2, 3, 24), (17, 256), (0, 8)])
def test_rms_norm(shape, dtype, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.rms_norm import add_rms_norm
    from sgl_like.kernels.triton.rms_norm import rms_norm as run

    x, weight = torch.randn(shape).to(dtype), torch.randn(shape[-1])
    close(run(x.to(device), weight.to(device), 1e-5), rms_norm.reference(x, weight, 1e-5), dtype)
    added = torch.randn(shape).to(dtype)
    summed = x.to(device).clone()
    found = add_rms_norm(summed, added.to(device), weight.to(device), 1e-5)
    close(summed, x + added, dtype)
    close(found, rms_norm.reference(x + added, weight, 1e-5), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (3, 33), (17, 256), (0, 8)])
def test_layer_norm(shape, dtype, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.layer_norm import layer_norm as run

    x, weight, bias = (3 * torch.randn(each).to(dtype) for each in (shape, shape[-1], shape[-1]))
    found = run(x.to(device), weight.to(device), bias.to(device), 1e-5)
    close(found, layer_norm.reference(x, weight, bias, 1e-5), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2), (5, 96), (3, 2 * 1500), (0, 8)])
def test_gates(shape, dtype, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton import gates

    x = 3 * torch.randn(shape).to(dtype)
    close(gates.silu_mul(x.to(device)), silu_mul.reference(x), dtype)
    for tanh in (True, False):
        close(gates.gelu_mul(x.to(device), tanh), gelu_mul.reference(x, tanh), dtype)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "tokens, heads, kv_heads, size, turned",
    [(1, 1, 1, 2, 2), (5, 4, 2, 18, 12), (3, 7, 1, 64, 64), (2, 2, 2, 8, 0)],
)
def test_store_heads(tokens, heads, kv_heads, size, turned, dtype, fp8, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.rotary import store_heads

    angles = torch.rand(tokens, 1, turned // 2) * 6
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    qkv = torch.randn(tokens, heads + 2 * kv_heads, size).to(dtype)
    turn = (lambda x: rotary.reference(x, cos, sin)) if turned else (lambda x: x)
    slots = torch.randperm(tokens + 3)[:tokens]
    kept = torch.float8_e4m3fn if fp8 else dtype
    caches = [torch.zeros(tokens + 3, kv_heads, size).to(kept).to(device) for _ in range(2)]
    given = (cos.to(device), sin.to(device)) if turned else None
    scales = (0.5, 2.0) if fp8 else (1.0, 1.0)
    queries = store_heads(qkv.to(device), given, slots.to(device), *caches, scales=scales)
    q, k, v = qkv.split([heads, kv_heads, kv_heads], dim=1)
    close(queries, turn(q), dtype)
    for cache, expected, scale in zip(caches, (turn(k), v), scales, strict=True):
        found = cache.cpu().float()[slots] * scale
        limit = 0.13 if fp8 else TOLERANCE[dtype]  # e4m3 has three bits after the first one
        torch.testing.assert_close(found, expected.float(), atol=limit, rtol=limit)
        untouched = [slot for slot in range(tokens + 3) if slot not in slots.tolist()]
        assert not cache.cpu().float()[untouched].any()


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 5000])
def test_token_mask(vocab, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.token_mask import apply_token_mask

    logits = torch.randn(4, vocab)
    masks = np.random.default_rng(0).integers(-(2**31), 2**31, (2, (vocab + 31) // 32)).astype(np.int32)
    rows = np.array([3, 1], dtype=np.int32)
    found = logits.to(device).clone()
    apply_token_mask(found, torch.from_numpy(masks).to(device), torch.from_numpy(rows).to(device))
    token_mask.reference(logits, masks, rows)
    assert torch.equal(found.cpu(), logits)
