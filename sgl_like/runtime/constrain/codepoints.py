"""Sets of Unicode characters, and how they are written in bytes.

A set is a sorted tuple of disjoint ranges ``(low, high)``, both included, without surrogates. What Python's ``re``
takes for a word character or for the other case of a letter is asked of ``re`` itself, so the two cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from sgl_like.runtime.constrain.expr import EMPTY, EPSILON, Node, Pool

__all__ = ["ALL", "Ranges", "complement", "intersect", "matching", "normalize", "other_cases", "utf8"]

Ranges = tuple[tuple[int, int], ...]

_LAST = 0x10FFFF
_BLOCK = 1 << 16
ALL: Ranges = ((0, 0xD7FF), (0xE000, _LAST))
_LENGTHS = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, _LAST))  # code points of 1, 2, 3, 4 bytes


def normalize(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted and disjoint, neighbours joined, surrogates left out."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return intersect(tuple(merged), ALL)


def intersect(a: Ranges, b: Ranges) -> Ranges:
    """Characters that are in both."""
    found, i, j = list[tuple[int, int]](), 0, 0
    while i < len(a) and j < len(b):
        low, high = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if low <= high:
            found.append((low, high))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def complement(ranges: Ranges) -> Ranges:
    """Characters that are not in `ranges`."""
    gaps, start = list[tuple[int, int]](), 0
    for low, high in ranges:
        if low > start:
            gaps.append((start, low - 1))
        start = high + 1
    gaps.append((start, _LAST))
    return intersect(tuple(gap for gap in gaps if gap[0] <= gap[1]), ALL)


def _characters() -> Iterator[tuple[int, str]]:
    """`ALL` characters in blocks, each with its first code point: at once they are 4 MB."""
    for first, last in ALL:
        for low in range(first, last + 1, _BLOCK):
            block = np.arange(low, min(low + _BLOCK, last + 1), dtype="<u4")
            yield low, block.tobytes().decode("utf-32-le")


@lru_cache(maxsize=256)
def matching(source: str, flags: int) -> Ranges:
    r"""The characters that the one-character pattern `source` (like ``\w`` or ``[a-z]``) matches under `flags`."""
    pattern = re.compile(f"(?:{source})+", flags)
    return normalize(
        (low + match.start(), low + match.end() - 1)
        for low, block in _characters()
        for match in pattern.finditer(block)
    )


@lru_cache(maxsize=1)
def _cased_characters() -> str:
    return "".join(_cased(_cased(block, 256), 1) for _, block in _characters())


def _cased(text: str, size: int) -> str:
    """Those blocks of a text that change with case: most have no such character and are passed over as a whole."""
    blocks = (text[i : i + size] for i in range(0, len(text), size))
    return "".join(b for b in blocks if not b == b.lower() == b.upper() == b.casefold())


@lru_cache(maxsize=256)
def other_cases(ranges: Ranges, flags: int) -> Ranges:
    """The characters with case that ``re.IGNORECASE`` (and `flags`) takes for one in `ranges`."""
    body = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
    return normalize(
        (ord(c), ord(c)) for c in re.findall(f"[{body}]", _cased_characters(), flags | re.IGNORECASE)
    )


def utf8(pool: Pool, ranges: Ranges) -> Node:
    """One character of the set, in UTF-8 (RFC 3629)."""
    sequences: list[tuple[tuple[int, int], ...]] = []
    for length_low, length_high in _LENGTHS:
        for low, high in ranges:
            if low <= length_high and high >= length_low:
                _split(max(low, length_low), min(high, length_high), sequences)
    return _tree(pool, sequences)


def _split(low: int, high: int, out: list[tuple[tuple[int, int], ...]]) -> None:
    """Cut a range of equally long characters into products of byte ranges: e0 [a0-bf] [80-bf], ..."""
    first, last = chr(low).encode(), chr(high).encode()
    for i in range(1, len(first)):
        block = (1 << 6 * i) - 1  # the characters that differ in their last i bytes only
        if low & ~block != high & ~block:
            if low & block:
                _split(low, low | block, out)
                _split((low | block) + 1, high, out)
                return
            if high & block != block:
                _split(low, (high & ~block) - 1, out)
                _split(high & ~block, high, out)
                return
    out.append(tuple(zip(first, last, strict=True)))


def _tree(pool: Pool, sequences: list[tuple[tuple[int, int], ...]]) -> Node:
    """Join sequences that begin alike. First ranges are equal or disjoint, because `_split` cuts at block borders."""
    if not sequences:
        return EMPTY
    if not sequences[0]:
        return EPSILON
    groups: dict[tuple[int, int], list[tuple[tuple[int, int], ...]]] = {}
    for sequence in sequences:
        groups.setdefault(sequence[0], []).append(sequence[1:])
    by_tail: dict[Node, int] = {}
    for (low, high), rests in groups.items():
        tail = _tree(pool, rests)
        by_tail[tail] = by_tail.get(tail, 0) | (2 << high) - (1 << low)
    return pool.alt(pool.concat(pool.byte_set(mask), tail) for tail, mask in by_tail.items())
