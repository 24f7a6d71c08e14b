"""Which programs compute which part of attention: made once for a step, the same for all layers.

A tile is some query tokens that lie side by side, and some keys that all of them may look at:

    (first token, tokens, first place in kv_slots, first key, end of keys, place of the first token, first partial row)

Keys are counted from the beginning of the row; a token at place p sees the keys up to p. A tile's result is final if its
tokens have no other tile (its partial row is -1 then), else it goes into rows of partial results, which `merges` puts
together: those of token t are ``parts[starts[t] : starts[t + 1]]``.

    extend     a row's new tokens in tiles of `TOKENS` queries, all keys at once, or in pieces of `SPLIT` where they are few
    decode     one token, keys in pieces of `SPLIT` (flash decoding)
    cascade    rows whose sequences begin with the same slots: these keys once for all of them, then each one's own

How the keys of a token are cut depends on the row alone (and on what it shares), never on what else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sgl_like.kernels.attention import AttentionRows

SPLIT = 512
"""Keys of one decoding tile."""
FEW_QUERIES = 16
"""Queries (tokens times heads that share a key) up to which a tile is computed by the decoding kernel."""
MANY_QUERIES = 128
"""Queries of the other kernel's tiles."""
LEAST_SHARED = 256
"""Keys that a group of rows must have in common to be computed as a cascade."""

FIELDS = 7
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class AttentionPlan:
    """Tiles of one step, on the device.

    Args:
        small: int32 ``[tiles, 7]`` with at most `FEW_QUERIES` queries each.
        large: those with more.
        tokens: int32, the tokens whose partial results have to be merged.
        starts: int32 ``[len(tokens) + 1]``.
        parts: int32: rows of partial results.
        kv_slots: int32, as in `AttentionRows`.
        partial_rows: how many rows of partial results there are.
    """

    small: torch.Tensor
    large: torch.Tensor
    tokens: torch.Tensor
    starts: torch.Tensor
    parts: torch.Tensor
    kv_slots: torch.Tensor
    partial_rows: int


@dataclass
class _Builder:
    group: int
    tiles: list[tuple[int, ...]] = field(default_factory=list)
    parts: dict[int, list[int]] = field(default_factory=dict)
    partial_rows: int = 0

    def add(self, first: int, count: int, begin: int, low: int, high: int, place: int, final: bool) -> None:
        where = -1
        if not final:
            where = self.partial_rows
            self.partial_rows += count
            for i in range(count):
                self.parts.setdefault(first + i, []).append(where + i)
        self.tiles.append((first, count, begin, low, high, place, where))


def plan(
    rows: AttentionRows, group: int, device: torch.device | str, shared: list[tuple[int, int, int]] | None = None
) -> AttentionPlan:
    """The tiles of a step.

    Args:
        rows: of the step.
        group: query heads that share a key.
        device: where the plan goes.
        shared: ``(first row, end row, keys)``: rows next to each other, one new token each, whose sequences begin with the
            same slots, so many.
    """
    builder = _Builder(group)
    q_start, kv_start = rows.q_start.tolist(), rows.kv_start.tolist()
    skipped = [0] * (len(q_start) - 1)
    for first_row, end_row, keys in shared or ():
        if end_row - first_row < 2 or keys < LEAST_SHARED:
            continue
        _add_shared(builder, q_start[first_row], q_start[end_row], kv_start[first_row], keys)
        skipped[first_row:end_row] = [keys] * (end_row - first_row)
    for r in range(len(q_start) - 1):
        first, count = q_start[r], q_start[r + 1] - q_start[r]
        length = kv_start[r + 1] - kv_start[r]
        if count:
            _add_row(builder, first, count, kv_start[r], skipped[r], length)
    return _finish(builder, rows, device)


def _add_shared(builder: _Builder, first: int, end: int, begin: int, keys: int) -> None:
    """Keys that several tokens share, and all of them see."""
    most = max(1, MANY_QUERIES // builder.group)
    for at in range(first, end, most):
        count = min(most, end - at)
        for low in range(0, keys, SPLIT):
            high = min(low + SPLIT, keys)
            builder.add(at, count, begin, low, high, high, final=False)


def _add_row(builder: _Builder, first: int, count: int, begin: int, skipped: int, length: int) -> None:
    place = length - count  # of the first new token
    few = count * builder.group <= FEW_QUERIES
    most = max(1, (FEW_QUERIES if few else MANY_QUERIES) // builder.group)
    for at in range(0, count, most):
        tokens = min(most, count - at)
        end = place + at + tokens
        step = SPLIT if few else end - skipped
        pieces = [(low, min(low + step, end)) for low in range(skipped, end, step)]
        final = len(pieces) == 1 and not skipped
        for low, high in pieces:
            builder.add(first + at, tokens, begin, low, high, place + at, final)


def _finish(builder: _Builder, rows: AttentionRows, device: torch.device | str) -> AttentionPlan:
    tiles = np.array(builder.tiles, dtype=np.int32).reshape(-1, FIELDS)
    few = tiles[:, 1] * builder.group <= FEW_QUERIES
    tokens = sorted(builder.parts)
    lists = [builder.parts[token] for token in tokens]
    starts = np.zeros(len(tokens) + 1, dtype=np.int32)
    starts[1:] = np.cumsum([len(each) for each in lists])
    parts = np.array([part for each in lists for part in each], dtype=np.int32)

    def on_device(values: Ints) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return AttentionPlan(
        small=on_device(tiles[few]),
        large=on_device(tiles[~few]),
        tokens=on_device(np.array(tokens, dtype=np.int32)),
        starts=on_device(starts),
        parts=on_device(parts),
        kv_slots=on_device(rows.kv_slots.astype(np.int32, copy=False)),
        partial_rows=builder.partial_rows,
    )
