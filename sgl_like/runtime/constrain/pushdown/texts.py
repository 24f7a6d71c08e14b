"""Finite sets of texts, such as property names and enumerated strings: read and masked without a state per byte."""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.constrain.pushdown.frame import Frame, Result


class _Barred(Enum):
    BARRED = 0


BARRED = _Barred.BARRED
"""The result of a text that must not come, though `other` would read it."""


class TextTable:
    """Texts and their results, of which frames are ranges. Compare with ``is``.

    Args:
        texts: sorted; none is a prefix of another.
        results: of each text.
    """

    def __init__(self, texts: tuple[bytes, ...], results: tuple[Result, ...]) -> None:
        self.texts = texts
        self.results = results
        self.everything = (1 << len(texts)) - 1

    @cached_property
    def joined(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The texts one after the other, and where each begins [texts + 1], for `native_walk.descend`."""
        offsets = np.zeros(len(self.texts) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in self.texts], out=offsets[1:])
        return np.frombuffer(bytearray(b"".join(self.texts)), dtype=np.uint8), offsets


class Texts(Frame):
    """What may still come of some texts, or else of what another frame reads.

    Args:
        table: where the texts are.
        low: first of those that begin with what came.
        high: one after the last.
        read: how many bytes came.
        allowed: bit i is set if text ``low + i`` may come; the others keep `other` from reading them.
        other: a frame without children that starts where the texts do; all that it pops at is the end of a text.
    """

    native: ClassVar[bool] = True

    def __init__(
        self, table: TextTable, low: int, high: int, read: int, allowed: int, other: Frame | None
    ) -> None:
        self.table = table
        self.low = low
        self.high = high
        self.read = read
        self.allowed = allowed
        self.other = other
        self._hash = hash((id(table), low, high, read, allowed, other))

    @classmethod
    def of(cls, texts: tuple[bytes, ...], results: tuple[Result, ...], other: Frame | None = None) -> Texts:
        """The frame before some texts, which are sorted; those with the result `BARRED` must not come."""
        allowed = sum(1 << i for i, result in enumerate(results) if result is not BARRED)
        return cls(TextTable(texts, results), 0, len(texts), 0, allowed, other)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Texts)
            and self.table is other.table
            and (self.low, self.high, self.read, self.allowed)
            == (other.low, other.high, other.read, other.allowed)
            and self.other == other.other
        )

    @cached_property
    def texts(self) -> tuple[bytes, ...]:
        """What may still come of the texts, and of those that must not come if there is another frame."""
        return tuple(self.table.texts[i][self.read :] for i in self._relevant())

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The results of `texts`."""
        return tuple(self.result(i) for i in self._relevant())

    def _relevant(self) -> list[int]:
        return [
            i
            for i in range(self.low, self.high)
            if self.other is not None or self.allowed >> i - self.low & 1
        ]

    def result(self, i: int) -> Result:
        """The result of text `i` of the table; `BARRED` if it must not come."""
        return self.table.results[i] if self.allowed >> i - self.low & 1 else BARRED

    @cached_property
    def chosen(self) -> NDArray[np.uint8]:
        """uint8 [high - low], the bits of `allowed`."""
        return _unpacked(self.allowed, self.high - self.low)

    def matching(self, data: bytes) -> tuple[int, int, bool]:
        """The texts in line with `data`: from, up to, and whether there is one that `data` begins with (then only
        that one).
        """
        texts = self.table.texts
        whole = texts[self.low][: self.read] + data
        low = bisect_left(texts, whole, self.low, self.high)
        if low > self.low and whole.startswith(texts[low - 1]):
            return low - 1, low, True
        if low < self.high and texts[low] == whole:
            return low, low + 1, True
        high = low
        if low < self.high and texts[low].startswith(whole):
            above = whole[:-1] + bytes([whole[-1] + 1]) if whole[-1] < 255 else whole + b"\xff"
            high = bisect_left(texts, above, low, self.high)
        return low, high, False

    def rest(self, low: int, high: int, read: int, other: Frame | None) -> Frame | None:
        """The frame when `read` more bytes have come, in line with texts `low` to `high`; None if nothing may come."""
        allowed = self.allowed >> low - self.low & (1 << high - low) - 1
        if low == high or (other is None and not allowed):
            return other
        return Texts(self.table, low, high, self.read + read, allowed, other)

    def forced(self) -> bytes:
        """What all of the texts begin with, if nothing else may come."""
        texts = () if self.other is not None else self.texts
        if not texts:
            return b""
        low, high = texts[0], texts[-1]  # sorted: what they share, all share
        size = next(
            (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
        )
        return low[:size]


@lru_cache(maxsize=1024)
def _unpacked(allowed: int, size: int) -> NDArray[np.uint8]:
    packed = np.frombuffer(allowed.to_bytes((size + 7) // 8, "little"), dtype=np.uint8)
    return np.unpackbits(packed, bitorder="little", count=size)
