"""`kernels.quantized` in Triton.

With few tokens a product takes as long as its weights take to be read, so that is what small shapes are made for:
narrow blocks of rows, and columns split among programs whose sums are added in a fixed order by a second kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.quantized import SPAN, Int4Weight
from sgl_like.kernels.triton.base import INTERPRETED, block_of, dot, row_warps, to_fp8

PROGRAMS = 264
"""Programs that a product is split into at least, if it has so much to read: two for each processor of an H200."""


@triton.jit
def _round_rows(x, values, scales, size, FP8: tl.constexpr, INTERPRET: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < size
    wide = tl.load(x + row * size + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(wide), axis=0), 1e-10) / (448.0 if FP8 else 127.0)
    scaled = wide / scale
    if FP8:
        tl.store(values + row * size + at, to_fp8(scaled, INTERPRET), mask=inside)
    else:
        nearest = tl.floor(scaled + 0.5)
        half = (nearest - scaled) == 0.5  # to even, as torch rounds
        odd = (nearest - 2 * tl.floor(nearest / 2)) == 1
        tl.store(
            values + row * size + at, tl.where(half & odd, nearest - 1, nearest).to(tl.int8), mask=inside
        )
    tl.store(scales + row, scale)


@triton.jit
def _rounded(
    x, w, x_scale, w_scale, bias, out, tokens, rows, columns, pieces, HAS_BIAS: tl.constexpr, FP8: tl.constexpr,
    SPLIT: tl.constexpr, INTERPRET: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1) * M + tl.arange(0, M)
    n = tl.program_id(0) * N + tl.arange(0, N)
    part = tl.program_id(2)
    each = tl.cdiv(tl.cdiv(columns, K), pieces) * K
    acc = tl.zeros([M, N], tl.float32) if FP8 else tl.zeros([M, N], tl.int32)
    for at in range(part * each, tl.minimum(columns, (part + 1) * each), K):
        k = at + tl.arange(0, K)
        a = tl.load(
            x + m[:, None].to(tl.int64) * columns + k[None, :],
            mask=(m < tokens)[:, None] & (k < columns)[None, :],
            other=0.0,
        )
        b = tl.load(
            w + n[None, :].to(tl.int64) * columns + k[:, None],
            mask=(n < rows)[None, :] & (k < columns)[:, None],
            other=0.0,
        )
        if FP8:
            acc += dot(a, b, INTERPRET)
        else:
            acc += tl.dot(a, b, out_dtype=tl.int32)
    inside = (m < tokens)[:, None] & (n < rows)[None, :]
    scaled = acc.to(tl.float32) * tl.load(x_scale + m, mask=m < tokens, other=0.0)[:, None]
    scaled = scaled * tl.load(w_scale + n, mask=n < rows, other=0.0)[None, :]
    if HAS_BIAS:
        if part == 0:
            scaled += tl.load(bias + n, mask=n < rows, other=0.0).to(tl.float32)[None, :]
    place = (
        (part.to(tl.int64) * tokens + m[:, None]) * rows + n[None, :]
        if SPLIT
        else m[:, None].to(tl.int64) * rows + n[None, :]
    )
    tl.store(out + place, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _int4(
    x, words, scales, zeros, bias, out, tokens, rows, columns, group, pieces, HAS_BIAS: tl.constexpr,
    SPLIT: tl.constexpr, INTERPRET: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1) * M + tl.arange(0, M)
    n = tl.program_id(0) * N + tl.arange(0, N)
    part = tl.program_id(2)
    each = tl.cdiv(columns // 128, pieces) * 128
    r = tl.arange(0, 16)
    acc = tl.zeros([M, N], tl.float32)
    for at in range(part * each, tl.minimum(columns, (part + 1) * each), 128):
        packed = tl.load(
            words + (at // 8 + r)[:, None].to(tl.int64) * rows + n[None, :], mask=(n < rows)[None, :], other=0
        )
        for i in tl.static_range(8):
            k = at + 16 * i
            place = (k // group).to(tl.int64) * rows + n
            scale = tl.load(scales + place, mask=n < rows, other=0.0).to(tl.float32)
            zero = tl.load(zeros + place, mask=n < rows, other=0).to(tl.float32)
            weight = (((packed >> 4 * i) & 15).to(tl.float32) - zero[None, :]) * scale[None, :]
            a = tl.load(
                x + m[:, None].to(tl.int64) * columns + (k + r)[None, :],
                mask=(m < tokens)[:, None],
                other=0.0,
            )
            acc += dot(a, weight.to(a.dtype), INTERPRET)
    if HAS_BIAS:
        if part == 0:
            acc += tl.load(bias + n, mask=n < rows, other=0.0).to(tl.float32)[None, :]
    place_out = (
        (part.to(tl.int64) * tokens + m[:, None]) * rows + n[None, :]
        if SPLIT
        else m[:, None].to(tl.int64) * rows + n[None, :]
    )
    tl.store(out + place_out, acc.to(out.dtype.element_ty), mask=(m < tokens)[:, None] & (n < rows)[None, :])


@triton.jit
def _add_pieces(pieces, out, size, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    total = tl.zeros([BLOCK], tl.float32)
    for piece in range(count):
        total += tl.load(pieces + piece * size + at, mask=inside, other=0.0)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def round_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See `kernels.quantized.round_rows`."""
    x = x.contiguous()
    values = torch.empty(x.shape, dtype=dtype, device=x.device)
    scales = torch.empty(len(x), dtype=torch.float32, device=x.device)
    if x.numel():
        block = block_of(x.shape[1])
        _round_rows[(len(x),)](
            x, values, scales, x.shape[1], FP8=dtype == torch.float8_e4m3fn, INTERPRET=INTERPRETED, BLOCK=block,
            num_warps=row_warps(block),
        )  # fmt: skip
    return values, scales


def int8_linear(x: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `kernels.quantized`."""
    assert w.dtype == torch.int8
    return _rounded_linear(x, w, w_scale, bias)


def fp8_linear(x: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `kernels.quantized`."""
    assert w.dtype == torch.float8_e4m3fn
    return _rounded_linear(x, w, w_scale, bias)


def _rounded_linear(x: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None) -> Tensor:
    values, scales = round_rows(x, w.dtype)
    tokens, (rows, columns) = len(x), w.shape
    few = tokens <= 16
    m, n, k = (16, 32, 256) if few else (64, 64, 128) if tokens <= 64 else (128, 128, 64)
    out = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if out.numel():
        pieces = _pieces(triton.cdiv(rows, n) * triton.cdiv(tokens, m), triton.cdiv(columns, k))
        target = _target(out, pieces)
        _rounded[(triton.cdiv(rows, n), triton.cdiv(tokens, m), pieces)](
            values, w, scales, w_scale, scales if bias is None else bias, target, tokens, rows, columns, pieces,
            HAS_BIAS=bias is not None, FP8=w.dtype != torch.int8, SPLIT=pieces > 1, INTERPRET=INTERPRETED, M=m, N=n,
            K=k, num_warps=4 if few else 8, num_stages=4 if few else 3,
        )  # fmt: skip
        _merge(target, out, pieces)
    return out


def int4_linear(x: Tensor, w: Int4Weight, bias: Tensor | None = None) -> Tensor:
    """See `kernels.quantized`."""
    x = x.contiguous()
    rows, columns = w.shape
    tokens = len(x)
    assert x.shape[1] == columns
    m, n = (16, 64) if tokens <= 16 else (64, 64)
    out = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if out.numel():
        pieces = _pieces(triton.cdiv(rows, n) * triton.cdiv(tokens, m), columns // SPAN)
        target = _target(out, pieces)
        _int4[(triton.cdiv(rows, n), triton.cdiv(tokens, m), pieces)](
            x, w.words, w.scales, w.zeros, w.scales if bias is None else bias, target, tokens, rows, columns, w.group,
            pieces, HAS_BIAS=bias is not None, SPLIT=pieces > 1, INTERPRET=INTERPRETED, M=m, N=n, num_warps=4,
            num_stages=4,
        )  # fmt: skip
        _merge(target, out, pieces)
    return out


def _pieces(programs: int, steps: int) -> int:
    """Among how many programs the columns are split."""
    return max(1, min(PROGRAMS // max(programs, 1), steps // 2, 16))


def _target(out: Tensor, pieces: int) -> Tensor:
    """Where the kernel puts its results."""
    if pieces == 1:
        return out
    return torch.empty(pieces, *out.shape, dtype=torch.float32, device=out.device)


def _merge(target: Tensor, out: Tensor, pieces: int) -> None:
    if pieces > 1:
        _add_pieces[(triton.cdiv(out.numel(), 1024),)](target, out, out.numel(), pieces, BLOCK=1024)
