"""Packed linear layers against plain matmuls with the rounded numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sgl_like.kernels.linear import (
    BFloat16Linear,
    DenseLinear,
    Int4Linear,
    Int8Linear,
    Linear,
    int4_weights,
    int8_weights,
    make_linear,
    make_packed_linear,
    rounded,
)
from sgl_like.kernels.quantized import Int4Numbers

SHAPES = [(64, 32), (100, 96), (130, 352), (7, 64), (9, 20), (65, 12)]
ROWS = [1, 2, 3, 4, 5, 6, 7, 13]
KINDS = {
    "int8": (Int8Linear, torch.float32),
    "int8, bfloat16 in and out": (Int8Linear, torch.bfloat16),
    "int4": (Int4Linear, torch.float32),
    "int4, bfloat16 in and out": (Int4Linear, torch.bfloat16),
    "bfloat16": (BFloat16Linear, torch.bfloat16),
}


def expected(layer: Linear, x: Tensor, bias: Tensor, rounds: bool) -> Tensor:
    """What a layer is to compute, from its own idea of its weights; float64."""
    if rounds:
        values, scales, _ = rounded(x, x.shape[1])
        x = values.double() * scales[:, None]
    table = layer.weight_rows(torch.arange(len(bias)))
    return x.double() @ table.double().T + bias.double()


def check(name: str) -> None:
    """One kind of layer over all shapes and numbers of rows."""
    kind, dtype = KINDS[name]
    generator = torch.Generator().manual_seed(0)
    for rows, columns in SHAPES:
        if kind is Int4Linear and columns % 32:
            continue
        weight = torch.randn(rows, columns, generator=generator)
        if kind is BFloat16Linear:
            weight = weight.to(dtype)
        bias = torch.randn(rows, generator=generator)
        layer = kind(weight, bias)
        for count in ROWS:
            x = torch.randn(count, columns, generator=generator).to(dtype)
            wanted = expected(layer, x, bias, kind is not BFloat16Linear)
            limit = 1e-5 if dtype == torch.float32 else 2**-7
            assert layer(x).dtype == dtype
            assert (layer(x).double() - wanted).abs().max() < limit * (1 + wanted.abs().max())


@pytest.mark.parametrize("name", KINDS)
def test_product(name: str) -> None:
    check(name)


def test_product_without_special_instructions() -> None:
    """The same machine code as a processor without AVX-512 would get."""
    code = "from tests.kernels.test_linear import KINDS, check\nfor name in KINDS: check(name)"
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=True, timeout=120)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "rows", [9, 10, 29, 127, 128, 131, 300]
)  # few, some and many rows have loops of their own
def test_a_row_does_not_depend_on_its_batch(name: str, rows: int) -> None:
    kind, dtype = KINDS[name]
    layer = kind(torch.randn(130, 352).to(dtype))
    x = torch.randn(rows, 352).to(dtype)
    alone = torch.cat([layer(x[i : i + 1]) for i in range(rows)])
    assert torch.equal(layer(x), alone)
    assert torch.equal(layer(x.T.contiguous().T), alone)
    assert layer(x[:0]).shape == (0, 130)


def test_many_rows_on_several_threads() -> None:
    before = torch.get_num_threads()
    weight, x = torch.randn(1000, 128), torch.randn(300, 128)
    torch.set_num_threads(1)
    try:
        alone = Int8Linear(weight)(x)
        torch.set_num_threads(2)
        assert torch.equal(Int8Linear(weight)(x), alone)
    finally:
        torch.set_num_threads(before)


def test_rounding_of_x() -> None:
    x = torch.cat((torch.randn(9, 64), torch.zeros(1, 64), torch.full((1, 64), -3.0)))
    values, scales, totals = rounded(x, 32)
    assert ((values * scales[:, None] - x).abs() <= scales[:, None] * 0.5001).all()
    assert torch.equal(totals, values.view(11, 2, 32).sum(2, dtype=torch.int32))
    assert torch.isnan(rounded(torch.full((1, 64), torch.nan), 64)[1]).all()


def test_rounding_of_weights() -> None:
    weight = torch.cat((torch.randn(20, 64), torch.zeros(1, 64)))
    values, scales = int8_weights(weight)
    assert ((values * scales[:, None] - weight).abs() <= scales[:, None] * 0.5001).all()
    values, groups = int4_weights(weight)
    steps = groups.float().abs().repeat_interleave(32, dim=1)
    error = (values * groups.float().repeat_interleave(32, dim=1) - weight).abs()
    assert (error <= steps * 1.05).all() and error.mean() < 0.3 * steps.mean()


def test_choice_of_the_format() -> None:
    wide, odd = torch.randn(8, 64), torch.randn(8, 6)
    assert isinstance(make_linear(wide), DenseLinear)
    assert isinstance(make_linear(wide.bfloat16()), BFloat16Linear)
    assert isinstance(make_linear(wide, quantization="int8"), Int8Linear)
    assert isinstance(make_linear(wide, quantization="int4"), Int4Linear)
    assert isinstance(make_linear(wide[:, :36].contiguous(), quantization="int4"), Int8Linear)
    assert isinstance(make_linear(odd, quantization="int4"), DenseLinear)
    assert Int8Linear(wide).nbytes < 0.6 * DenseLinear(wide).nbytes + 8 * 56 * 64


@pytest.mark.parametrize("group", [32, 64, 160])
def test_four_bits_with_zero_points_of_eight_stay_as_they_are(group: int) -> None:
    scales = (torch.rand(320 // group, 70) / 10).bfloat16().half()
    numbers = Int4Numbers(torch.randint(16, (320, 70)), scales, torch.full_like(scales, 8).to(torch.uint8))
    layer, every = make_packed_linear(numbers, None, torch.float32, "int4"), torch.arange(70)
    assert isinstance(layer, Int4Linear)
    assert torch.equal(layer.weight_rows(every), numbers.dense())
    dense = make_packed_linear(numbers, None, torch.float32)
    assert isinstance(dense, DenseLinear) and torch.equal(dense.weight, numbers.dense())
    numbers.zeros[0, 0] = 7
    rounded_again = make_packed_linear(numbers, None, torch.float32, "int4").weight_rows(every)
    differ = (rounded_again - numbers.dense()).norm() / numbers.dense().norm()
    assert 0 < differ < 0.15
