"""JSON Schemas for the pushdown machine."""

from __future__ import annotations

import json
from typing import Any

from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.expr import Pool
from sgl_like.runtime.constrain.pushdown.arrays import array_frames
from sgl_like.runtime.constrain.pushdown.formula import Formulas
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack
from sgl_like.runtime.constrain.pushdown.objects import object_frames
from sgl_like.runtime.constrain.pushdown.scalars import Scalars
from sgl_like.runtime.constrain.pushdown.schema import Document
from sgl_like.runtime.constrain.pushdown.syntax import Root, Spaces, Style
from sgl_like.runtime.constrain.pushdown.values import Env, start
from sgl_like.runtime.constrain.vocabulary import Vocabulary


class JsonCompiler:
    """Compiles schemas into stacks of one machine."""

    def __init__(self, vocabulary: Vocabulary, limits: Limits | None = None) -> None:
        self.machine = Machine(vocabulary)
        self._limits = limits or Limits()
        self._pool = Pool(self._limits)
        self._scalars = Scalars(self._pool)
        self._free: dict[Style, Env] = {}

    def compile(self, schema: Any, style: Style) -> Stack:
        """The stack before an output."""
        with self.machine.lock:
            frames, unique = self.frames(schema, style)
            return self.machine.start(frames, unique)

    def frames(self, schema: Any, style: Style) -> tuple[tuple[Frame, ...], bool]:
        """The frames before an output, bottom first, and whether some array's items may have to be unique."""
        formulas = Formulas()
        free = self._free.get(style)
        if free is None:
            free = self._free[style] = Env(self._pool, Formulas(), self._scalars, style)
            free.open = (object_frames, array_frames)
        env = Env(self._pool, formulas, self._scalars, style, free)
        env.open = free.open
        document = Document(schema, formulas, self._limits)
        value = start(env, document.schema(schema, "", ""))
        frames = (Root(), value, Spaces(style.spaces)) if style.spaces else (Root(), value)
        return frames, "uniqueItems" in json.dumps(schema)
