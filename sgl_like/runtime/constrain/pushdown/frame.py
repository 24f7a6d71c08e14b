"""Frames: the small automata that a pushdown machine stacks.

A frame is a value: equal frames are one state of the machine, wherever they stand. What it does with a byte is an
`Action`; what is below it on the stack it never sees, except that a frame that ends hands a result to the one below.

    Go      read the byte, become another frame
    Push    read the byte, become another frame, and start a child on top
    Enter   start a child on top, which then reads the byte
    Pop     read the byte and end with a result
    Leave   end with a result; the frame below reads the byte
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import NamedTuple

Result = Hashable


class Go(NamedTuple):
    """Read the byte and go on as `frame`."""

    frame: Frame


class Push(NamedTuple):
    """Read the byte; `frame` waits below `child`."""

    frame: Frame
    child: Frame


class Enter(NamedTuple):
    """`frame` waits below `child`, which reads the byte."""

    frame: Frame
    child: Frame


class Pop(NamedTuple):
    """Read the byte; the frame has ended."""

    result: Result


class Leave(NamedTuple):
    """The frame has ended before this byte."""

    result: Result


Action = Go | Push | Enter | Pop | Leave


class Frame(ABC):
    """One small automaton in one state."""

    __slots__ = ()

    @abstractmethod
    def step(self, byte: int) -> tuple[int, Action | None]:
        """What happens on `byte`, and the set of bytes (a 256-bit mask that has it) for which the same happens;
        ``None`` if the byte is not allowed.
        """

    def resume(self, result: Result) -> Frame | None:
        """The frame to go on with after the child ended with `result`; ``None`` if that must not be."""
        raise AssertionError(f"{type(self).__name__} has no children")

    @property
    def accepting(self) -> bool:
        """For the bottom frame: whether the output may end here."""
        return False

    @property
    def leaving(self) -> tuple[Result] | None:
        """For a frame that `Leave`s: its result if the output ended here."""
        return None

    def core(self, longest: int) -> Frame:
        """A frame that treats every token of at most `longest` bytes the same."""
        return self
