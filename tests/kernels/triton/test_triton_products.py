from __future__ import annotations

import pytest
import torch

from sgl_like.kernels import grouped, quantized

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 3e-2}
SHAPES = [(1, 1, 1), (3, 33, 70), (16, 64, 512), (17, 100, 300), (70, 40, 128), (0, 8, 16)]


def close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == expected.dtype == dtype
    limit = TOLERANCE[dtype] * max(1.0, float(expected.float().abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(found.cpu().float(), expected.float(), atol=limit, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("tokens, rows, columns", SHAPES)
def test_rounded_products(tokens, rows, columns, kind, dtype, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton import quantized as run

    x = torch.randn(tokens, columns).to(dtype)
    w, scale = quantized.round_rows(torch.randn(rows, columns), kind)
    for bias in (None, torch.randn(rows)):
        product = run.int8_linear if kind == torch.int8 else run.fp8_linear
        found = product(
            x.to(device), w.to(device), scale.to(device), None if bias is None else bias.to(device)
        )
        close(found, quantized.rounded_reference(x, w, scale, bias), dtype)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_rows_are_rounded_like_torch(kind, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.quantized import round_rows

    x = torch.randn(9, 200)
    x[0], x[1, :5] = 0, torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5])
    x[1, 5:] = 0
    values, scales = round_rows(x.to(device), kind)
    expected, expected_scales = quantized.round_rows(x, kind)
    torch.testing.assert_close(scales.cpu(), expected_scales)
    differ = (values.cpu().float() != expected.float()).float().mean()
    assert differ < 0.01  # the scale's last bit may move a number that lies between two


def awq_words(values: torch.Tensor) -> torch.Tensor:
    """[n, rows] to [n, rows / 8] in AWQ's order, written independently of the unpacking."""
    words = torch.zeros(len(values), values.shape[1] // 8, dtype=torch.int64)
    for column in range(values.shape[1]):
        slot = [0, 4, 1, 5, 2, 6, 3, 7][column % 8]
        words[:, column // 8] |= values[:, column].long() << 4 * slot
    return torch.where(words >= 2**31, words - 2**32, words).int()


def gptq_words(values: torch.Tensor) -> torch.Tensor:
    words = torch.zeros(len(values) // 8, values.shape[1], dtype=torch.int64)
    for i in range(len(values)):
        words[i // 8] |= values[i].long() << 4 * (i % 8)
    return torch.where(words >= 2**31, words - 2**32, words).int()


@pytest.mark.parametrize("form", ["awq", "gptq"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "tokens, rows, columns, group", [(1, 8, 128, 128), (5, 40, 256, 64), (17, 72, 384, 32), (0, 8, 128, 32)]
)
def test_int4_products(tokens, rows, columns, group, dtype, form, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.quantized import int4_linear

    values = torch.randint(16, (columns, rows))
    zeros = torch.randint(1, 16, (columns // group, rows))
    scales = (torch.rand(columns // group, rows) / 10).half().float()
    if form == "awq":
        w = quantized.from_awq(awq_words(values), awq_words(zeros), scales, group)
    else:
        w = quantized.from_gptq(gptq_words(values), gptq_words((zeros - 1).T.contiguous()).T, scales, group)
    expected = (values - zeros.repeat_interleave(group, 0)) * scales.repeat_interleave(group, 0)
    torch.testing.assert_close(w.dense(), expected.T.contiguous())
    x = torch.randn(tokens, columns).to(dtype)
    moved = w.to(device)
    for bias in (None, torch.randn(rows)):
        found = int4_linear(x.to(device), moved, None if bias is None else bias.to(device))
        close(found, quantized.int4_reference(x, w, bias), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "tokens, repeat, matrices", [(1, 1, 1), (7, 2, 4), (300, 1, 5), (40, 8, 64), (0, 2, 3)]
)
def test_grouped_products(tokens, repeat, matrices, dtype, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.grouped import grouped_linear

    x, w = torch.randn(tokens, 24).to(dtype), torch.randn(matrices, 40, 24).to(dtype)
    groups = torch.randint(-1, matrices, (tokens * repeat,))
    found = grouped_linear(x.to(device), w.to(device), groups.to(device))
    close(found, grouped.reference(x, w, groups), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [8, 16, 64])
def test_lora(rank, dtype, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton.grouped import lora_add

    tokens, adapters = 21, 3
    x, y = torch.randn(tokens, 48).to(dtype), torch.randn(tokens, 40).to(dtype)
    a, b = torch.randn(adapters, rank, 48).to(dtype) / 8, torch.randn(adapters, 40, rank).to(dtype) / 8
    scales, groups = torch.rand(adapters), torch.randint(-1, adapters, (tokens,))
    found = lora_add(*(each.to(device).clone() for each in (y, x, a, b, scales, groups)))
    close(found, grouped.lora_reference(y, x, a, b, scales, groups), dtype)


def test_trying_configurations_adds_an_adapter_once(monkeypatch, device) -> None:  # type: ignore[no-untyped-def]
    from sgl_like.kernels.triton import grouped as run

    def try_all(op, key, configs, launch):  # type: ignore[no-untyped-def]
        for config in configs:
            launch(config)
        return configs[-1]

    monkeypatch.setattr(run, "choose", try_all)
    x, y = torch.randn(3, 32), torch.randn(3, 20)
    a, b, scales = torch.randn(2, 8, 32), torch.randn(2, 20, 8), torch.ones(2)
    groups = torch.tensor([0, 1, -1])
    found = run.lora_add(*(each.to(device).clone() for each in (y, x, a, b, scales, groups)))
    close(found, grouped.lora_reference(y, x, a, b, scales, groups), torch.float32)
