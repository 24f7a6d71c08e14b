"""`kernels.quantized` in Triton.

With few tokens a product takes as long as its weights take to be read. Rows of weights alone may not make enough
programs for that, so columns are split among programs too, and a second kernel adds their sums in a fixed order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.quantized import Int4Weight, RoundedWeight
from sgl_like.kernels.triton.base import INTERPRETED, block_of, row_warps, to_fp8
from sgl_like.kernels.triton.products import (
    FEW,
    STEP,
    configs,
    int4_sums,
    plain_sums,
    shape_class,
    tile_tokens,
)
from sgl_like.kernels.triton.tuning import Config, choose

PROGRAMS = 256
"""Programs that a product with few tokens is split into, about: two for each of 132 processors (H100, H200)."""
ROWS = 64
"""Rows of weights that a program has at least."""


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


@triton.jit(do_not_specialize=["tokens"])
def _linear(
    x, w, steps, x_scales, w_scales, bias, out, tokens, rows, columns, pieces, GROUP: tl.constexpr,
    ROUNDED: tl.constexpr, HAS_BIAS: tl.constexpr, SPLIT: tl.constexpr, INTERPRET: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    m = (tl.program_id(0) * M + tl.arange(0, M)).to(tl.int64)
    n = (tl.program_id(1) * N + tl.arange(0, N)).to(tl.int64)
    part = tl.program_id(2)
    first, last = (part, part + 1) if SPLIT else (0, pieces)
    live, used = m < tokens, n < rows
    if ROUNDED:
        total = plain_sums(x, w, m, live, n, rows, columns, pieces, first, last, INTERPRET, M, N, K)
    else:
        total = int4_sums(x, w, steps, m, live, n, rows, columns, pieces, first, last, GROUP, INTERPRET, M, N)
    place = m[None, :] * rows + n[:, None]
    if SPLIT:
        place += part.to(tl.int64) * tokens * rows
    else:
        total = _finished(total, x_scales + m, live, w_scales + n, bias + n, used, ROUNDED, HAS_BIAS)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=live[None, :] & used[:, None])


@triton.jit
def _finished(total, x_scale, live, w_scale, bias, used, ROUNDED: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Sums ``[N, M]`` as they are to be, in float32."""
    total = total.to(tl.float32)
    if ROUNDED:
        scale = tl.load(x_scale, mask=live, other=0.0)[None, :]
        total = total * scale * tl.load(w_scale, mask=used, other=0.0)[:, None]
    if HAS_BIAS:
        total += tl.load(bias, mask=used, other=0.0).to(tl.float32)[:, None]
    return total


@triton.jit(do_not_specialize=["tokens"])
def _add_pieces(
    sums, x_scales, w_scales, bias, out, tokens, rows, pieces, ROUNDED: tl.constexpr, HAS_BIAS: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    m = (tl.program_id(0) * M + tl.arange(0, M)).to(tl.int64)
    n = (tl.program_id(1) * N + tl.arange(0, N)).to(tl.int64)
    live, used = m < tokens, n < rows
    place = m[None, :] * rows + n[:, None]
    inside = live[None, :] & used[:, None]
    total = tl.zeros([N, M], sums.dtype.element_ty)
    at = sums + place
    for _ in range(pieces):
        total += tl.load(at, mask=inside, other=0)
        at += tokens * rows
    total = _finished(total, x_scales + m, live, w_scales + n, bias + n, used, ROUNDED, HAS_BIAS)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


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
    return _run(x, RoundedWeight(w, w_scale), bias)


def fp8_linear(x: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `kernels.quantized`."""
    assert w.dtype == torch.float8_e4m3fn
    return _run(x, RoundedWeight(w, w_scale), bias)


def int4_linear(x: Tensor, w: Int4Weight, bias: Tensor | None = None) -> Tensor:
    """See `kernels.quantized`."""
    return _run(x, w, bias)


class Factors(NamedTuple):
    """What a kernel gets for the two factors of a product; what a format does not have is any tensor."""

    x: Tensor
    words: Tensor
    steps: Tensor
    x_scales: Tensor
    w_scales: Tensor
    group: int
    rounded: bool


def factors(x: Tensor, w: Tensor | RoundedWeight | Int4Weight) -> Factors:
    """Tokens and weights, which may be a stack; tokens are rounded if the weights are."""
    x = x.contiguous()
    if isinstance(w, Int4Weight):
        assert w.words.is_contiguous() and w.steps.is_contiguous()
        return Factors(x, w.words, w.steps, x, x, w.group, False)
    if isinstance(w, Tensor):
        assert w.is_contiguous() and w.dtype == x.dtype
        return Factors(x, w, w, x, x, 0, False)
    assert w.values.is_contiguous() and w.scales.is_contiguous()
    values, scales = round_rows(x, w.values.dtype)
    return Factors(values, w.values, w.values, scales, w.scales, 0, True)


def _run(x: Tensor, w: RoundedWeight | Int4Weight, bias: Tensor | None) -> Tensor:
    tokens, (rows, columns) = len(x), w.shape
    assert x.shape[1] == columns
    out = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    f = factors(x, w)
    ends = f.x_scales, f.w_scales, x if bias is None else bias
    flags = {"ROUNDED": f.rounded, "HAS_BIAS": bias is not None}
    pieces = piece_count(rows, columns)
    m = tile_tokens(tokens) if f.x.dtype != torch.float32 else 16  # float32 has no tensor cores
    sums = out
    if pieces > 1 and tokens <= FEW:
        kind = torch.int32 if f.words.dtype == torch.int8 else torch.float32
        sums = torch.empty(pieces, tokens, rows, dtype=kind, device=x.device)

    def launch(config: Config) -> None:
        grid = triton.cdiv(tokens, m), triton.cdiv(rows, config["N"]), 1 if sums is out else pieces
        _linear[grid](
            f.x, f.words, f.steps, *ends, sums, tokens, rows, columns, pieces, GROUP=f.group, SPLIT=sums is not out,
            INTERPRET=INTERPRETED, M=m, K=STEP, **flags, **config,
        )  # fmt: skip

    launch(choose("linear", shape_class(x, f.words, m), configs(m, f.group > 0), launch))
    if sums is not out:
        grid = triton.cdiv(tokens, 4), triton.cdiv(rows, 256)
        _add_pieces[grid](sums, *ends, out, tokens, rows, pieces, M=4, N=256, **flags)
    return out


def piece_count(rows: int, columns: int) -> int:
    """Into how many pieces the columns are cut: with few tokens, as many as make enough programs; 8 steps at least."""
    return max(1, min(PROGRAMS // -(-rows // ROWS), columns // (8 * STEP)))
