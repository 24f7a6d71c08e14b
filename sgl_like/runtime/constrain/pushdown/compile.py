"""JSON Schemas as frames, and the machine that all of them share."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.kernels.trim import trim
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.expr import Pool
from sgl_like.runtime.constrain.pushdown.arrays import array_frames
from sgl_like.runtime.constrain.pushdown.completion import Completions
from sgl_like.runtime.constrain.pushdown.following import checked_start
from sgl_like.runtime.constrain.pushdown.formula import Formula, Formulas
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.judge import SearchJudge
from sgl_like.runtime.constrain.pushdown.machine import Machine
from sgl_like.runtime.constrain.pushdown.matcher import PushdownGrammar, PushdownMatcher
from sgl_like.runtime.constrain.pushdown.objects import object_frames
from sgl_like.runtime.constrain.pushdown.scalars import Library, Scalars
from sgl_like.runtime.constrain.pushdown.schema import Document
from sgl_like.runtime.constrain.pushdown.syntax import Root, Spaces, Style
from sgl_like.runtime.constrain.pushdown.values import Env, Start
from sgl_like.runtime.constrain.pushdown.walker import Scratch
from sgl_like.runtime.constrain.regex import search_to_expr
from sgl_like.runtime.constrain.vocabulary import Vocabulary

_NODE_BYTES = 500
_EDGES_BYTES = 1500  # of the memo of one expression's edges, roughly


class CompiledFrames:
    """A constraint as frames. Thread-safe; its matchers share what they learn with those of other constraints.

    Attributes:
        dropped: what a lenient compilation dropped: keyword, JSON pointer and reason.
    """

    def __init__(
        self,
        compiler: JsonCompiler,
        frames: tuple[Frame, ...],
        unique: bool,
        dropped: list[tuple[str, str, str]],
    ) -> None:
        self.dropped = tuple(dropped)
        self._compiler = compiler
        self._frames = frames
        self._unique = unique

    def matcher(self) -> PushdownMatcher:
        """A matcher at the start of an output."""
        return self.grammar().matcher()

    def grammar(self) -> PushdownGrammar:
        """The constraint on the compiler's present machine."""
        compiler = self._compiler
        with compiler.lock:
            machine = compiler.machine()
            found = compiler.grammars.get(self)
            if found is None:
                begin = machine.start(self._frames, self._unique)
                found = PushdownGrammar(machine, begin, compiler.limits, compiler.completions)
                compiler.grammars[self] = found
            return found

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held by the constraint itself; what its matchers learn is the compiler's."""
        return sum(frame.nbytes for frame in self._frames)


class JsonCompiler:
    """Compiles schemas for one vocabulary. Thread-safe.

    What is found out about frames is kept in one machine for all schemas. When that has grown too large it is left
    to the matchers that have it, and a new one begins.
    """

    def __init__(self, vocabulary: Vocabulary, limits: Limits | None = None) -> None:
        self.vocabulary = vocabulary
        self.limits = limits or Limits()
        self.lock = threading.RLock()
        self.pool = Pool(self.limits)
        self._library: Library | None = None
        self._scratch = Scratch(vocabulary)
        self._free: dict[Style, Env] = {}
        self._machine = Machine(vocabulary, self.limits, self.lock, self._scratch, self.pool)
        self._judge = SearchJudge()
        self.completions = Completions(self._machine, self.limits, self._judge)
        self.grammars: weakref.WeakKeyDictionary[CompiledFrames, PushdownGrammar] = (
            weakref.WeakKeyDictionary()
        )
        self._envs: weakref.WeakSet[Env] = weakref.WeakSet()

    def machine(self) -> Machine:
        """The present machine. The caller holds the lock."""
        if self.nbytes > self.limits.max_machine_bytes:
            self.pool.forget()
            self._free.clear()
            self._judge.forget()
            self.grammars.clear()
            envs = list(self._envs)
            for env in envs:
                env.forget()
            self._machine = Machine(self.vocabulary, self.limits, self.lock, self._scratch, self.pool)
            self.completions = Completions(self._machine, self.limits, self._judge)
            try:
                for env in envs:
                    env.formulas.loosen()
                gc.collect()  # frames, formulas and schemas refer to one another
            finally:
                for env in envs:
                    env.formulas.tighten()
            trim()
        return self._machine

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held by what was found out."""
        return self._machine.nbytes + len(self.pool.edges) * _EDGES_BYTES + len(self.pool) * _NODE_BYTES

    def compile(self, schema: Any, style: Style, lenient: bool = False) -> CompiledFrames:
        """The constraint of a schema, given as JSON values.

        Raises:
            UnsupportedSchemaError: something cannot be enforced; not if `lenient`, then it is dropped and listed.
            ConstraintError: nothing is valid under the schema.
            ConstraintTooComplex: a limit was reached.
        """
        with self.lock:
            self.pool.start_clock(self.limits.max_seconds)
            try:
                value, documents = self.value([schema], style, lenient)
            finally:
                self.pool.stop_clock()
            if not value.alive:
                raise ConstraintError("the JSON schema allows no output at all")
            frames: tuple[Frame, ...] = (Root(), value)
            if style.spaces:
                frames = (*frames, Spaces(style.spaces))
            document = documents[0]
            return CompiledFrames(self, frames, document.unique, document.dropped)

    def value(self, schemas: list[Any], style: Style, lenient: bool) -> tuple[Start, list[Document]]:
        """The frame before a value that is valid under one of some schemas, if it is `alive`. The caller holds the
        lock.
        """
        if self._library is None:
            self._library = Library(self.pool)
        free = self._free.get(style)
        if free is None:
            free = self._free[style] = Env(self.pool, Formulas(), Scalars(self._library), style)
            free.open = (object_frames, array_frames)
            free.judge = self._judge
        env = Env(self.pool, Formulas(), Scalars(self._library), style, free)
        env.open = free.open
        self._envs.add(env)
        documents = [
            Document(schema, env.formulas, self.limits, lenient=lenient, refuse=self._refuse)
            for schema in schemas
        ]
        ways: list[Formula] = [
            document.schema(schema, "", "") for document, schema in zip(documents, schemas, strict=True)
        ]
        return checked_start(env, env.formulas.any_of(ways)), documents

    def _refuse(self, keyword: str, value: Any) -> str | None:
        """Why the value of a keyword cannot be enforced; None if it can."""
        if keyword == "format":
            return None
        assert self._library is not None
        self.pool.start_work()
        try:
            search_to_expr(self.pool, value, self._library.strings.character)
        except ConstraintTooComplex:
            raise
        except ConstraintError as error:
            return f"cannot be enforced: {error}"
        return None
