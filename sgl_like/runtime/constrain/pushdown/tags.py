"""Frames of structural tags: text up to a trigger, then a structure: the rest of its beginning, a value, its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgl_like.runtime.constrain.expr import Node, Pool
from sgl_like.runtime.constrain.pushdown.expressions import Scalar
from sgl_like.runtime.constrain.pushdown.frame import Action, Become, Frame, Go, Pop, Result
from sgl_like.runtime.constrain.pushdown.syntax import Root, Spaces
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
        ways = sorted((structure.begin, i) for i, structure in enumerate(structures))
        texts = Texts.of(tuple(text for text, _ in ways), tuple(Chosen(i) for _, i in ways))
        return (self, Begun(tuple(structures)), texts)

    @property
    def nbytes(self) -> int:
        """See `Frame.nbytes`."""
        return sum(structure.value.nbytes for way in self.structures for structure in way)


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
