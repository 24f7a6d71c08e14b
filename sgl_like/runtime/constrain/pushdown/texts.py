"""Finite sets of texts, such as property names and enumerated strings: read and masked without a state per byte."""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from functools import cached_property
from os.path import commonprefix
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.constrain.pushdown.frame import Frame, Result


class _Barred(Enum):
    BARRED = 0


BARRED = _Barred.BARRED
"""The result of a text that must not come, though `other` would read it."""


class Joined(NamedTuple):
    """Texts one after the other, where each begins [texts + 1], and their results: for `walk.descend`."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    results: tuple[Result, ...]


def _joined(frame: Texts, barred: bool) -> Joined:
    pairs = [
        (text, result)
        for text, result in zip(frame.texts, frame.results, strict=True)
        if (result is BARRED) == barred
    ]
    offsets = np.zeros(len(pairs) + 1, dtype=np.int64)
    np.cumsum([len(text) for text, _ in pairs], out=offsets[1:])
    data = np.frombuffer(bytearray(b"".join(text for text, _ in pairs)), dtype=np.uint8)
    return Joined(data, offsets, tuple(result for _, result in pairs))


class Texts(Frame):
    """What may still come of some texts, or else of what another frame reads.

    Args:
        texts: non-empty, sorted; none is a prefix of another.
        results: of each text; `BARRED` ones are there to keep `other` from reading them.
        other: a frame without children that starts where the texts do; all that it pops at is the end of a text.
    """

    native: ClassVar[bool] = True

    def __init__(self, texts: tuple[bytes, ...], results: tuple[Result, ...], other: Frame | None) -> None:
        self.texts = texts
        self.results = results
        self.other = other
        self._hash = hash((texts, results, other))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Texts)
            and self._hash == other._hash
            and self.texts == other.texts
            and self.results == other.results
            and self.other == other.other
        )

    def matching(self, data: bytes) -> tuple[int, int, bool]:
        """The texts in line with `data`: from, up to, and whether there is one that `data` begins with (then only
        that one).
        """
        low = bisect_left(self.texts, data)
        if low and data.startswith(self.texts[low - 1]):
            return low - 1, low, True
        if low < len(self.texts) and self.texts[low] == data:
            return low, low + 1, True
        high = low
        if low < len(self.texts) and self.texts[low].startswith(data):
            high = bisect_left(self.texts, data[:-1] + bytes([data[-1] + 1]) if data[-1] < 255 else data + b"\xff")
        return low, high, False

    def rest(self, low: int, high: int, read: int, other: Frame | None) -> Frame | None:
        """The frame when `read` bytes of ``texts[low:high]`` have come; None if there is nothing left to come."""
        left = [
            (text[read:], result)
            for text, result in zip(self.texts[low:high], self.results[low:high], strict=True)
            if other is not None or result is not BARRED
        ]
        if not left:
            return other
        texts, results = zip(*left, strict=True)
        return Texts(texts, results, other)

    @cached_property
    def allowed(self) -> Joined:
        """The texts that may come."""
        return _joined(self, barred=False)

    @cached_property
    def barred(self) -> Joined:
        """The texts that must not come."""
        return _joined(self, barred=True)

    def forced(self) -> bytes:
        """What all of the texts begin with, if nothing else may come."""
        return b"" if self.other is not None else commonprefix(self.texts)  # type: ignore[arg-type,return-value]

    @property
    def shortest(self) -> tuple[bytes, Result] | None:
        """A shortest text that may come, and its result."""
        ways = [(text, result) for text, result in zip(self.texts, self.results, strict=True) if result is not BARRED]
        return min(ways, key=lambda way: len(way[0]), default=None)
