"""The start of a JSON value, and what the frames of one schema share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Concat, Node, Pool, Strings
from sgl_like.runtime.constrain.pushdown.expressions import Scalar
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    Formula,
    Formulas,
    Leaf,
    leaves,
)
from sgl_like.runtime.constrain.pushdown.frame import Action, Become, Frame, Go, Result
from sgl_like.runtime.constrain.pushdown.leaves import Running
from sgl_like.runtime.constrain.pushdown.opening import begin_own
from sgl_like.runtime.constrain.pushdown.scalars import KINDS, Scalars
from sgl_like.runtime.constrain.pushdown.schema import Schema
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.pushdown.texts import Texts

KIND_MASKS = {kind: sum(1 << b for b, k in KINDS.items() if k == kind) for kind in KINDS.values()}
NO_START = ALL_BYTES & ~sum(1 << b for b in (0x7B, 0x5B, *KINDS))
_MOST_TEXTS = 1 << 14
_ENTRY_BYTES = 600
SCALARS = ("string", "number", "literal")


class Judge(Protocol):
    """Finds out by searching whether frames can end."""

    busy: bool
    """Whether a search is running."""

    def apart(self) -> AbstractContextManager[None]:
        """For searches within a search, of which it knows nothing."""

    def can_end(self, frames: tuple[Frame, ...], alive: Callable[[Frame], bool] | None) -> bool | None:
        """Whether some frames, bottom first, can end; None if that takes too long to find out. `alive` tells of objects
        or arrays at the bottom if it is known that they can.
        """


class Env:
    """What the frames of one schema share: formulas, expressions, the style, and what was worked out before.

    Args:
        pool: of the expressions.
        formulas: where formulas are made.
        scalars: byte expressions of formulas.
        style: how JSON is written.
        free: the same for values that nothing is asserted about, shared by all schemas of the style.
    """

    def __init__(
        self, pool: Pool, formulas: Formulas, scalars: Scalars, style: Style, free: Env | None = None
    ) -> None:
        self.free = free or self
        self.pool = pool
        self.formulas = formulas
        self.scalars = scalars
        self.style = style
        self.begun: dict[tuple[Schema, str], Formula] = {}
        self.starts: dict[tuple[Formula, tuple[Formula, ...]], Start] = {}
        self.shapes: dict[Any, Any] = {}
        self.keys: dict[Any, Any] = {}
        self.open: tuple[Any, Any] = (None, None)
        self.judge: Judge | None = free.judge if free is not None else None
        self.judged: dict[Any, Any] = {}
        self.rough: dict[Any, Any] = {}
        self.possible: dict[Formula, bool] = {}

    @property
    def exact(self) -> bool:
        """Whether what leads nowhere is to be found out by searching: not within a search, which sees it anyway."""
        return self.judge is not None and not self.judge.busy

    @property
    def searching(self) -> bool:
        """Whether a search is running."""
        return self.judge is not None and self.judge.busy

    def leads_on(self, *frames: Frame, alive: Callable[[Frame], bool] | None = None) -> bool:
        """Whether some frames, bottom first, can end; True if that is not found out, or not now. Remembered for the
        lowest. See `Judge.can_end` for `alive`.
        """
        judge = self.judge
        if judge is None or judge.busy:
            return True
        found = self.judged.get(frames[0])
        if found is None:
            found = self.judged[frames[0]] = judge.can_end(frames, alive) is not False
        return bool(found)

    def forget(self) -> None:
        """Drop what can be worked out again."""
        for known in (self.starts, self.shapes, self.keys, self.rough, self.judged, self.possible):
            known.clear()
        self.scalars.forget()

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held."""
        known = (self.starts, self.keys, self.shapes, self.formulas, self.judged, self.rough, self.possible)
        return _ENTRY_BYTES * sum(len(each) for each in known)


class Text(NamedTuple):
    """The scalars of one kind that may come: an expression, and expressions whose verdicts are the result."""

    node: Node
    watch: tuple[Node, ...]

    def after(self, pool: Pool, byte: int) -> tuple[int, Action | None]:
        """What happens on the first byte."""
        mask, action = Scalar(pool, self.node, self.watch).step(byte)
        if byte != 0x22 or not isinstance(action, Go):
            return mask, action
        (frame,) = action.frames
        texts = finite(frame.node) if isinstance(frame, Scalar) else None
        if texts is None:
            return mask, action
        assert isinstance(frame, Scalar)
        columns = [_verdicts(pool, each, texts) for each in frame.watch]
        results: tuple[tuple[bool, ...], ...] = tuple(zip(*columns, strict=True)) or ((),) * len(texts)
        return mask, Go((Texts.of(texts, results),))


def _verdicts(pool: Pool, node: Node, texts: tuple[bytes, ...]) -> list[bool]:
    """Which of the texts an expression has."""
    known = () if node is EMPTY else finite(node)
    if known is not None:
        mine = frozenset(known)
        return [text in mine for text in texts]
    return [derive.matches(pool, node, text) for text in texts]


def finite(node: Node) -> tuple[bytes, ...] | None:
    """The texts of an expression that is plainly a finite set of them, sorted; else None."""
    if isinstance(node, Strings):
        return node.strings
    if isinstance(node, Concat) and isinstance(node.head, Strings) and len(node.head.strings) == 1:
        rest = finite(node.tail)
        if rest is not None and len(rest) <= _MOST_TEXTS:
            return tuple(node.head.strings[0] + text for text in rest)
    return None


class Opened(NamedTuple):
    """What an object or an array is to be, as formulas over `Running` leaves."""

    env: Env
    must: Formula
    watch: tuple[Formula, ...]


class Start(Frame):
    """Before a value, whitespace aside. Two of the same meaning are equal, whatever schemas they come from.

    Args:
        pool: of the expressions.
        scalars: `Text` or None for each of `SCALARS`.
        containers: what may come after ``{`` and after ``[``, or None.
    """

    __slots__ = ("_hash", "containers", "pool", "scalars")

    def __init__(
        self, pool: Pool, scalars: tuple[Text | None, ...], containers: tuple[Opened | None, Opened | None]
    ) -> None:
        self.pool = pool
        self.scalars = scalars
        self.containers = containers
        self._hash = hash((scalars, containers))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Start)
            and self._hash == other._hash
            and self.scalars == other.scalars
            and self.containers == other.containers
        )

    @property
    def alive(self) -> bool:
        """Whether a value may come; True if that takes too long to find out."""
        if any(each is not None for each in self.scalars):
            return True
        opened = [each for each in self.containers if each is not None]
        return bool(opened) and opened[0].env.leads_on(self)

    @property
    def nbytes(self) -> int:
        """See `Frame.nbytes`."""
        return sum(opened.env.nbytes for opened in self.containers if opened is not None)

    def _frames(self, which: int) -> tuple[Frame, ...] | None:
        opened = self.containers[which]
        return None if opened is None else opened.env.open[which](*opened)

    def step(self, byte: int) -> tuple[int, Action | None]:
        """The first byte of the value, which says of what type it is."""
        if byte in (0x7B, 0x5B):
            frames = self._frames(byte == 0x5B)
            return 1 << byte, None if frames is None else Go(frames)
        kind = KINDS.get(byte)
        if kind is None:
            return NO_START, None
        text = self.scalars[SCALARS.index(kind)]
        if text is None:
            return KIND_MASKS[kind], None
        mask, action = text.after(self.pool, byte)
        return mask & KIND_MASKS[kind], action

    def steps(self, byte: int) -> list[tuple[int, Action | None]]:
        """See `Frame.steps`: here also of the bytes with which no value begins."""
        found = self.step(byte)
        none = NO_START
        for bracket, opened in zip(b"{[", self.containers, strict=True):
            if opened is None:
                none |= 1 << bracket
        for kind, text in zip(SCALARS, self.scalars, strict=True):
            if text is None:
                none |= KIND_MASKS[kind]
        return [(none, None), found] if not none >> byte & 1 else [(none, None)]

    def resume(self, result: Result) -> Become:
        """What comes before the value has ended."""
        return Become((self,))


def start(env: Env, must: Formula, watch: tuple[Formula, ...] = ()) -> Start:
    """The frame before a value that `must` has to become true of; its result are the verdicts of `watch`."""
    key = (must, watch)
    found = env.starts.get(key)
    if found is None:
        env.pool.start_work()
        texts = []
        for kind in SCALARS:
            nodes = tuple(env.scalars.of(each, kind, plain=True) for each in watch)
            node = env.scalars.of(must, kind, plain=bool(watch))
            texts.append(None if node is EMPTY else Text(node, nodes))
        containers = _open(env, must, watch, "object"), _open(env, must, watch, "array")
        found = env.starts[key] = Start(env.pool, tuple(texts), containers)
    return found


def _open(env: Env, must: Formula, watch: tuple[Formula, ...], kind: str) -> Opened | None:
    def change(leaf: Leaf) -> Formula:
        return begin_own(env, leaf, kind)

    opened = env.formulas.map(must, change)
    if opened is FALSE:
        return None
    if opened is TRUE and not watch:
        return Opened(env.free, TRUE, ())
    return Opened(env, opened, tuple(env.formulas.map(each, change) for each in watch))


def running(*formulas: Formula) -> list[Running]:
    """The running assertions in formulas, those that leaves hold included."""
    found: dict[Running, None] = {}
    todo = list(formulas)
    while todo:
        batch, todo = todo, []
        for leaf in leaves(batch):
            if isinstance(leaf, Running) and leaf not in found:
                found[leaf] = None
                todo.extend(leaf.held())
    return list(found)
