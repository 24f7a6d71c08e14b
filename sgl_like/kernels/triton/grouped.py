"""`kernels.grouped` in Triton: places are sorted by matrix, and each program takes a tile of places of one matrix.

The tiles are found on the device, so that nothing waits for it: there are never more than ``matrices + places / M``.
Programs beyond the last one have nothing to do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.grouped import Stack
from sgl_like.kernels.triton.base import INTERPRETED, block_of
from sgl_like.kernels.triton.products import STEP, configs, int4_sums, plain_sums, shape_class, tile_tokens
from sgl_like.kernels.triton.quantized import factors
from sgl_like.kernels.triton.tuning import Config, choose


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


def make_tiles(groups: Tensor, matrices: int) -> Tiles:
    """Tiles for ``groups``; see `kernels.grouped`."""
    size = tile_tokens(len(groups) // matrices)
    groups = groups.to(torch.int64)
    order = groups.argsort(stable=True)
    counts = torch.zeros(matrices + 1, dtype=torch.int64, device=groups.device)
    counts.index_add_(0, groups + 1, torch.ones_like(groups))
    ends = counts.cumsum(0)[1:]  # places of -1 come first
    starts = ends - counts[1:]
    last_tile = ((counts[1:] + size - 1) // size).cumsum(0)
    number = torch.arange(min(matrices, len(groups)) + len(groups) // size, device=groups.device)
    group = torch.searchsorted(last_tile, number, right=True)
    known = group.clamp(max=matrices - 1)
    tiles_before = torch.where(known > 0, last_tile[known - 1], 0)
    first = starts[known] + (number - tiles_before) * size
    return Tiles(order, first.int(), ends[known].int(), torch.where(group < matrices, group, -1).int(), size)


@triton.jit
def _grouped(
    x, w, steps, x_scales, w_scales, factors, out, order, firsts, ends, groups, rows, columns, repeat,
    GROUP: tl.constexpr, ROUNDED: tl.constexpr, ADDS: tl.constexpr, INTERPRET: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    group = tl.load(groups + tile).to(tl.int64)
    if group >= 0:
        m = tl.load(firsts + tile) + tl.arange(0, M)
        live = m < tl.load(ends + tile)
        place = tl.load(order + m, mask=live, other=0)
        token = place // repeat
        n = (tl.program_id(1) * N + tl.arange(0, N)).to(tl.int64)
        used = n < rows
        if GROUP:
            w += group * (columns // 4) * rows
            steps += group * (columns // GROUP) * rows
            total = int4_sums(x, w, steps, token, live, n, rows, columns, 1, 0, 1, GROUP, INTERPRET, M, N)
        else:
            w += group * rows * columns
            total = plain_sums(x, w, token, live, n, rows, columns, 1, 0, 1, INTERPRET, M, N, K).to(
                tl.float32
            )
        if ROUNDED:
            total *= tl.load(x_scales + token, mask=live, other=0.0)[None, :]
            total *= tl.load(w_scales + group * rows + n, mask=used, other=0.0)[:, None]
        where = out + place[None, :] * rows + n[:, None]
        inside = live[None, :] & used[:, None]
        if ADDS:
            total = total * tl.load(factors + group) + tl.load(where, mask=inside, other=0.0).to(tl.float32)
        tl.store(where, total.to(out.dtype.element_ty), mask=inside)


def grouped_linear(x: Tensor, w: Stack, groups: Tensor, tiles: Tiles | None = None) -> Tensor:
    """See `kernels.grouped`. Give `tiles` to use them for several products with the same groups."""
    out = torch.zeros(len(groups), w.shape[-2], dtype=x.dtype, device=x.device)
    return _run(x, w, groups, out, tiles, None)


def lora_add(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scales: Tensor, groups: Tensor) -> Tensor:
    """Add to each token what its adapter gives; y is changed and given back.

    Adapters of smaller rank are padded with zeros.

    Args:
        y: ``[tokens, rows]``.
        x: ``[tokens, columns]``.
        a: ``[adapters, rank, columns]``.
        b: ``[adapters, rows, rank]``.
        scales: float32 ``[adapters]``.
        groups: int ``[tokens]``: each token's adapter; -1: none.
    """
    tiles = make_tiles(groups, len(a))
    low = grouped_linear(x, a, groups, tiles)
    return _run(low, b, groups, y, tiles, scales)


def _run(
    x: Tensor, w: Stack, groups: Tensor, out: Tensor, tiles: Tiles | None, scales: Tensor | None
) -> Tensor:
    """Products of places with their matrices; with `scales` they are added to `out` times their matrix's scale."""
    if not out.numel():
        return out
    rows, columns = w.shape[-2:]
    assert x.shape[1] == columns and out.is_contiguous()
    f = factors(x, w)
    if tiles is None:
        tiles = make_tiles(groups, len(f.words))

    def launch(config: Config, out: Tensor) -> None:
        n = min(config["N"], block_of(rows, least=16))
        _grouped[len(tiles.group), triton.cdiv(rows, n)](
            *f[:5], x if scales is None else scales, out, tiles.order, tiles.first, tiles.end, tiles.group, rows,
            columns, len(groups) // len(x), GROUP=f.group, ROUNDED=f.rounded, ADDS=scales is not None,
            INTERPRET=INTERPRETED, M=tiles.size, K=STEP if f.rounded else block_of(columns, least=32, most=64),
            **config | {"N": n},
        )  # fmt: skip

    def trial(config: Config) -> None:
        launch(config, out if scales is None else out.clone())  # else each would be added

    launch(choose("grouped", shape_class(x, f.words, tiles.size), configs(tiles.size), trial), out)
    return out
