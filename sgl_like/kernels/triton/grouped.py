"""`kernels.grouped` in Triton: places are sorted by matrix, and each program takes a tile of places of one matrix.

The tiles are found on the device, so that nothing waits for it: there are never more than ``matrices + places / M``,
and programs beyond the last one have nothing to do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import INTERPRETED, dot


class Tiles(NamedTuple):
    """Which places each program computes.

    Args:
        order: int64: places sorted by matrix.
        first: int32 ``[tiles]``: where in `order` a tile begins.
        end: int32 ``[tiles]``: where the places of its matrix end.
        group: int32 ``[tiles]``; -1 for tiles that are not needed.
        size: places of a tile.
    """

    order: Tensor
    first: Tensor
    end: Tensor
    group: Tensor
    size: int


def make_tiles(groups: Tensor, matrices: int, size: int) -> Tiles:
    """Tiles for ``groups``; see `kernels.grouped`."""
    groups = groups.to(torch.int64)
    order = groups.argsort(stable=True)
    counts = torch.zeros(matrices + 1, dtype=torch.int64, device=groups.device)
    counts.index_add_(0, groups + 1, torch.ones_like(groups))
    ends = counts.cumsum(0)[1:]  # places of -1 come first
    starts = ends - counts[1:]
    last_tile = ((counts[1:] + size - 1) // size).cumsum(0)
    number = torch.arange(matrices + len(groups) // size, device=groups.device)
    group = torch.searchsorted(last_tile, number, right=True)
    known = group.clamp(max=matrices - 1)
    tiles_before = torch.where(known > 0, last_tile[known - 1], 0)
    first = starts[known] + (number - tiles_before) * size
    return Tiles(order, first.int(), ends[known].int(), torch.where(group < matrices, group, -1).int(), size)


@triton.jit
def _grouped(
    x, w, scales, out, order, firsts, ends, groups, rows, columns, repeat, HAS_SCALES: tl.constexpr, ADDS: tl.constexpr,
    INTERPRET: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(1)
    group = tl.load(groups + tile).to(tl.int64)
    if group >= 0:
        m = tl.load(firsts + tile) + tl.arange(0, M)
        inside = m < tl.load(ends + tile)
        place = tl.load(order + m, mask=inside, other=0)
        n = tl.program_id(0) * N + tl.arange(0, N)
        acc = tl.zeros([M, N], tl.float32)
        for at in range(0, columns, K):
            k = at + tl.arange(0, K)
            a = tl.load(
                x + (place // repeat)[:, None] * columns + k[None, :],
                mask=inside[:, None] & (k < columns)[None, :],
                other=0.0,
            )
            b = tl.load(
                w + (group * rows + n)[None, :] * columns + k[:, None],
                mask=(n < rows)[None, :] & (k < columns)[:, None], other=0.0,
            )  # fmt: skip
            acc += dot(a, b, INTERPRET)
        if HAS_SCALES:
            acc = acc * tl.load(scales + group)
        where = out + place[:, None] * rows + n[None, :]
        used = inside[:, None] & (n < rows)[None, :]
        if ADDS:
            acc += tl.load(where, mask=used, other=0.0).to(tl.float32)
        tl.store(where, acc.to(out.dtype.element_ty), mask=used)


def grouped_linear(x: Tensor, w: Tensor, groups: Tensor, tiles: Tiles | None = None) -> Tensor:
    """See `kernels.grouped`. Give `tiles` to use them for several products with the same groups."""
    out = torch.zeros(len(groups), w.shape[1], dtype=x.dtype, device=x.device)
    return _run(x, w, groups, out, tiles, None, adds=False)


def lora_add(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scales: Tensor, groups: Tensor) -> Tensor:
    """Add to each token what its adapter gives; y is changed and given back.

    Args:
        y: ``[tokens, rows]``.
        x: ``[tokens, columns]``.
        a: ``[adapters, rank, columns]``.
        b: ``[adapters, rows, rank]``.
        scales: float32 ``[adapters]``.
        groups: int ``[tokens]``: each token's adapter; -1: none.
    """
    tiles = make_tiles(groups, len(a), _tile_size(len(groups)))
    low = grouped_linear(x, a, groups, tiles)
    return _run(low, b, groups, y, tiles, scales, adds=True)


def _run(
    x: Tensor, w: Tensor, groups: Tensor, out: Tensor, tiles: Tiles | None, scales: Tensor | None, adds: bool
) -> Tensor:
    matrices, rows, columns = w.shape
    if not out.numel() or not len(groups):
        return out
    assert x.is_contiguous() and w.is_contiguous() and out.is_contiguous()
    if tiles is None:
        tiles = make_tiles(groups, matrices, _tile_size(len(groups)))
    n, k = (32, 32) if rows <= 32 else (64, 64)
    _grouped[(triton.cdiv(rows, n), len(tiles.group))](
        x, w, w if scales is None else scales, out, tiles.order, tiles.first, tiles.end, tiles.group, rows, columns,
        len(groups) // len(x), HAS_SCALES=scales is not None, ADDS=adds, INTERPRET=INTERPRETED, M=tiles.size, N=n, K=k,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _tile_size(places: int) -> int:
    return 16 if places <= 256 else 64
