from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sgl_like.kernels import quantized
from sgl_like.kernels.device_linear import Int4DeviceLinear, RoundedLinear, round_int4
from sgl_like.kernels.linear import Int4Linear, make_linear
from sgl_like.kernels.quantized import Int4Numbers, RoundedWeight
from tests.support.four_bits import awq_tensors, gptq_tensors
from tests.support.poison import Poison

DTYPES = [torch.float32, torch.bfloat16]
KINDS = [torch.int8, torch.float8_e4m3fn]
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 3e-2}
SHAPES = [
    (1, 1, 1), (3, 33, 70), (16, 64, 512), (17, 100, 300), (130, 131, 40), (0, 8, 16), (3, 0, 16), (2, 8, 2304),
    (65, 8, 2304),
]  # fmt: skip


def close(found: Tensor, expected: Tensor, dtype: torch.dtype, least: float = 0.0) -> None:
    assert found.dtype == expected.dtype == dtype
    tolerance = max(TOLERANCE[dtype], least)
    limit = tolerance * max(1.0, float(expected.float().abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(found.cpu().float(), expected.float(), atol=limit, rtol=tolerance)


def random_int4(columns: int, rows: int, group: int) -> Int4Numbers:
    zeros = torch.randint(0, 17, (columns // group, rows))
    scales = (torch.rand(columns // group, rows) / 10).half()
    return Int4Numbers(torch.randint(16, (columns, rows)), scales, zeros)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens, rows, columns", SHAPES)
def test_rounded_products(
    tokens: int, rows: int, columns: int, kind: torch.dtype, dtype: torch.dtype, device: str, poison: Poison
) -> None:
    from sgl_like.kernels.triton import quantized as run

    x = torch.randn(tokens, columns).to(dtype)
    w, scale = quantized.round_rows(torch.randn(rows, columns), kind)
    bias = torch.randn(rows) if tokens % 2 else None
    product = run.int8_linear if kind == torch.int8 else run.fp8_linear
    x_, w_, scale_ = (poison.put(each, device) for each in (x, w, scale))
    found = product(x_, w_, scale_, None if bias is None else poison.put(bias, device))
    # an H100's tensor cores keep 14 bits of the sums of 8-bit floats
    close(found, quantized.rounded_reference(x, w, scale, bias), dtype, 0.0 if kind == torch.int8 else 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_rounded_like_torch(kind: torch.dtype, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.quantized import round_rows

    x = torch.randn(9, 200)
    x[0], x[1, :5] = 0, torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5])
    x[1, 5:] = 0
    values, scales = round_rows(poison.put(x, device), kind)
    expected, expected_scales = quantized.round_rows(x, kind)
    torch.testing.assert_close(scales.cpu(), expected_scales)
    differ = (values.cpu().float() != expected.float()).float().mean()
    assert differ < 0.01  # the scale's last bit may move a number that lies between two


@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize("form", ["awq", "gptq", "gptq_v2"])
def test_files_hold_what_was_packed(form: str, group: int) -> None:
    columns, rows = 512, 40
    values, scales, zeros = random_int4(columns, rows, group)
    zeros = zeros.clamp(1, 15)
    if form == "awq":
        found = quantized.unpack_awq(**awq_tensors(values, scales, zeros))
    else:
        offset = 1 if form == "gptq" else 0
        tensors = gptq_tensors(values, scales, zeros, offset)
        del tensors["g_idx"]
        found = quantized.unpack_gptq(**tensors, zero_offset=offset)
    assert found.group == group
    wide = scales.float().repeat_interleave(group, 0)
    expected = ((values - zeros.repeat_interleave(group, 0)) * wide).T
    assert torch.equal(found.dense(), expected)
    assert torch.equal(quantized.pack_int4(found).dense(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "tokens, rows, columns, group",
    [
        (1, 1, 128, 128), (5, 40, 256, 64), (17, 72, 384, 32), (130, 131, 128, 32), (2, 9, 512, 512), (3, 8, 2304, 256),
        (65, 8, 2304, 128), (0, 8, 128, 32),
    ],
)  # fmt: skip
def test_int4_products(
    tokens: int, rows: int, columns: int, group: int, dtype: torch.dtype, device: str, poison: Poison
) -> None:
    from sgl_like.kernels.triton.quantized import int4_linear

    w = quantized.pack_int4(random_int4(columns, rows, group))
    x = torch.randn(tokens, columns).to(dtype)
    bias = torch.randn(rows) if tokens % 2 else None
    placed = quantized.Int4Weight(poison.put(w.words, device), poison.put(w.steps, device), group)
    found = int4_linear(poison.put(x, device), placed, None if bias is None else poison.put(bias, device))
    close(found, quantized.int4_reference(x, w, bias), dtype)


def test_two_weights_at_a_time() -> None:
    """What GPUs do with pairs of int16 in 32 bits gives each of their nibbles, less a zero point, exactly."""
    low = torch.arange(2**16)
    for other in (0, 0xFFFF, 0xA5C3):
        pair = low | other << 16
        for i in range(4):
            shifted = (pair >> 4 * i) & 0xFFFFFFFF
            raised = (shifted & 0x000F000F) | 0x43004300
            for half, word in ((raised & 0xFFFF, low), (raised >> 16, torch.full_like(low, other))):
                for zero in (0, 7, 16, 127):
                    start = torch.tensor(0x4300 | zero, dtype=torch.int16).view(torch.bfloat16)
                    found = half.to(torch.int16).view(torch.bfloat16) - start
                    assert torch.equal(found.float(), ((word >> 4 * i & 15) - zero).float())


@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
def test_split_columns_add_up_alike(form: str, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """A program for each piece of the columns, or one for all: the same bits."""
    from sgl_like.kernels.triton import quantized as run

    rows, columns = 24, 4096
    assert run.piece_count(rows, columns) == 4
    x, weight = torch.randn(5, columns).to(device), torch.randn(rows, columns).to(device)

    def product() -> Tensor:
        if form == "int4":
            return run.int4_linear(x, round_int4(weight, 32))
        kind = torch.int8 if form == "int8" else torch.float8_e4m3fn
        rounded = RoundedWeight(*quantized.round_rows(weight, kind))
        return (run.int8_linear if form == "int8" else run.fp8_linear)(x, rounded.values, rounded.scales)

    split = product()
    monkeypatch.setattr(run, "FEW", 0)
    assert torch.equal(product(), split)


@pytest.mark.parametrize("quantization", ["int8", "fp8", "int4"])
@pytest.mark.parametrize("columns", [256, 60])
def test_layers(quantization: str, columns: int, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """What a model gets on a GPU; columns that cannot be grouped have 8 bits."""
    monkeypatch.setattr("sgl_like.kernels.linear.by_triton", lambda x: True)
    weight, bias = torch.randn(20, columns), torch.randn(20)
    layer = make_linear(weight, bias, quantization, torch.device(device))
    fits = quantization == "int4" and columns == 256
    assert isinstance(layer, Int4DeviceLinear if fits else RoundedLinear)
    rows = layer.weight_rows(torch.arange(20, device=device)).cpu()
    assert (rows - weight).norm() / weight.norm() < (0.15 if fits else 0.05)
    x = torch.randn(3, columns)
    expected = torch.nn.functional.linear(x, weight, bias)
    assert (layer(x.to(device)).cpu() - expected).norm() / expected.norm() < (0.15 if fits else 0.05)
    assert layer.nbytes < weight.nbytes * (0.25 if fits else 0.4)


def test_four_bits_are_rounded_as_on_cpus() -> None:
    weight = torch.randn(70, 256)
    expected = Int4Linear(weight).weight_rows(torch.arange(70))
    assert torch.equal(round_int4(weight, 32).dense(), expected)
