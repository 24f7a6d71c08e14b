"""Which programs compute which part of attention: made once for a step, the same for all layers.

A tile is some query tokens, and some keys of a row that all of them may look at:

    FIRST in order, COUNT of tokens, BEGIN in kv_slots, LOW: first key, HIGH: end of keys, PLACE of the first token,
    WHERE: partial row

Its tokens are ``order[FIRST : FIRST + COUNT]``. Keys are counted from the beginning of the row; the i-th token sees
them up to the place of the first token + i. A tile's result is final if its tokens have no other tile (its partial row
is -1 then), else it goes into rows of partial results, which are merged: those of ``tokens[n]`` are
``parts[starts[n] : starts[n + 1]]``, in the order of their keys.

    extend     a row's new tokens in tiles of 128 queries; keys in pieces only if there are few such tiles
    decode     few queries, keys in pieces of `SPLIT` (flash decoding)
    cascade    a piece that several such rows begin with is computed once, for the tokens of all of them

Keys are always cut at multiples of `SPLIT` from the beginning of the row, by what the row is alone: so a token's result
does not depend on the number of rows, and sharing only changes how many queries a tile has. `SPLIT` does not depend on
the amount of work either. One row with 32k keys and 8 kv heads is 512 programs, more than an H200's 132 processors run
at once; 256 rows of 4k are 16k programs, of which each reads 256 KB and writes 2 KB (4 heads of 128 numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sgl_like.kernels.attention import AttentionRows
from sgl_like.kernels.triton.base import block_of

SPLIT = 512
"""Keys of one decoding tile."""
ROW_TILES = 32
"""Tiles of a row that extends below which its keys are cut: with 8 kv heads, about two programs for each processor."""
LONG = 4 * SPLIT
"""Keys that such a tile has at least."""

FIRST, COUNT, BEGIN, LOW, HIGH, PLACE, WHERE = range(7)
FIELDS = 7
"""Numbers of a tile; their names are as above."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AttentionPlan:
    """Tiles of one step, on the device; all tensors are int32, and views of one.

    Args:
        small: ``[tiles, 7]`` of few queries and at most `SPLIT` keys each; see `most_queries`.
        large: the others.
        order: all tokens one after the other, then those that share keys.
        tokens: the tokens whose partial results have to be merged.
        starts: ``[len(tokens) + 1]``.
        parts: rows of partial results.
        kv_slots: as in `AttentionRows`.
        exact: whether a token's result has to be the same to the last bit, however its row is cut.
    """

    small: torch.Tensor
    large: torch.Tensor
    order: torch.Tensor
    tokens: torch.Tensor
    starts: torch.Tensor
    parts: torch.Tensor
    kv_slots: torch.Tensor
    exact: bool


def most_queries(group: int) -> tuple[int, int]:
    """Queries (tokens times heads that share a key) of a tile of the decoding kernel, and of the other one."""
    return block_of(group, least=16), block_of(group, least=128)


def plan(
    rows: AttentionRows,
    group: int,
    device: torch.device | str,
    window: int | None = None,
    cascade: bool = True,
    exact: bool = False,
) -> AttentionPlan:
    """The tiles of a step.

    Args:
        rows: of the step.
        group: query heads that share a key.
        device: where the plan goes.
        window: how many keys a token sees, where there is a limit; rows share nothing then.
        cascade: whether rows may share.
        exact: as in `AttentionPlan`. A row that extends has all keys in one tile then.
    """
    small_queries, large_queries = most_queries(group)
    few, many = small_queries // group, large_queries // group  # tokens of a tile
    tiles = _tiles_of_rows(rows, few, many, window, exact)
    order = np.arange(rows.q_start[-1])
    if cascade and window is None:
        tiles, order = _share(rows, tiles, order, few, many)

    final = tiles[:, WHERE] < 0
    counts = np.where(final, 0, tiles[:, COUNT])  # partial rows
    tiles[:, WHERE] = np.where(final, -1, np.cumsum(counts) - counts)
    tile, i = _cut(counts, 1)
    token = order[tiles[tile, FIRST] + i]
    parts = np.lexsort((tiles[tile, LOW], token))
    tokens, numbers = np.unique(token, return_counts=True)

    small = (tiles[:, COUNT] <= few) & (tiles[:, HIGH] - tiles[:, LOW] <= SPLIT)
    large = tiles[~small]
    uploaded = _upload(
        device,
        small=tiles[small],
        large=large[np.argsort(large[:, LOW] - large[:, HIGH], kind="stable")],
        order=order,
        tokens=tokens,
        starts=np.concatenate(([0], np.cumsum(numbers))),
        parts=parts,
        kv_slots=rows.kv_slots,
    )
    return AttentionPlan(**uploaded, exact=exact)


def _tiles_of_rows(rows: AttentionRows, few: int, many: int, window: int | None, exact: bool) -> Ints:
    """Every row's tiles; `WHERE` is -1 in those that are their tokens' only ones, else 0."""
    new, length = (np.diff(start).astype(np.int64) for start in (rows.q_start, rows.kv_start))
    row, at = _cut(new, np.where(new <= few, few, many))
    count = np.minimum(new[row] - at, np.where(new <= few, few, many)[row])
    place = length[row] - new[row] + at
    end = place + count
    low = np.zeros_like(end) if window is None else np.maximum(place - window + 1, 0) // SPLIT * SPLIT
    pieces = 1 if exact else np.maximum(ROW_TILES // np.maximum(_ceil(new, many), 1), 1)
    step = np.where(new <= few, SPLIT, np.maximum(_ceil(length, pieces * SPLIT) * SPLIT, LONG))[row]

    part, ahead = _cut(end - low, step)
    row, low = row[part], low[part] + ahead
    return np.stack(
        (
            rows.q_start[row] + at[part],
            count[part],
            rows.kv_start[row],
            low,
            np.minimum(low + step[part], end[part]),
            place[part],
            np.where(np.bincount(part, minlength=1)[part] == 1, -1, 0),
        ),
        axis=1,
    )


def _share(rows: AttentionRows, tiles: Ints, order: Ints, few: int, many: int) -> tuple[Ints, Ints]:
    """Tiles with one of their own for every piece of keys that several rows have in common.

    A slot holds the key of one place of one sequence (or of several that begin alike). So pieces that end with the
    same slot are the same, and so are all keys before them. New tokens have slots of their own: all of these rows' come
    after such a piece.
    """
    whole = np.flatnonzero((tiles[:, COUNT] <= few) & (tiles[:, HIGH] - tiles[:, LOW] == SPLIT))
    _, same, times = np.unique(
        rows.kv_slots[tiles[whole, BEGIN] + tiles[whole, HIGH] - 1], return_inverse=True, return_counts=True
    )
    whole, same = whole[times[same] > 1], same[times[same] > 1]
    by_piece = np.argsort(same, kind="stable")
    whole, (_, first) = whole[by_piece], np.unique(same[by_piece], return_index=True)
    if not len(whole):
        return tiles, order

    member, i = _cut(tiles[whole, COUNT], 1)
    tokens = tiles[whole[member], FIRST] + i
    sizes = np.add.reduceat(tiles[whole, COUNT], first)
    piece, at = _cut(sizes, many)
    shared = tiles[whole[first[piece]]]
    shared[:, FIRST] = len(order) + (np.cumsum(sizes) - sizes)[piece] + at
    shared[:, COUNT] = np.minimum(sizes[piece] - at, many)
    shared[:, WHERE] = 0
    return np.concatenate((np.delete(tiles, whole, axis=0), shared)), np.concatenate((order, tokens))


def _cut(sizes: Ints, step: Ints | int) -> tuple[Ints, Ints]:
    """Cut lengths into steps (the last ones shorter): which length each piece belongs to, and where it begins in it."""
    numbers = _ceil(sizes, step)
    owner = np.repeat(np.arange(len(sizes)), numbers)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    return owner, nth * np.broadcast_to(step, len(sizes))[owner]


def _ceil(size: Ints, step: Ints | int) -> Ints:
    return -(-size // step)


def _upload(device: torch.device | str, **arrays: NDArray[np.integer]) -> dict[str, torch.Tensor]:
    """int32 copies on a device, by one transfer, each at a multiple of 16 bytes (Triton compiles others anew)."""
    starts = np.cumsum([0] + [(array.size + 3) // 4 * 4 for array in arrays.values()]).tolist()
    pinned = torch.device(device).type == "cuda"
    memory = torch.empty(starts[-1], dtype=torch.int32, pin_memory=pinned)
    values = memory.numpy()
    for array, start in zip(arrays.values(), starts, strict=False):
        values[start : start + array.size] = array.ravel()
    moved = memory.to(device, non_blocking=pinned)
    return {
        name: moved[start : start + array.size].view(array.shape)
        for (name, array), start in zip(arrays.items(), starts, strict=False)
    }
