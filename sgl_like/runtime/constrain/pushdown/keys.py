"""The frame of a key: names that mean something byte by byte, all others by derivatives."""

from __future__ import annotations

from dataclasses import dataclass

from sgl_like.runtime.constrain.expr import EMPTY, EPSILON, Node
from sgl_like.runtime.constrain.pushdown.frame import Action, Frame, Go, Pop
from sgl_like.runtime.constrain.pushdown.scalars import edge
from sgl_like.runtime.constrain.pushdown.values import Env


@dataclass(frozen=True, slots=True)
class Key(Frame):
    """Inside a key, after its opening quote.

    Args:
        env: shared things.
        texts: known names as JSON with the closing quote, sorted, and as they are.
        low: first of `texts` that begins with what came.
        high: one after the last.
        depth: how many bytes came.
        allowed: names that may come, with their `Object._key_watch` verdicts.
        other: what other keys may still come.
        watch: expressions whose verdicts are part of the result of other keys.
    """

    env: Env
    texts: tuple[tuple[bytes, str], ...]
    low: int
    high: int
    depth: int
    allowed: tuple[tuple[str, tuple[bool, ...]], ...]
    other: Node
    watch: tuple[Node, ...]

    def step(self, byte: int) -> tuple[int, Action | None]:
        """Named keys byte by byte, others by derivatives."""
        pool = self.env.pool
        depth = self.depth
        mine = [i for i in range(self.low, self.high) if self.texts[i][0][depth] == byte]
        mask, other = edge(pool, self.other, byte)
        watch = []
        for node in self.watch:
            own, after = edge(pool, node, byte)
            mask &= own
            watch.append(after)
        for i in range(self.low, self.high):
            mask &= ~(1 << self.texts[i][0][depth])
        if mine:
            mask = 1 << byte
            text, name = self.texts[mine[0]]
            if len(text) == depth + 1:
                flags = dict(self.allowed).get(name)
                return mask, None if flags is None else Pop((name, flags))
        else:
            mask |= 1 << byte
        if other is EPSILON:
            return mask, Pop((None, tuple(node.nullable for node in watch)))
        names = {name for name, _ in self.allowed}
        alive = any(self.texts[i][1] in names for i in mine)
        if other is EMPTY and not alive:
            return mask, None
        if other is EMPTY:
            watch = [EMPTY] * len(watch)
        if not mine:  # no known name any more: the same wherever and after whatever it began
            return mask, Go(Key(self.env.free, (), 0, 0, 0, (), other, tuple(watch)))
        low, high = mine[0], mine[-1] + 1
        return mask, Go(
            Key(
                self.env,
                self.texts,
                low,
                high,
                depth + 1,
                self.allowed,
                other,
                tuple(watch),
            )
        )
