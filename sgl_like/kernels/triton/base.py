"""What the Triton versions share: whether they are interpreted, dot products, sizes of blocks."""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

# Products and sums are fused, as in all versions of Triton so far; from 3.10 on it asks to be told so.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether kernels are run by Triton's interpreter, on tensors of the CPU. Set before Triton is imported."""

NUMBERS = 1 << 14 if INTERPRETED else 1 << 11
"""Numbers of a program over several rows: what eight warps load at once; more where each program takes milliseconds."""


@triton.jit
def dot(a, b, INTERPRET: tl.constexpr):
    """Product of two blocks, summed in float32.

    The interpreter's own is wrong for bfloat16, and numpy adds up a row in an order that depends on the rows beside it:
    sums in float64 differ too little for that to show.
    """
    if INTERPRET:
        a, b = a.to(tl.float32).to(tl.float64), b.to(tl.float32).to(tl.float64)  # fp8 goes by way of float32
        return tl.dot(a, b, out_dtype=tl.float64).to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def to_fp8(x, INTERPRET: tl.constexpr):
    """float32 to e4m3, saturated. The interpreter's own cast loses the carry of its rounding: it gets rounded ones."""
    x = tl.minimum(tl.maximum(x, -448.0), 448.0)
    if INTERPRET:
        bits = x.to(tl.int32, bitcast=True)
        normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000).to(tl.float32, bitcast=True)
        small = (x + 24576.0) - 24576.0  # float32 has steps of 2 ** -9 there, as e4m3 has below 2 ** -6
        x = tl.where(tl.abs(x) < 0.015625, small, normal)
    return x.to(tl.float8e4nv)


@triton.jit
def tanh(x):
    """Hyperbolic tangent, for numbers of any size."""
    small = tl.exp(-2 * tl.abs(x))
    size = (1 - small) / (1 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def sigmoid(x):
    """Logistic function, for numbers of any size."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1 + small)


def block_of(size: int, least: int = 1, most: int = 1 << 16) -> int:
    """The least power of two that holds `size`, between two bounds."""
    return min(max(1 << max(size - 1, 0).bit_length(), least), most)


def rows_of(block: int) -> int:
    """How many rows of so many numbers a program takes: as many in any batch, so that a row's sums do not change."""
    return max(1, NUMBERS // block)


def row_warps(numbers: int) -> int:
    """Warps for a program over so many numbers, of which a thread loads eight bfloat16 at once."""
    return min(max(numbers // 256, 1), 16)


def check_like(name: str, given: Tensor, like: Tensor) -> None:
    """Assert that two tensors lie on one device."""
    assert given.device == like.device, f"{name} is on {given.device}, the others on {like.device}"


def empty_like_rows(x: Tensor, width: int) -> Tensor:
    """Memory for ``[len(x), width]`` of x's dtype and device."""
    return torch.empty(len(x), width, dtype=x.dtype, device=x.device)
