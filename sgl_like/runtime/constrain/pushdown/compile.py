"""JSON Schemas for the pushdown machine."""

from __future__ import annotations

from typing import Any

from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.expr import Pool
from sgl_like.runtime.constrain.pushdown.formula import Formulas
from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack
from sgl_like.runtime.constrain.pushdown.scalars import Scalars
from sgl_like.runtime.constrain.pushdown.schema import Document
from sgl_like.runtime.constrain.pushdown.values import Env, Root, Style, Value
from sgl_like.runtime.constrain.vocabulary import Vocabulary


class JsonCompiler:
    """Compiles schemas into stacks of one machine."""

    def __init__(self, vocabulary: Vocabulary, limits: Limits | None = None) -> None:
        self.machine = Machine(vocabulary, limits)
        self._pool = Pool(self.machine.limits)
        self._scalars = Scalars(self._pool)
        self._free: dict[Style, Env] = {}

    def compile(self, schema: Any, style: Style) -> Stack:
        """The stack before an output."""
        with self.machine.lock:
            formulas = Formulas()
            free = self._free.setdefault(style, Env(self._pool, formulas, self._scalars, style))
            env = Env(self._pool, formulas, self._scalars, style, free)
            document = Document(schema, formulas)
            formula = document.schema(schema, "", "")
            return self.machine.start([Root(), Value(env, formula, spaces=style.spaces)])
