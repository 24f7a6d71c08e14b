"""What products of tokens with weights share in Triton: the sums of a tile, for each format of weights.

A tile is computed as ``W x^T``, ``[N, M]`` for N rows of the weights and M tokens: the weights are the operand that has
64 rows and more, as the tensor cores of an H100 want it, also where there is one token. They come straight from shared
memory (int8, fp8) or are made of their bits in registers (int4), and are never laid out anew.

Columns are added up in steps of `STEP` within pieces, and the pieces' sums one after the other, whether one program has
all pieces or each has one. Steps and pieces only follow from the weights' shape, so a token's result does not depend on
how many others there are, nor on the sizes that `tuning` chooses.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of, dot
from sgl_like.kernels.triton.tuning import Config

STEP = 128
"""Columns that are added up at a time."""
FEW = 64
"""Tokens up to which columns may be split among programs."""


@triton.jit
def plain_sums(
    x, w, token, live, n, rows, columns, pieces, first, last, INTERPRET: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    K: tl.constexpr,
):  # fmt: skip
    """Sums ``[N, M]`` of pieces `first` to `last`, in float32 or, for int8, int32.

    x and w are of one type; w is ``[rows, columns]``. `token` are rows of x, int64 ``[M]``, `live` says which of them
    are there; `n` are rows of w, int64 ``[N]``.
    """
    ACC: tl.constexpr = tl.int32 if w.dtype.element_ty == tl.int8 else tl.float32
    total = tl.zeros([N, M], ACC)
    each = tl.cdiv(tl.cdiv(columns, K), pieces) * K
    for piece in range(first, last):
        acc = tl.zeros([N, M], ACC)
        for at in range(piece * each, tl.minimum(columns, (piece + 1) * each), K):
            k = at + tl.arange(0, K)
            inside = k < columns
            b = tl.load(
                w + n[:, None] * columns + k[None, :], mask=(n < rows)[:, None] & inside[None, :], other=0.0
            )
            a = tl.load(
                x + token[None, :] * columns + k[:, None], mask=live[None, :] & inside[:, None], other=0.0
            )
            if w.dtype.element_ty == tl.int8:
                acc += tl.dot(b, a, out_dtype=tl.int32)
            else:
                acc += dot(b, a, INTERPRET)
        total += acc
    return total


@triton.jit
def _lowest(packed, steps, PACKED: tl.constexpr):
    """Weights in the lowest four bits of int16 numbers, less their zero points; exact in every type.

    Packed: two at a time, put into the fraction of 128 in bfloat16 and taken from 128 plus the zero point.
    """
    if PACKED:
        raised = tl.inline_asm_elementwise(
            "lop3.b32 $0, $1, 0x000F000F, 0x43004300, 0xEA;",  # (a & b) | c
            "=r,r", [packed], dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
        return raised - ((steps & 255) | 0x4300).to(tl.int16).to(tl.bfloat16, bitcast=True)[:, None]
    else:
        return ((packed & 15).to(tl.int32) - (steps & 255)[:, None]).to(tl.float32)


@triton.jit
def _next(packed, PACKED: tl.constexpr):
    """int16 numbers shifted right by four bits. Two at a time, bits of one come into the other, above what is used."""
    if PACKED:
        return tl.inline_asm_elementwise(
            "shr.b32 $0, $1, 4;", "=r,r", [packed], dtype=tl.int16, is_pure=True, pack=2
        )
    else:
        return packed >> 4


@triton.jit
def int4_sums(
    x, words, steps, token, live, n, rows, columns, pieces, first, last, GROUP: tl.constexpr, INTERPRET: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The same for weights of 4 bits (`quantized.Int4Weight`), float32.

    A group's products are added up first, and multiplied by its scale then.
    """
    PACKED: tl.constexpr = x.dtype.element_ty == tl.bfloat16 and not INTERPRET
    TOGETHER: tl.constexpr = 1 if GROUP == 32 else 2 if GROUP == 64 else 4
    total = tl.zeros([N, M], tl.float32)
    each = tl.cdiv(columns // 128, pieces) * 128
    r = tl.arange(0, 32).to(tl.int64)
    for piece in range(first, last):
        acc = tl.zeros([N, M], tl.float32)
        for at in range(piece * each, tl.minimum(columns, (piece + 1) * each), 128):
            packed = tl.load(
                words + (at // 4 + r)[None, :] * rows + n[:, None],
                mask=(n < rows)[:, None],
                other=0,
            )
            for i in tl.static_range(4):
                if i % TOGETHER == 0:
                    place = (at + 32 * i) // GROUP * rows + n
                    step = tl.load(steps + place, mask=n < rows, other=0)
                    part = tl.zeros([N, M], tl.float32)
                weight = _lowest(packed, step, PACKED)
                k = at + 32 * i + r
                a = tl.load(x + token[None, :] * columns + k[:, None], mask=live[None, :], other=0.0)
                part += dot(weight, a, INTERPRET)
                if i % TOGETHER == TOGETHER - 1:
                    acc += part * (step & -256).to(tl.float32, bitcast=True)[:, None]
                packed = _next(packed, PACKED)
        total += acc
    return total


def tile_tokens(tokens: int) -> int:
    """M, the tokens of a program, for so many tokens of a matrix."""
    return 16 if tokens <= 16 else 64 if tokens <= FEW else 128


def configs(m: int, four_bits: bool) -> list[Config]:
    """What is worth trying with M tokens in a program: N rows of weights, warps, and steps that are loaded ahead."""
    if m == 16:
        return [_config(128, 4, 4), _config(64, 4, 6), _config(128, 4, 3)]
    if m == 64:
        return [_config(128, 8, 3), _config(64, 4, 4)]
    many = [_config(128, 8, 3), _config(64, 4, 3)]
    return many[:1] if four_bits else many  # weights of four bits need a few registers too many


def _config(n: int, warps: int, stages: int) -> Config:
    return {"N": n, "num_warps": warps, "num_stages": stages}


def shape_class(x: Tensor, w: Tensor, m: int) -> tuple[object, ...]:
    """What products are tuned together: types, M, and the power of two above each size of the weights."""
    return x.dtype, w.dtype, *(block_of(size, most=1 << 30) for size in w.shape), m
