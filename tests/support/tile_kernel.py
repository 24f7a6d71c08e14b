"""A kernel that writes down what each program of a grouped product takes for its tile."""

from __future__ import annotations

import triton
import triton.language as tl

from sgl_like.kernels.triton.grouped import find_tile


@triton.jit
def all_tiles(bounds, out, matrices, M: tl.constexpr, MATRICES: tl.constexpr):
    """Matrix, first place and end of the places of each tile, ``[tiles, 3]``."""
    tile = tl.program_id(0)
    matrix, first, end = find_tile(bounds, matrices, tile, M, MATRICES)
    tl.store(out + 3 * tile, matrix)
    tl.store(out + 3 * tile + 1, first)
    tl.store(out + 3 * tile + 2, end)
