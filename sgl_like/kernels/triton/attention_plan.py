"""Which programs compute which part of attention: made once for a step, the same for all layers.

A tile is some query tokens, and some keys of a row that all of them may look at:

    (place in order, tokens, place in kv_slots, first key, end of keys, place of the first token, partial row)

Its tokens are ``order[place : place + tokens]``. Keys are counted from the beginning of the row; the i-th token sees
them up to the place of the first token + i. A tile's result is final if its tokens have no other tile (its partial row
is -1 then), else it goes into rows of partial results, which are merged: those of ``tokens[n]`` are
``parts[starts[n] : starts[n + 1]]``.

    extend     a row's new tokens in tiles of `MANY_QUERIES` queries, all keys at once
    decode     few queries, keys in pieces of `SPLIT` (flash decoding)
    cascade    rows whose sequences begin with the same slots: these keys once for all of them, then each one's own

How the keys of a token are cut depends on its row alone, and on what it shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        order: int32: all tokens one after the other, then those of the groups that share keys.
        tokens: int32, the tokens whose partial results have to be merged.
        starts: int32 ``[len(tokens) + 1]``.
        parts: int32: rows of partial results.
        kv_slots: int32, as in `AttentionRows`.
        partial_rows: how many rows of partial results there are.
    """

    small: torch.Tensor
    large: torch.Tensor
    order: torch.Tensor
    tokens: torch.Tensor
    starts: torch.Tensor
    parts: torch.Tensor
    kv_slots: torch.Tensor
    partial_rows: int


class SharedKeys(NamedTuple):
    """Rows with one new token each, whose sequences begin with the same slots, so many."""

    rows: Ints
    keys: int


def shared_keys(rows: AttentionRows) -> list[SharedKeys]:
    """Groups of rows for which a cascade is worth while.

    A slot holds the key of one place of one sequence (or of several that begin alike). So two rows that have the same
    slot somewhere have the same ones before it.
    """
    lengths = np.diff(rows.kv_start)
    decoding = np.flatnonzero((np.diff(rows.q_start) == 1) & (lengths > LEAST_SHARED))
    if len(decoding) < 2:
        return []
    begins = rows.kv_start[decoding]
    _, group_of = np.unique(rows.kv_slots[begins + LEAST_SHARED - 1], return_inverse=True)
    found = []
    for group in np.flatnonzero(np.bincount(group_of) >= 2):
        members = decoding[group_of == group]
        low, high = LEAST_SHARED, int(lengths[members].min()) - 1  # the last key is each one's own
        while low < high:
            middle = (low + high + 1) // 2
            slots = rows.kv_slots[rows.kv_start[members] + middle - 1]
            low, high = (middle, high) if (slots == slots[0]).all() else (low, middle - 1)
        found.append(SharedKeys(members, low))
    return found


def plan(
    rows: AttentionRows, group: int, device: torch.device | str, shared: Sequence[SharedKeys] = ()
) -> AttentionPlan:
    """The tiles of a step.

    Args:
        rows: of the step.
        group: query heads that share a key.
        device: where the plan goes.
        shared: see `shared_keys`.
    """
    builder = _Builder(group, int(rows.q_start[-1]))
    q_start, kv_start = rows.q_start.tolist(), rows.kv_start.tolist()
    skipped = [0] * (len(q_start) - 1)
    for members, keys in shared:
        builder.share(rows.q_start[members].tolist(), kv_start[members[0]], keys)
        for r in members:
            skipped[r] = keys
    for r in range(len(q_start) - 1):
        first, count = q_start[r], q_start[r + 1] - q_start[r]
        if count:
            builder.add_row(first, count, kv_start[r], skipped[r], kv_start[r + 1] - kv_start[r])
    return builder.finish(rows, device)


class _Builder:
    """Collects tiles.

    Args:
        group: query heads that share a key.
        tokens: of the step.
    """

    def __init__(self, group: int, tokens: int) -> None:
        self._group = group
        self._order = list(range(tokens))
        self._tiles: list[tuple[int, ...]] = []
        self._parts: dict[int, list[int]] = {}
        self._partial_rows = 0

    def share(self, tokens: Sequence[int], begin: int, keys: int) -> None:
        """Keys that several tokens share, and all of them see."""
        first = len(self._order)
        self._order += tokens
        most = max(1, MANY_QUERIES // self._group)
        for at in range(0, len(tokens), most):
            count = min(most, len(tokens) - at)
            for low in range(0, keys, SPLIT):
                self._add(first + at, count, (begin, low, min(low + SPLIT, keys), keys), final=False)

    def add_row(self, first: int, count: int, begin: int, skipped: int, length: int) -> None:
        """The new tokens of a row, with its keys from `skipped` on."""
        place = length - count  # of the first new token
        few = count * self._group <= FEW_QUERIES
        most = max(1, (FEW_QUERIES if few else MANY_QUERIES) // self._group)
        for at in range(0, count, most):
            tokens = min(most, count - at)
            end = place + at + tokens
            step = SPLIT if few else end - skipped
            pieces = [(low, min(low + step, end)) for low in range(skipped, end, step)]
            final = len(pieces) == 1 and not skipped
            for low, high in pieces:
                self._add(first + at, tokens, (begin, low, high, place + at), final)

    def finish(self, rows: AttentionRows, device: torch.device | str) -> AttentionPlan:
        """The plan, on the device."""
        tiles = np.array(self._tiles, dtype=np.int32).reshape(-1, FIELDS)
        few = tiles[:, 1] * self._group <= FEW_QUERIES
        tokens = sorted(self._parts)
        lists = [self._parts[token] for token in tokens]
        starts = np.concatenate(([0], np.cumsum([len(each) for each in lists])))

        def on_device(values: Any) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32)).to(device)

        return AttentionPlan(
            small=on_device(tiles[few]),
            large=on_device(tiles[~few]),
            order=on_device(self._order),
            tokens=on_device(tokens),
            starts=on_device(starts),
            parts=on_device([part for each in lists for part in each]),
            kv_slots=on_device(rows.kv_slots),
            partial_rows=self._partial_rows,
        )

    def _add(self, first: int, count: int, keys: tuple[int, int, int, int], final: bool) -> None:
        where = -1
        if not final:
            where = self._partial_rows
            self._partial_rows += count
            for i, token in enumerate(self._order[first : first + count]):
                self._parts.setdefault(token, []).append(where + i)
        self._tiles.append((first, count, *keys, where))
