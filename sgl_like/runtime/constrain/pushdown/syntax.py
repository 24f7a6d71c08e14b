"""The punctuation of JSON as frames: the same states in all schemas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

from sgl_like.runtime.constrain.expr import ALL_BYTES
from sgl_like.runtime.constrain.pushdown.frame import Action, Become, Frame, Go, Leave, Pop, Result

SPACES = sum(1 << b for b in b" \n\r\t")
FIRST, NEXT, AFTER = range(3)


class End(Enum):
    """Results of punctuation: the container ends, a member begins, a colon came, whitespace has ended."""

    CLOSE = auto()
    KEY = auto()
    ITEM = auto()
    COLON = auto()
    SPACES = auto()


class Style(NamedTuple):
    """How JSON is written.

    Args:
        spaces: most whitespace characters in a row, anywhere between tokens; 0 for none but the gaps.
        comma_gap: spaces that have to come after a comma.
        colon_gap: spaces that have to come after a colon.
        any_order: properties come in any order; else as declared, undeclared ones last.
    """

    spaces: int = 0
    comma_gap: int = 0
    colon_gap: int = 0
    any_order: bool = False


def _only(byte: int, wanted: int, frame: Frame) -> tuple[int, Action | None]:
    if byte == wanted:
        return 1 << byte, Go((frame,))
    return ALL_BYTES & ~(1 << wanted), None


@dataclass(frozen=True, slots=True)
class Spaces(Frame):
    """In whitespace, of which `left` more characters may come."""

    left: int

    def step(self, byte: int) -> tuple[int, Action | None]:
        """More whitespace; anything else is for the frame below."""
        if SPACES >> byte & 1:
            return SPACES, Go((Spaces(self.left - 1),)) if self.left else None
        return ALL_BYTES & ~SPACES, Leave(End.SPACES)


@dataclass(frozen=True, slots=True)
class Members(Frame):
    """Between the members of an object, or the items of an array; ends with `End.CLOSE`, `End.KEY` or `End.ITEM`.

    Args:
        style: how it is written.
        phase: `FIRST` after the opening bracket, `AFTER` a member, `NEXT` after a comma.
        in_object: a member begins with a quote, which is read; an item with any byte, which is not.
        close: whether the container may end here.
        more: whether another member may come.
        left: whitespace that may still come.
        gap: spaces that still have to come.
    """

    style: Style
    phase: int
    in_object: bool
    close: bool
    more: bool
    left: int
    gap: int = 0

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Whitespace, a comma, the closing bracket, the start of a member."""
        one = 1 << byte
        if self.gap:
            return _only(byte, 0x20, replace(self, gap=self.gap - 1))
        if SPACES >> byte & 1:
            return SPACES, Go((replace(self, left=self.left - 1),)) if self.left else None
        closing = 0x7D if self.in_object else 0x5D
        if byte == closing:
            return one, Pop(End.CLOSE) if self.close and self.phase != NEXT else None
        if self.phase == AFTER:
            if byte != 0x2C:
                return ALL_BYTES & ~SPACES & ~(1 << closing) & ~(1 << 0x2C), None
            style = self.style
            after = Members(style, NEXT, self.in_object, False, True, style.spaces, style.comma_gap)
            return one, Go((after,)) if self.more else None
        if not self.in_object:
            return ALL_BYTES & ~SPACES & ~(1 << closing), Leave(End.ITEM) if self.more else None
        if byte == 0x22:
            return one, Pop(End.KEY) if self.more else None
        return ALL_BYTES & ~SPACES & ~(1 << closing) & ~(1 << 0x22), None


@dataclass(frozen=True, slots=True)
class Colon(Frame):
    """Between a key and its value.

    Args:
        style: how it is written.
        left: whitespace that may still come.
        gap: spaces that still have to come.
        seen: whether the colon has come.
    """

    style: Style
    left: int
    gap: int = 0
    seen: bool = False

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Whitespace and the colon."""
        if self.gap:
            return _only(byte, 0x20, replace(self, gap=self.gap - 1))
        if SPACES >> byte & 1 and (self.left or not self.seen):
            return SPACES, Go((replace(self, left=self.left - 1),)) if self.left else None
        if self.seen:
            return ALL_BYTES & ~SPACES if self.left else ALL_BYTES, Leave(End.COLON)
        style = self.style
        if not style.spaces and not style.colon_gap:
            if byte == 0x3A:
                return 1 << byte, Pop(End.COLON)
            return ALL_BYTES & ~SPACES & ~(1 << 0x3A), None
        mask, action = _only(byte, 0x3A, Colon(style, style.spaces, style.colon_gap, True))
        return mask & ~SPACES, action


@dataclass(frozen=True, slots=True)
class Root(Frame):
    """Below the whole output; `done` when the value has ended."""

    done: bool = False

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Nothing comes after the value."""
        return ALL_BYTES, None

    def resume(self, result: Result) -> Become:
        """The value has ended."""
        return Become((Root(True),))

    @property
    def accepting(self) -> bool:
        """The output may end after the value."""
        return self.done
