"""The masks of a whole batch of matchers, in one call.

First the masks are found, then all rows are written: copies of common masks, and tokens besides. The writing is bound
by memory: on 2 cores of an AMD EPYC a second thread made it slower for 8 to 512 rows of 131,072 tokens (256 rows: 0.14
ms by one, 0.16 ms by two; waking a thread takes 0.013 ms), so one thread does it. Finding masks that are not known yet
is mostly Python, which holds the GIL (93 % of the time for 64 regexes), and what matchers learn together, as all JSON
schemas of a vocabulary do, they learn under one lock. So other threads help only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from queue import Empty, SimpleQueue
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.jit import compiled
from sgl_like.runtime.constrain.base import Matcher

__all__ = ["fill_masks"]

_ALONE = 500e-6  # seconds after which other threads may help: many times what it takes to wake one
_MOST_THREADS = 8

Mask = tuple[NDArray[np.uint32], NDArray[np.int32]]


def fill_masks(
    matchers: Sequence[Matcher | None], out: NDArray[np.int32], threads: int | None = None
) -> None:
    """Fill one row per matcher; rows of None (no constraint) allow everything. Thread-safe, as long as no matcher is
    advanced meanwhile; a matcher may be there more than once.

    Args:
        matchers: one per row of the batch.
        out: int32 [batch, ceil(vocab / 32)], C-contiguous, see `Matcher.fill_mask`.
        threads: how many may find masks at a time, this one included, at most 8; None: this one alone. Others help if
            it takes longer than 0.5 ms, with matchers of different `Matcher.learns_with`.

    Raises:
        ConstraintError: from the first matcher that cannot go on; no row is written then.
    """
    masks = _find(matchers, threads or 1)
    if not masks:
        return
    words = out.view(np.uint32)
    bases: list[NDArray[np.uint32]] = []
    rows: list[int] = []
    lists: list[NDArray[np.int32]] = []
    for row, mask in enumerate(masks):
        if mask is None:
            bases.append(_everything(words.shape[1]))
            continue
        base, more = mask
        bases.append(base)
        if len(more):
            rows.append(row)
            lists.append(more)
    np.concatenate(bases, out=words.reshape(-1))
    if lists:
        ends = np.cumsum([len(each) for each in lists])
        add_lists(np.concatenate(lists), ends, np.array(rows), words)


def _find(matchers: Sequence[Matcher | None], threads: int) -> list[Mask | None]:
    if threads < 2:
        return [None if matcher is None else matcher.mask_parts() for matcher in matchers]
    found: list[Mask | None] = []
    deadline = perf_counter() + _ALONE
    for matcher in matchers:
        found.append(None if matcher is None else matcher.mask_parts())
        if perf_counter() > deadline:
            return found + _find_together(matchers[len(found) :], threads)
    return found


def _find_together(matchers: Sequence[Matcher | None], threads: int) -> list[Mask | None]:
    """Matchers that learn together are one thread's, since they would wait for one another."""
    found: list[Mask | None] = [None] * len(matchers)
    failed: dict[int, BaseException] = {}
    groups: dict[int, list[tuple[int, Matcher]]] = {}
    for row, matcher in enumerate(matchers):
        if matcher is not None:
            groups.setdefault(id(matcher.learns_with), []).append((row, matcher))
    todo: SimpleQueue[list[tuple[int, Matcher]]] = SimpleQueue()
    for group in groups.values():
        todo.put(group)

    def work() -> None:
        while True:
            try:
                group = todo.get_nowait()
            except Empty:
                return
            for row, matcher in group:
                try:
                    found[row] = matcher.mask_parts()
                except BaseException as error:
                    failed[row] = error
                    break

    helpers = [_threads().submit(work) for _ in range(min(threads, len(groups), _MOST_THREADS) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():  # one that has not begun is not needed any more
            helper.result()
    if failed:
        raise failed[min(failed)]
    return found


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS - 1, thread_name_prefix="sgl-like-masks")


@lru_cache(maxsize=4)
def _everything(words: int) -> NDArray[np.uint32]:
    return np.full(words, 0xFFFFFFFF, dtype=np.uint32)


@compiled("void(int32[::1], int64[::1], int64[::1], uint32[:, ::1])")
def add_lists(
    tokens: NDArray[np.int32], ends: NDArray[np.int64], rows: NDArray[np.int64], out: NDArray[np.uint32]
) -> None:
    """Set the bits of tokens in some rows: those of ``rows[i]`` are ``tokens[ends[i - 1] : ends[i]]``."""
    at = 0
    for i in range(rows.shape[0]):
        row = rows[i]
        while at < ends[i]:
            token = tokens[at]
            out[row, token >> 5] |= np.uint32(1) << np.uint32(token & 31)
            at += 1
