"""`kernels.grouped` in Triton: places are sorted by matrix, and each program takes a tile of places of one matrix.

    places in order   | none | matrix 0     | matrix 1 | matrix 3    |
    tiles                    | 0    | 1     | 2        | 3    | 4    |

Programs find out themselves which tile is theirs, so that nothing waits for the device: there are never more tiles than
``matrices + places / M``. Programs beyond the last one have nothing to do.
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
    """Places sorted by matrix.

    Args:
        order: int64 ``[places]``.
        bounds: int64 ``[matrices + 1]``: where in `order` the places of each matrix begin, and those of the last end.
        size: places of a tile.
    """

    order: Tensor
    bounds: Tensor
    size: int

    @property
    def most(self) -> int:
        """There are no more tiles than these."""
        return min(len(self.bounds) - 1, len(self.order)) + len(self.order) // self.size


def make_tiles(groups: Tensor, matrices: int) -> Tiles:
    """Tiles for ``groups``; see `kernels.grouped`."""
    sorted_groups, order = groups.sort(stable=True)
    numbers = torch.arange(matrices + 1, dtype=groups.dtype, device=groups.device)
    bounds = torch.searchsorted(sorted_groups, numbers)
    return Tiles(order, bounds, tile_tokens(len(groups) // matrices))


@triton.jit
def find_tile(bounds, matrices, tile, M: tl.constexpr, MATRICES: tl.constexpr):
    """A tile's matrix (of the last tile on: `MATRICES`), where its places begin, and where those of its matrix end."""
    g = tl.arange(0, MATRICES)
    low = tl.load(bounds + g, mask=g < matrices, other=0)
    high = tl.load(bounds + g + 1, mask=g < matrices, other=0)
    tiles = (high - low + M - 1) // M
    matrix = tl.sum((tl.cumsum(tiles) <= tile).to(tl.int64))
    before = tl.sum(tl.where(g < matrix, tiles, 0))
    first = tl.sum(tl.where(g == matrix, low, 0)) + (tile - before) * M
    return matrix, first, tl.sum(tl.where(g == matrix, high, 0))


@triton.jit
def _grouped(
    x, w, steps, x_scales, w_scales, scales, out, order, bounds, matrices, rows, columns, repeat,
    GROUP: tl.constexpr, ROUNDED: tl.constexpr, ADDS: tl.constexpr, INTERPRET: tl.constexpr, MATRICES: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    matrix, first, end = find_tile(bounds, matrices, tl.program_id(0), M, MATRICES)
    if matrix < matrices:
        m = first + tl.arange(0, M)
        live = m < end
        place = tl.load(order + m, mask=live, other=0)
        token = place // repeat
        n = (tl.program_id(1) * N + tl.arange(0, N)).to(tl.int64)
        used = n < rows
        if GROUP:
            w += matrix * (columns // 4) * rows
            steps += matrix * (columns // GROUP) * rows
            total = int4_sums(x, w, steps, token, live, n, rows, columns, 1, 0, 1, GROUP, INTERPRET, M, N)
        else:
            w += matrix * rows * columns
            total = plain_sums(x, w, token, live, n, rows, columns, 1, 0, 1, INTERPRET, M, N, K).to(
                tl.float32
            )
        if ROUNDED:
            total *= tl.load(x_scales + token, mask=live, other=0.0)[None, :]
            total *= tl.load(w_scales + matrix * rows + n, mask=used, other=0.0)[:, None]
        where = out + place[None, :] * rows + n[:, None]
        inside = live[None, :] & used[:, None]
        if ADDS:
            total = total * tl.load(scales + matrix) + tl.load(where, mask=inside, other=0.0).to(tl.float32)
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
    matrices = len(f.words)
    if tiles is None:
        tiles = make_tiles(groups, matrices)

    def launch(config: Config, out: Tensor) -> None:
        n = min(config["N"], block_of(rows, least=16))
        _grouped[tiles.most, triton.cdiv(rows, n)](
            *f[:5], x if scales is None else scales, out, tiles.order, tiles.bounds, matrices, rows, columns,
            len(groups) // len(x), GROUP=f.group, ROUNDED=f.rounded, ADDS=scales is not None, INTERPRET=INTERPRETED,
            MATRICES=block_of(matrices), M=tiles.size, K=STEP if f.rounded else block_of(columns, least=32, most=64),
            **config | {"N": n},
        )  # fmt: skip

    def trial(config: Config) -> None:
        launch(config, out if scales is None else out.clone())  # else each would be added

    launch(
        choose("grouped", shape_class(x, f.words, tiles.size), configs(tiles.size, f.group > 0), trial), out
    )
    return out
