"""The start of a JSON value, and what frames of one configuration share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Pool
from sgl_like.runtime.constrain.pushdown.formula import TRUE, Formula, Formulas
from sgl_like.runtime.constrain.pushdown.frame import (
    Action,
    Frame,
    Go,
    Leave,
    Push,
    Result,
)
from sgl_like.runtime.constrain.pushdown.scalars import KINDS, Scalar, Scalars

SPACES = sum(1 << b for b in b" \n\r\t")
NO_START = ALL_BYTES & ~SPACES & ~sum(1 << b for b in (0x7B, 0x5B, *KINDS))
KIND_MASKS = {kind: sum(1 << b for b, k in KINDS.items() if k == kind) for kind in KINDS.values()}


@dataclass(frozen=True, eq=False)
class Style:
    """How JSON is written.

    Args:
        spaces: most whitespace characters in a row, anywhere between tokens; 0 for none but the separators'.
        comma_gap: spaces after a comma, if `spaces` is 0.
        colon_gap: spaces after a colon, ditto.
        any_order: properties come in any order; else as declared, undeclared ones last.
    """

    spaces: int = 0
    comma_gap: int = 0
    colon_gap: int = 0
    any_order: bool = True


class Env:
    """What frames share: formulas, expressions and the style."""

    def __init__(
        self,
        pool: Pool,
        formulas: Formulas,
        scalars: Scalars,
        style: Style,
        free: Env | None = None,
    ) -> None:
        self.free = free or self  # for values that nothing is asserted about: the same in all grammars
        self.pool = pool
        self.formulas = formulas
        self.scalars = scalars
        self.style = style
        self.parts: dict[int, Any] = {}  # schema -> its ObjectPart
        self.array_parts: dict[int, Any] = {}
        self.key_nodes: dict[Any, Any] = {}  # expressions of keys


def value(env: Env, must: Formula, watch: tuple[Formula, ...], gap: int, spaces: int) -> Value:
    """The frame before a value."""
    return Value(env.free if must is TRUE and not watch else env, must, watch, gap, spaces)


@dataclass(frozen=True, slots=True)
class Value(Frame):
    """Before a value.

    Args:
        env: shared things.
        must: what has to become true of the value.
        watch: formulas whose verdicts are the result.
        gap: spaces that have to come.
        spaces: whitespace that may come.
    """

    env: Env
    must: Formula
    watch: tuple[Formula, ...] = ()
    gap: int = 0
    spaces: int = 0

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Whitespace, or the first byte of the value, which says of what type it is."""
        from sgl_like.runtime.constrain.pushdown.arrays import start_array
        from sgl_like.runtime.constrain.pushdown.objects import start_object

        one = 1 << byte
        if self.gap:
            if byte != 0x20:
                return ~(1 << 0x20) & ((1 << 256) - 1), None
            return one, Go(Value(self.env, self.must, self.watch, self.gap - 1, self.spaces))
        if SPACES >> byte & 1:
            if not self.spaces:
                return SPACES, None
            return SPACES, Push(Value(self.env, self.must, self.watch), Spaces(self.spaces - 1))
        if byte == 0x7B:
            started = start_object(self.env, self.must, self.watch)
            return one, None if started is None else Go(started)
        if byte == 0x5B:
            began = start_array(self.env, self.must, self.watch)
            return one, None if began is None else Go(began)
        kind = KINDS.get(byte)
        if kind is None:
            return NO_START, None
        self.env.pool.start_work()
        scalars = self.env.scalars
        watch = tuple(scalars._of(each, kind) for each in self.watch)
        node = scalars._of(self.must, kind) if watch else scalars.of(self.must, kind)
        if node is EMPTY:
            return KIND_MASKS[kind], None
        mask, action = Scalar(self.env.pool, node, watch).step(byte)
        return mask & KIND_MASKS[kind], action

    def resume(self, result: Result) -> Frame | None:
        """Whitespace has ended."""
        return self


@dataclass(frozen=True, slots=True)
class Spaces(Frame):
    """In whitespace, of which `left` more characters may come: the same wherever it stands."""

    left: int

    def step(self, byte: int) -> tuple[int, Action | None]:
        """More whitespace; anything else is for the frame below."""
        if SPACES >> byte & 1:
            return SPACES, Go(Spaces(self.left - 1)) if self.left else None
        return ALL_BYTES & ~SPACES, Leave(None)

    def core(self, longest: int) -> Frame:
        """No token sees a difference beyond its length."""
        return Spaces(min(self.left, longest))


@dataclass(frozen=True, slots=True)
class Root(Frame):
    """Below the whole output; `done` when the value has ended."""

    done: bool = False

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Nothing comes after the value."""
        return (1 << 256) - 1, None

    def resume(self, result: Result) -> Frame | None:
        """The value has ended."""
        return Root(True)

    @property
    def accepting(self) -> bool:
        """The output may end after the value."""
        return self.done
