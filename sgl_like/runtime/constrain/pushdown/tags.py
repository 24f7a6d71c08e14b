"""Frames of structural tags: text up to a trigger, then a structure: the rest of its beginning, a value, its end.
Where there is no free text, structures follow one another (`Listed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from sgl_like.runtime.constrain.expr import ALL_BYTES, Node, Pool
from sgl_like.runtime.constrain.pushdown.expressions import Scalar
from sgl_like.runtime.constrain.pushdown.frame import Action, Become, Frame, Go, Leave, Pop, Result
from sgl_like.runtime.constrain.pushdown.syntax import SPACES, Root, Spaces
from sgl_like.runtime.constrain.pushdown.texts import Texts
from sgl_like.runtime.constrain.pushdown.values import Start


@dataclass(frozen=True, slots=True)
class Structure:
    """What comes after a trigger: the rest of the beginning, a value with at most `spaces` before it, the end."""

    begin: bytes
    value: Start
    end: bytes
    spaces: int = 0


class Free(Scalar):
    """In free text, where the output may end; `node` is all text up to a trigger, and `watch` says which."""

    __slots__ = ()

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Text or the last byte of a trigger."""
        mask, action = super().step(byte)
        if isinstance(action, Go):
            (frame,) = action.frames
            assert isinstance(frame, Scalar)
            if frame.node.nullable:
                action = Pop(tuple(each.nullable for each in frame.watch))
            else:
                action = Go((Free(self.pool, frame.node, frame.watch),))
        return mask, action

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Free) and super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__()

    @property
    def accepting(self) -> bool:
        """The output may end in free text."""
        return True

    @property
    def wider(self) -> Frame | None:
        """See `Scalar.wider`."""
        return None


class Tagged(Frame):
    """Below the whole output.

    Args:
        pool: of the expressions.
        text: all text up to a trigger.
        triggered: text up to each trigger. Where several have come at once, the first of them counts.
        structures: by trigger.
        stops: the output ends with the first structure.
    """

    def __init__(
        self,
        pool: Pool,
        text: Node,
        triggered: tuple[Node, ...],
        structures: tuple[tuple[Structure, ...], ...],
        stops: bool = False,
    ) -> None:
        self.free = Free(pool, text, triggered)
        self.structures = structures
        self._stops = stops

    def resume(self, result: Result) -> Become | None:
        """A trigger has come, or a structure has ended."""
        if not isinstance(result, tuple) or not result:
            return Become((Root(True),) if self._stops else (self, self.free))
        structures = self.structures[result.index(True)]
        if not structures:
            return None
        if len(structures) == 1 and not structures[0].begin:
            return Become((self, *_body(structures[0])))
        return Become(self.begun(structures))

    def begun(self, structures: Sequence[Structure]) -> tuple[Frame, ...]:
        """One of these comes now."""
        return (self, *_begun(structures))

    @property
    def nbytes(self) -> int:
        """See `Frame.nbytes`."""
        return sum(structure.value.nbytes for way in self.structures for structure in way)


class Part(Enum):
    """What comes next where there is no free text."""

    STRUCTURE = auto()
    VALUE = auto()


@dataclass(frozen=True, slots=True)
class Gap(Frame):
    """Where there is no free text: before a structure, or before the value that comes instead of them.

    Args:
        structures: bytes that a structure begins with.
        values: bytes that the value begins with; none of `structures`.
        left: whitespace that may still come.
        ends: whether the output may end here.
    """

    structures: int
    values: int
    left: int
    ends: bool

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Whitespace; or it shows what comes."""
        if SPACES >> byte & 1:
            return SPACES, Go((replace(self, left=self.left - 1),)) if self.left else None
        for part, first in ((Part.STRUCTURE, self.structures), (Part.VALUE, self.values)):
            if first >> byte & 1:
                return first, Leave(part)
        return ALL_BYTES & ~(SPACES | self.structures | self.values), None

    @property
    def accepting(self) -> bool:
        """The output may end between structures."""
        return self.ends


class Listed(Frame):
    """Below an output without free text: structures, or else one value.

    Args:
        structures: any of which may come, at least one.
        value: that may come instead.
        spaces: whitespace before what comes first, if there may be a value.
        gap: whitespace between structures.
        stops: the output ends with the first structure.
    """

    def __init__(
        self, structures: tuple[Structure, ...], value: Start | None, spaces: int, gap: int, stops: bool
    ) -> None:
        self.structures = structures
        self.value = value
        self._spaces = spaces
        self._gap = gap
        self._stops = stops
        self._first = sum(1 << byte for byte in {structure.begin[0] for structure in structures})

    @property
    def start(self) -> tuple[Frame, ...]:
        """What the output begins as."""
        value = self.value
        if value is None:
            return (self, *_begun(self.structures))
        return (self, Gap(self._first, _first_bytes(value), self._spaces, False))

    @property
    def clashes(self) -> bool:
        """Whether a first byte does not tell structures from a value and from whitespace."""
        other = SPACES | (0 if self.value is None else _first_bytes(self.value))
        return bool(self._first & other)

    def resume(self, result: Result) -> Become:
        """It is clear what comes, or a structure has ended."""
        if result is Part.VALUE:
            assert self.value is not None
            return Become((Root(), self.value))
        if result is Part.STRUCTURE:
            return Become((self, *_begun(self.structures)))
        if self._stops:
            return Become((Root(True),))
        return Become((self, Gap(self._first, 0, self._gap, True)))

    @property
    def nbytes(self) -> int:
        """See `Frame.nbytes`."""
        values = [structure.value for structure in self.structures] + ([self.value] if self.value else [])
        return sum(value.nbytes for value in values)


def _first_bytes(value: Start) -> int:
    return sum(1 << byte for byte in range(256) if value.step(byte)[1] is not None)


def _begun(structures: Sequence[Structure]) -> tuple[Frame, ...]:
    """One of these comes now."""
    ways = sorted((structure.begin, i) for i, structure in enumerate(structures))
    texts = Texts.of(tuple(text for text, _ in ways), tuple(Chosen(i) for _, i in ways))
    return (Begun(tuple(structures)), texts)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The result of the rest of a beginning."""

    number: int


@dataclass(frozen=True, slots=True)
class Begun(Frame):
    """While the rest of a beginning is read."""

    structures: tuple[Structure, ...]

    def resume(self, result: Result) -> Become:
        """The value comes next."""
        assert isinstance(result, Chosen)
        return Become(_body(self.structures[result.number]))


@dataclass(frozen=True, slots=True)
class Then(Frame):
    """While a value is read, after which other bytes have to come."""

    end: bytes

    def resume(self, result: Result) -> Become:
        """They come next."""
        return Become((Texts.of((self.end,), (None,)),))


def _body(structure: Structure) -> tuple[Frame, ...]:
    then = (Then(structure.end),) if structure.end else ()
    spaces = (Spaces(structure.spaces),) if structure.spaces else ()
    return (*then, structure.value, *spaces)
