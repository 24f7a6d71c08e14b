"""Frames: the small automata that a pushdown machine stacks.

A frame is a value: equal frames are one state of the machine, wherever they stand. What it does with a byte is an
`Action`; what is below it on the stack it never sees, except that a frame that ends hands a result to the one below.

    Go      read the byte; these frames (bottom first) take the place of this one
    Become  these frames take the place of this one, and the top one reads the byte
    Pop     read the byte and end with a result
    Leave   end with a result; the byte is still to be read
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar, NamedTuple

Result = Hashable


class Go(NamedTuple):
    """Read the byte and go on as `frames`."""

    frames: tuple[Frame, ...]


class Become(NamedTuple):
    """Go on as `frames`, of which the top one reads the byte."""

    frames: tuple[Frame, ...]


class Pop(NamedTuple):
    """Read the byte; the frame has ended."""

    result: Result


class Leave(NamedTuple):
    """The frame has ended before this byte."""

    result: Result


Action = Go | Become | Pop | Leave


class Frame:
    """One small automaton in one state. It reads bytes (`step`), or waits for a child (`resume`), or both.

    `native`: it has no row in the machine's table; only `texts.Texts`.
    """

    __slots__ = ()
    native: ClassVar[bool] = False

    def step(self, byte: int) -> tuple[int, Action | None]:
        """What happens on `byte`, and the set of bytes (a 256-bit mask that has it) for which the same happens;
        ``None`` if the byte is not allowed.
        """
        raise AssertionError(f"{type(self).__name__} reads nothing")

    def steps(self, byte: int) -> list[tuple[int, Action | None]]:
        """What happens on sets of bytes, one of which has `byte`; no two of them have a byte in common."""
        return [self.step(byte)]

    def resume(self, result: Result) -> Become | Leave | None:
        """What happens after the child ended with `result`; ``None`` if it must not end so."""
        raise AssertionError(f"{type(self).__name__} has no children")

    @property
    def accepting(self) -> bool:
        """For the bottom frame: whether the output may end here."""
        return False

    @property
    def leaving(self) -> tuple[Result] | None:
        """For a frame that `Leave`s: its result if the output ended here."""
        return None

    @property
    def settled(self) -> bool:
        """Whether a walk may stop here that looks for differences to a wider frame, see `expressions.Scalar`."""
        return False

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held by what it shares with the other frames of a constraint."""
        return 0

    def core(self, longest: int) -> Frame:
        """A frame that treats every token of at most `longest` bytes the same."""
        return self
